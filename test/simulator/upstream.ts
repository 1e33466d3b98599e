/** The upstreams of one node: answers whole or in streams, with and without usage, slow, cut, refused or never. */

import { readOutbound } from "../../data-plane/testing_fakes.ts";
import type { OutboundCall, OutboundRequest, OutboundSink, Upstream } from "../../data-plane/transport.ts";
import type { Random } from "./random.ts";
import type { Actor, Scheduler, SimTimer } from "./scheduler.ts";

/** A frame of a stream has this many tokens. */
const FRAME_TOKENS = 40;
/** Four bytes a token, as the estimates have it. */
const FRAME_TEXT = "sim ".repeat(FRAME_TOKENS);

export type Behaviour = "usage" | "no_usage" | "cut" | "refuse" | "connect" | "silent" | "stall";

const HEAD_JSON = { "content-type": "application/json" };
const HEAD_STREAM = { "content-type": "text/event-stream" };

function frameOf(delta: object, finish: string | null): string {
  return `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`;
}

const CONTENT_FRAME = Buffer.from(frameOf({ content: FRAME_TEXT }, null));
const ROLE_FRAME = Buffer.from(frameOf({ role: "assistant", content: "" }, null));
const DONE = "data: [DONE]\n\n";

/** Tokens of the prompt, which are never more than its bytes. */
function promptTokens(bytes: number): number {
  return Math.ceil(bytes / 5);
}

interface Ask {
  readonly stream: boolean;
  readonly outputMax: number;
  readonly usage: boolean;
  readonly bytes: number;
}

function askOf(body: Buffer): Ask {
  const fields = JSON.parse(body.toString("utf8")) as Record<string, unknown>;
  const limit = (fields["max_tokens"] ?? fields["max_completion_tokens"] ?? 0) as number;
  const options = fields["stream_options"] as { include_usage?: boolean } | undefined;
  const usage = options?.include_usage === true;
  return { stream: fields["stream"] === true, outputMax: limit, usage, bytes: body.length };
}

class Call implements OutboundCall {
  over = false;
  timer: SimTimer | null = null;
  private paused = false;
  private waiting: (() => void) | null = null;
  readonly #upstream: SimUpstream;
  readonly #sink: OutboundSink;
  readonly #ask: Ask;

  constructor(upstream: SimUpstream, sink: OutboundSink, ask: Ask) {
    this.#upstream = upstream;
    this.#sink = sink;
    this.#ask = ask;
  }

  abort(): void {
    this.over = true;
    if (this.timer !== null) this.timer.active = false;
  }
  pause(): void {
    this.paused = true;
  }
  resume(): void {
    this.paused = false;
    const { waiting } = this;
    this.waiting = null;
    waiting?.();
  }

  later(ms: number, run: () => void): void {
    this.timer = this.#upstream.scheduler.after(ms, () => this.#go(run), this.#upstream.actor);
  }

  #go(run: () => void): void {
    if (this.over) return;
    if (this.paused) this.waiting = run;
    else run();
  }

  begin(behaviour: Behaviour): void {
    const { random } = this.#upstream;
    const sink = this.#sink;
    this.later(random.between(1, 20), () => {
      if (behaviour === "connect") return this.#fail("connect");
      sink.onSent();
      if (behaviour === "silent") return;
      this.later(random.between(5, 600), () => {
        if (behaviour === "refuse") return this.#refuse();
        if (this.#ask.stream) this.#stream(behaviour);
        else this.#json(behaviour);
      });
    });
  }

  #fail(kind: "connect" | "reset"): void {
    this.over = true;
    this.#sink.onError(kind, "simulated");
  }

  #refuse(): void {
    const sink = this.#sink;
    sink.onHead(this.#upstream.random.pick([500, 429, 401, 400]), HEAD_JSON);
    sink.onChunk(Buffer.from('{"error":{"message":"simulated","type":"server_error"}}'));
    this.#end();
  }

  #end(): void {
    if (this.over) return;
    this.over = true;
    this.#sink.onEnd();
  }

  #usage(output: number): object {
    const prompt = promptTokens(this.#ask.bytes);
    return { prompt_tokens: prompt, completion_tokens: output, total_tokens: prompt + output };
  }

  #json(behaviour: Behaviour): void {
    const output = this.#upstream.outputTokens(this.#ask);
    const content = "sim ".repeat(output);
    const answer = {
      id: "c",
      object: "chat.completion",
      choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
      ...(behaviour === "no_usage" ? {} : { usage: this.#usage(output) }),
    };
    const bytes = Buffer.from(JSON.stringify(answer));
    const sink = this.#sink;
    sink.onHead(200, HEAD_JSON);
    if (behaviour === "cut" || behaviour === "stall") {
      sink.onChunk(bytes.subarray(0, bytes.length >> 1));
      if (behaviour === "cut") this.later(20, () => this.#fail("reset"));
      return;
    }
    sink.onChunk(bytes);
    this.#end();
  }

  #stream(behaviour: Behaviour): void {
    const { random } = this.#upstream;
    const sink = this.#sink;
    const output = this.#upstream.outputTokens(this.#ask);
    const whole = Math.floor(output / FRAME_TOKENS);
    const rest = output % FRAME_TOKENS;
    const breakAt = behaviour === "cut" || behaviour === "stall" ? random.int(0, whole) : -1;
    const gapMs = random.chance(0.1) ? random.between(300, 1500) : random.between(10, 150);
    sink.onHead(200, HEAD_STREAM);
    sink.onChunk(ROLE_FRAME);
    const next = (frame: number): void => {
      if (frame === breakAt) {
        if (behaviour === "cut") this.#fail("reset");
        return;
      }
      if (frame < whole) {
        sink.onChunk(CONTENT_FRAME);
        return this.later(gapMs, () => next(frame + 1));
      }
      const last = rest === 0 ? "" : frameOf({ content: "sim ".repeat(rest) }, null);
      const usage =
        behaviour === "no_usage" || !this.#ask.usage
          ? ""
          : `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", choices: [], usage: this.#usage(output) })}\n\n`;
      sink.onChunk(Buffer.from(`${last}${frameOf({}, "stop")}${usage}${DONE}`));
      this.#end();
    };
    this.later(gapMs, () => next(0));
  }
}

export class SimUpstream implements Upstream {
  readonly scheduler: Scheduler;
  readonly actor: Actor;
  readonly random: Random;
  /** How often something goes wrong. */
  readonly trouble: number;

  constructor(scheduler: Scheduler, actor: Actor, random: Random, trouble: number) {
    this.scheduler = scheduler;
    this.actor = actor;
    this.random = random;
    this.trouble = trouble;
  }

  send(request: OutboundRequest, sink: OutboundSink): OutboundCall {
    let ask: Ask | null = null;
    readOutbound(request, (body) => void (ask = askOf(body)));
    // What this simulation sends is there at once.
    const call = new Call(this, sink, ask!);
    call.begin(this.#behaviour());
    return call;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  outputTokens({ outputMax }: Ask): number {
    const { random } = this;
    const wished = random.chance(0.06) ? random.int(900, 2000) : random.int(1, 300);
    return outputMax > 0 ? Math.min(wished, outputMax) : wished;
  }

  #behaviour(): Behaviour {
    const { random } = this;
    if (!random.chance(this.trouble)) return random.chance(0.15) ? "no_usage" : "usage";
    return random.pick(["cut", "cut", "refuse", "refuse", "connect", "silent", "stall"] as const);
  }
}
