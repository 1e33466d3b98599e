/** An OpenAI client that notes exactly what it was given: a whole answer, a part of one, an error, or nothing. */

import { Agent, request } from "node:http";

/** What became of one request. */
export interface Fate {
  /** `x-request-id`, which is the id of the usage record; empty if no head came. */
  readonly id: string;
  readonly veId: string;
  readonly stream: boolean;
  /** 0: no head came. */
  readonly status: number;
  /** Of the error body or frame; empty: there was none. */
  readonly code: string;
  /** All of the answer came, and it is not an error. */
  readonly whole: boolean;
  /** The node, by its URL. */
  readonly url: string;
  /** What the answer says it used; 0 if it did not say. */
  readonly tokens: number;
  /** When it was asked, by `performance.now`. */
  readonly askedMs: number;
  /** Until the head came, and until the end. */
  readonly headMs: number;
  readonly totalMs: number;
}

export interface Ask {
  /** Up to and including `/v1`. */
  readonly url: string;
  readonly key: string;
  readonly veId: string;
  readonly model: string;
  readonly stream: boolean;
  /** Words of the prompt, which are its tokens. */
  readonly words: number;
  /** 0: none. */
  readonly maxTokens: number;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 90_000;
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });

export function bodyOf({ model, stream, words, maxTokens }: Omit<Ask, "url" | "key" | "veId">): string {
  return JSON.stringify({
    model,
    messages: [{ role: "user", content: Array.from({ length: words }, () => "word").join(" ") }],
    ...(stream ? { stream, stream_options: { include_usage: true } } : {}),
    ...(maxTokens > 0 ? { max_tokens: maxTokens } : {}),
  });
}

interface Heard {
  code: string;
  tokens: number;
  done: boolean;
}

function hearJson(text: string, heard: Heard): void {
  const { error, usage } = JSON.parse(text) as { error?: { code?: string }; usage?: { total_tokens?: number } };
  if (error !== undefined && error !== null) heard.code = error.code ?? "error";
  if (usage?.total_tokens !== undefined) heard.tokens = usage.total_tokens;
}

function hearAnswer(text: string, stream: boolean, heard: Heard): void {
  if (!stream) {
    hearJson(text, heard);
    heard.done = true;
    return;
  }
  for (const frame of text.split("\n\n")) {
    if (!frame.startsWith("data: ")) continue;
    const data = frame.slice("data: ".length);
    if (data === "[DONE]") heard.done = true;
    else hearJson(data, heard);
  }
}

/** Asks once; never rejects. */
export function ask(what: Ask): Promise<Fate> {
  const beganMs = performance.now();
  const { promise, resolve } = Promise.withResolvers<Fate>();
  const heard: Heard = { code: "", tokens: 0, done: false };
  let [id, status, headMs, ended] = ["", 0, 0, false];
  let text = "";
  const finish = (): void => {
    const isStream = what.stream && status === 200;
    try {
      if (text !== "") hearAnswer(text, isStream, heard);
    } catch {
      // A broken connection cut it in the middle.
    }
    const whole = ended && heard.done && status === 200 && heard.code === "" && heard.tokens > 0;
    const totalMs = performance.now() - beganMs;
    const { code, tokens } = heard;
    resolve({
      id,
      url: what.url,
      veId: what.veId,
      stream: what.stream,
      status,
      code,
      whole,
      tokens,
      askedMs: beganMs,
      headMs,
      totalMs,
    });
  };
  const body = bodyOf(what);
  const call = request(`${what.url}/chat/completions`, {
    method: "POST",
    agent,
    timeout: what.timeoutMs ?? TIMEOUT_MS,
    headers: {
      authorization: `Bearer ${what.key}`,
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
    },
  });
  call.on("response", (response) => {
    headMs = performance.now() - beganMs;
    status = response.statusCode ?? 0;
    id = String(response.headers["x-request-id"] ?? "");
    response.setEncoding("utf8");
    response.on("data", (part: string) => (text += part));
    response.on("end", () => (ended = true));
    response.on("error", () => {});
    response.on("close", finish);
  });
  let timedOut = false;
  call.on("timeout", () => {
    timedOut = true;
    call.destroy();
  });
  call.on("error", (error: NodeJS.ErrnoException) => {
    if (status !== 0) return;
    // The node closed an idle connection just when it was taken for this: official SDKs ask again as well.
    if (call.reusedSocket && error.code === "ECONNRESET" && !timedOut) resolve(ask(what));
    else finish();
  });
  call.end(body);
  return promise;
}
