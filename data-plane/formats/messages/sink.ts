/** PURE. Chat deltas as the stream of a Messages client. Facts: reference/UPSTREAM-FORMATS.md sections 1, C6 and C8. */

import type { ChatDelta, ChatSink, HubContext, Json } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { emptyMessage, messagesUsage, type Stop, stopOf } from "./answer.ts";
import { Blocks } from "./blocks.ts";
import { frame, PING_FRAME } from "./frames.ts";

/** What a model says in refusing is kept up to so many characters, to say it again at the end. */
const REFUSAL_CHARS_MAX = 64 * 1024;

export class MessagesSink implements ChatSink {
  private readonly context: HubContext;
  private readonly blocks: Blocks;
  private started = false;
  private finishReason: string | null = null;
  private refusal = "";

  constructor(context: HubContext) {
    this.context = context;
    this.blocks = new Blocks(context);
  }

  /** Only the first choice is told: Messages has no others. */
  push({ index, delta, finishReason }: ChatDelta): string {
    if (index !== 0) return "";
    let out = this.start() + this.reasoning(delta);
    out += this.blocks.text("text", textOf(delta["content"]));
    const refusal = textOf(delta["refusal"]);
    if (this.refusal.length < REFUSAL_CHARS_MAX) this.refusal += refusal;
    out += this.blocks.text("refusal", refusal);
    for (const each of listOf(delta["tool_calls"])) {
      const call = objectOf(each);
      const { name, arguments: json } = objectOf(call["function"]);
      out += this.blocks.tool(countOf(call["index"]) ?? 0, textOf(call["id"]), textOf(name), textOf(json));
    }
    // The end is told with the usage; arguments may still come after the reason.
    if (finishReason !== null) this.finishReason = finishReason;
    return out;
  }

  end(usage: Json | null): string {
    return this.finish(stopOf(this.finishReason, this.blocks.calls, this.refusal), usage);
  }

  cut(usage: Json | null): string {
    return this.finish(stopOf("length", this.blocks.calls, this.refusal), usage);
  }

  private reasoning(delta: Json): string {
    let out = this.blocks.text("thinking", textOf(delta["reasoning_content"]));
    for (const each of listOf(delta["thinking_blocks"])) {
      const block = objectOf(each);
      if (block["type"] === "redacted_thinking") out += this.blocks.redacted(textOf(block["data"]));
      else if (block["type"] === "thinking")
        out += this.blocks.thinking(textOf(block["thinking"]), textOf(block["signature"]));
    }
    return out;
  }

  private start(): string {
    if (this.started) return "";
    this.started = true;
    return frame("message_start", { type: "message_start", message: emptyMessage(this.context) }) + PING_FRAME;
  }

  private finish(stop: Stop, usage: Json | null): string {
    const delta = { ...stop, container: null };
    return (
      this.start() +
      this.blocks.close() +
      frame("message_delta", { type: "message_delta", delta, usage: messagesUsage(usage) }) +
      frame("message_stop", { type: "message_stop" })
    );
  }
}
