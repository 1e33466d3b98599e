/**
 * PURE. The events of Anthropic's stream as deltas of a chat completion. Facts are from reference/UPSTREAM-FORMATS.md C6:
 * blocks come one after another, the last events say why it ended and what was used.
 */

import type { SseEvent } from "../../sse.ts";
import { type ChatDelta, type ChatSource, type Json, SourceState, type UpstreamError } from "../hub.ts";
import { objectOf, parseObject, textOf } from "../json.ts";
import { annotationOf, customInput, finishReason, refusalText, thinkingBlock } from "./answer.ts";
import { streamError } from "./errors.ts";
import { CUSTOM_SUFFIX, JSON_TOOL } from "./tools.ts";
import { hubUsage, laterUsage, saysOutput } from "./usage.ts";

/** No block that is kept to its end, a thought or the input of a custom tool, is longer. */
export const BLOCK_CHARS_MAX = 4 * 1024 * 1024;

interface OpenBlock {
  readonly type: "text" | "thinking" | "redacted" | "function" | "custom" | "output" | "other";
  /** Among the calls of the client's tools. */
  readonly call: number;
  /** Thought, or the input of a custom tool. */
  kept: string;
  signature: string;
  readonly start: Json;
  /** Arguments came. */
  filled: boolean;
  /** Where the text of the block begins. */
  readonly at: number;
}

export class AnthropicSource implements ChatSource {
  deltas: readonly ChatDelta[] = NOTHING;
  error: UpstreamError | null = null;
  /** Null until the end of the message: its start says what went in, and of what comes out no more than a guess. */
  usage: Json | null = null;
  finished = false;
  private raw: Json = {};
  private readonly open = new Map<unknown, OpenBlock>();
  private calls = 0;
  private textChars = 0;
  private begun = false;

  read(event: SseEvent): SourceState {
    this.deltas = NOTHING;
    const { data } = event;
    const parsed = data === null ? null : parseObject(data);
    const type = textOf(parsed?.["type"]) || event.event;
    if (type === "error" || (type === "" && parsed?.["error"])) {
      this.error = streamError(parsed ?? {});
      return SourceState.ERROR;
    }
    if (data === null || data.length === 0) return SourceState.OPEN;
    if (parsed === null) return SourceState.BROKEN;
    return this.on(type, parsed);
  }

  private on(type: string, event: Json): SourceState {
    switch (type) {
      case "message_start":
        this.raw = laterUsage(this.raw, objectOf(event["message"])["usage"]);
        if (!this.begun) this.say({ role: "assistant", content: "" });
        this.begun = true;
        return SourceState.OPEN;
      case "content_block_start":
        this.start(event["index"], objectOf(event["content_block"]));
        return SourceState.OPEN;
      case "content_block_delta":
        return this.delta(this.open.get(event["index"]), objectOf(event["delta"]));
      case "content_block_stop":
        this.stop(event["index"]);
        return SourceState.OPEN;
      case "message_delta":
        this.messageDelta(objectOf(event["delta"]), event["usage"]);
        return SourceState.OPEN;
      case "message_stop":
        if (!this.finished) this.finish(null, null);
        return SourceState.DONE;
      default:
        return SourceState.OPEN;
    }
  }

  private say(delta: Json, finish: string | null = null): void {
    const said: ChatDelta = { index: 0, delta, finishReason: finish };
    this.deltas = this.deltas === NOTHING ? [said] : [...this.deltas, said];
  }

  private start(index: unknown, start: Json): void {
    const name = textOf(start["name"]);
    const type = typeOf(textOf(start["type"]), name);
    const isCall = type === "function" || type === "custom";
    const block: OpenBlock = {
      type,
      call: isCall ? this.calls++ : -1,
      kept: textOf(start["thinking"]),
      signature: textOf(start["signature"]),
      start,
      filled: false,
      at: this.textChars,
    };
    this.open.set(index, block);
    const id = textOf(start["id"]);
    if (type === "function")
      this.say(callDelta(block.call, { id, type: "function", function: { name, arguments: "" } }));
    else if (type === "custom")
      this.say(callDelta(block.call, { id, type, custom: { name: name.slice(0, -CUSTOM_SUFFIX.length), input: "" } }));
    else if (type === "text") this.text(textOf(start["text"]));
    else if (type === "thinking" && block.kept !== "") this.say({ reasoning_content: block.kept });
  }

