/** PURE. The frames of a chat completion that is made anew: `chat.completion.chunk`, and `[DONE]`. */

import type { ChatDelta, ChatSink, HubContext, Json } from "./hub.ts";

export class ChatChunkSink implements ChatSink {
  /** Up to the choices, which are all that differs from chunk to chunk. */
  private readonly head: string;
  private readonly usageAsked: boolean;
  private readonly begun = new Set<number>();

  constructor(context: HubContext, usageAsked: boolean) {
    const { id, createdS, model } = context;
    const head = { id: `chatcmpl-${id}`, object: "chat.completion.chunk", created: createdS, model };
    this.head = `data: ${JSON.stringify(head).slice(0, -1)},"choices":[`;
    this.usageAsked = usageAsked;
  }

  push({ index, delta, finishReason, logprobs }: ChatDelta): string {
    const text = JSON.stringify(this.withRole(index, delta));
    const probs = logprobs === undefined || logprobs === null ? "null" : JSON.stringify(logprobs);
    const reason = finishReason === null ? "null" : JSON.stringify(finishReason);
    // Put together by hand: this is what nearly all frames are.
    return this.framed(`{"index":${index},"delta":${text},"logprobs":${probs},"finish_reason":${reason}}`);
  }

  end(usage: Json | null): string {
    const last = this.usageAsked && usage !== null ? `${this.head}],"usage":${JSON.stringify(usage)}}\n\n` : "";
    return `${last}data: [DONE]\n\n`;
  }

  cut(): string {
    const choices = this.begun.size === 0 ? [0] : [...this.begun];
    return this.frame(choices.map((index) => ({ index, delta: {}, logprobs: null, finish_reason: "length" })));
  }

  /** The first delta of a choice names the role. */
  private withRole(index: number, delta: Json): Json {
    if (this.begun.has(index)) return delta;
    this.begun.add(index);
    return "role" in delta ? delta : { role: "assistant", ...delta };
  }

  private frame(choices: readonly Json[]): string {
    return this.framed(choices.map((choice) => JSON.stringify(choice)).join(","));
  }

  private framed(choices: string): string {
    return `${this.head}${choices}]${this.usageAsked ? ',"usage":null' : ""}}\n\n`;
  }
}
