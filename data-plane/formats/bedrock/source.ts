/** PURE. From the events of ConverseStream to deltas (reference/UPSTREAM-FORMATS.md D5). */

import type { SseEvent } from "../../sse.ts";
import { type ChatDelta, type ChatSource, type Json, SourceState, type UpstreamError } from "../hub.ts";
import { countOf, objectOf, parseObject, textOf } from "../json.ts";
import { finishReasonOf, usageOf } from "./answer.ts";
import { streamError } from "./errors.ts";
import { JSON_TOOL } from "./tools.ts";

/** Reasoning that is longer is not given to be replayed: it would have to be kept whole until it ends. */
export const THINKING_CHARS_MAX = 2 * 1024 * 1024;
/** More blocks at the same time are no answer. Each ends before or soon after the next one begins. */
export const OPEN_BLOCKS_MAX = 256;

/** A content block that has not ended. */
interface Block {
  /** `later`: of JSON that was given once already. */
  kind: "text" | "tool" | "json" | "later";
  /** Of a call among the calls of the client's tools. */
  call: number;
  /** Some of the call's input came. */
  input: boolean;
  thinking: string;
  signature: string;
  redacted: string;
}

const EVENT_NAMES = new Set([
  "messageStart",
  "contentBlockStart",
  "contentBlockDelta",
  "contentBlockStop",
  "messageStop",
  "metadata",
]);
const EXCEPTION = "exception:";
const ERROR = "error:";

export class ConverseSource implements ChatSource {
  deltas: ChatDelta[] = [];
  usage: Json | null = null;
  error: UpstreamError | null = null;
  finished = false;
  private readonly blocks = new Map<number, Block>();
  private calls = 0;
  private json = false;

  read({ event, data }: SseEvent): SourceState {
    this.deltas = [];
    if (event.startsWith(EXCEPTION)) return this.fail(event.slice(EXCEPTION.length), data);
    if (event.startsWith(ERROR)) return this.fail(event.slice(ERROR.length), data);
    if (!EVENT_NAMES.has(event)) return SourceState.OPEN;
    const payload = data === null ? null : parseObject(data);
    if (payload === null) return SourceState.BROKEN;
    if (event === "messageStart") this.emit({ role: "assistant", content: "" });
    else if (event === "messageStop") this.stop(payload);
    else if (event === "metadata") return this.readMetadata(payload);
    else return this.readBlock(event, payload);
    return SourceState.OPEN;
  }

  private fail(type: string, data: Buffer | null): SourceState {
    this.error = streamError(type, data);
    return SourceState.ERROR;
  }

  private emit(delta: Json, finishReason: string | null = null): void {
    this.deltas.push({ index: 0, delta, finishReason });
  }

  private stop(payload: Json): void {
    this.finished = true;
    // Blocks whose end was not said end here.
    for (const block of this.blocks.values()) this.endBlock(block);
    this.blocks.clear();
    this.emit({}, finishReasonOf(payload["stopReason"], this.calls, this.json));
  }

  /** It comes last. */
  private readMetadata(payload: Json): SourceState {
    this.usage = usageOf(payload["usage"]) ?? this.usage;
    return this.finished ? SourceState.DONE : SourceState.OPEN;
  }

  private readBlock(event: string, payload: Json): SourceState {
    const index = countOf(payload["contentBlockIndex"]);
    if (index === undefined) return SourceState.BROKEN;
    if (event === "contentBlockStop") {
      const block = this.blocks.get(index);
      if (block !== undefined) this.endBlock(block);
      this.blocks.delete(index);
      return SourceState.OPEN;
    }
    let block = this.blocks.get(index);
    if (block === undefined) {
      if (this.blocks.size >= OPEN_BLOCKS_MAX) return SourceState.BROKEN;
      block = { kind: "text", call: 0, input: false, thinking: "", signature: "", redacted: "" };
      this.blocks.set(index, block);
    }
    if (event === "contentBlockStart") this.startBlock(block, objectOf(payload["start"])["toolUse"]);
    else return this.readDelta(block, objectOf(payload["delta"]));
    return SourceState.OPEN;
  }

  private startBlock(block: Block, toolUse: unknown): void {
    if (typeof toolUse !== "object" || toolUse === null) return;
    const { name, toolUseId } = objectOf(toolUse);
    if (name === JSON_TOOL) {
      block.kind = this.json ? "later" : "json";
      this.json = true;
      return;
    }
    block.kind = "tool";
    block.call = this.calls++;
    const call = { name: textOf(name), arguments: "" };
    this.emit({ tool_calls: [{ index: block.call, id: textOf(toolUseId), type: "function", function: call }] });
  }

  private readDelta(block: Block, delta: Json): SourceState {
    const { text, toolUse, reasoningContent } = delta;
    if (typeof text === "string" && text !== "") this.emit({ content: text });
    if (typeof reasoningContent === "object") this.readReasoning(block, objectOf(reasoningContent));
    if (typeof toolUse !== "object" || toolUse === null) return SourceState.OPEN;
    // Nobody said which tool this is.
    if (block.kind === "text") return SourceState.BROKEN;
    this.addInput(block, textOf(objectOf(toolUse)["input"]));
    return SourceState.OPEN;
  }

  private addInput(block: Block, text: string): void {
    if (text === "") return;
    block.input = true;
    if (block.kind === "json") this.emit({ content: text });
    if (block.kind === "tool") this.emit({ tool_calls: [{ index: block.call, function: { arguments: text } }] });
  }

  private readReasoning(block: Block, { text, signature, redactedContent }: Json): void {
    if (typeof text === "string" && text !== "") {
      this.emit({ reasoning_content: text });
      if (block.thinking.length <= THINKING_CHARS_MAX) block.thinking += text;
    }
    if (typeof signature === "string" && block.signature.length <= THINKING_CHARS_MAX) block.signature += signature;
    if (typeof redactedContent === "string" && block.redacted.length <= THINKING_CHARS_MAX)
      block.redacted = block.redacted === "" ? redactedContent : joinBase64(block.redacted, redactedContent);
  }

  private endBlock(block: Block): void {
    // A call without input is one with no arguments.
    if (!block.input) this.addInput(block, "{}");
    const { thinking, signature, redacted } = block;
    if (thinking.length + signature.length + redacted.length > THINKING_CHARS_MAX) return;
    if (signature !== "") this.emit({ thinking_blocks: [{ type: "thinking", thinking, signature }] });
    if (redacted !== "") this.emit({ thinking_blocks: [{ type: "redacted_thinking", data: redacted }] });
  }
}

function joinBase64(one: string, two: string): string {
  return Buffer.concat([Buffer.from(one, "base64"), Buffer.from(two, "base64")]).toString("base64");
}