  private text(text: string): void {
    if (text === "") return;
    this.textChars += text.length;
    this.say({ content: text });
  }

  private delta(block: OpenBlock | undefined, delta: Json): SourceState {
    switch (delta["type"]) {
      case "text_delta":
        this.text(textOf(delta["text"]));
        return SourceState.OPEN;
      case "input_json_delta":
        return block === undefined ? SourceState.OPEN : this.input(block, textOf(delta["partial_json"]));
      case "thinking_delta": {
        const thinking = textOf(delta["thinking"]);
        if (thinking !== "") this.say({ reasoning_content: thinking });
        return block === undefined ? SourceState.OPEN : keep(block, thinking);
      }
      case "signature_delta":
        if (block !== undefined) block.signature += textOf(delta["signature"]);
        return SourceState.OPEN;
      case "citations_delta": {
        const annotation = annotationOf(delta["citation"], block?.at ?? 0, this.textChars);
        if (annotation !== null) this.say({ annotations: [annotation] });
        return SourceState.OPEN;
      }
      default:
        return SourceState.OPEN;
    }
  }

  private input(block: OpenBlock, json: string): SourceState {
    if (json === "") return SourceState.OPEN;
    block.filled = true;
    if (block.type === "custom") return keep(block, json);
    if (block.type === "function") this.say(callDelta(block.call, { function: { arguments: json } }));
    else if (block.type === "output") this.text(json);
    return SourceState.OPEN;
  }

  private stop(index: unknown): void {
    const block = this.open.get(index);
    if (block === undefined) return;
    this.open.delete(index);
    const { type, start, kept, signature, call } = block;
    // Tools without parameters come without deltas, and some servers send the whole input at the start.
    const input = JSON.stringify(objectOf(start["input"]));
    if (type === "function" && !block.filled) this.say(callDelta(call, { function: { arguments: input } }));
    if (type === "output" && !block.filled) this.text(input);
    if (type === "custom") {
      const parsed = parseObject(Buffer.from(block.filled ? kept : input));
      this.say(callDelta(call, { custom: { input: parsed === null ? kept : customInput(parsed) } }));
    }
    if (type === "thinking" && signature !== "") this.say({ thinking_blocks: [thinkingBlock(kept, signature)] });
    if (type === "redacted")
      this.say({ thinking_blocks: [{ type: "redacted_thinking", data: textOf(start["data"]) }] });
  }

  private messageDelta(delta: Json, usage: unknown): void {
    this.raw = laterUsage(this.raw, usage);
    if (saysOutput(usage)) this.usage = hubUsage(this.raw);
    const reason = delta["stop_reason"];
    if (typeof reason === "string" && !this.finished) this.finish(reason, delta["stop_details"]);
  }

  private finish(reason: string | null, details: unknown): void {
    const refusal = refusalText(reason, details);
    if (refusal !== null) this.say({ refusal });
    this.say({}, finishReason(reason, this.calls > 0));
    this.finished = true;
  }
}

const NOTHING: readonly ChatDelta[] = [];

function typeOf(type: string, name: string): OpenBlock["type"] {
  if (type === "text" || type === "thinking") return type;
  if (type === "redacted_thinking") return "redacted";
  if (type !== "tool_use") return "other";
  if (name === JSON_TOOL) return "output";
  return name.endsWith(CUSTOM_SUFFIX) ? "custom" : "function";
}

function callDelta(index: number, call: Json): Json {
  return { tool_calls: [{ index, ...call }] };
}

function keep(block: OpenBlock, text: string): SourceState {
  block.kept += text;
  return block.kept.length > BLOCK_CHARS_MAX ? SourceState.BROKEN : SourceState.OPEN;
}
