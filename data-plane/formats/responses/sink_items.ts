/**
 * PURE. The output items of a streamed response while they grow, and the events that tell of them. Facts:
 * reference/UPSTREAM-FORMATS.md A4, and the event types of the official SDK, which checks ids and places.
 */

import type { Json } from "../hub.ts";
import { callItem, type ItemStatus, messageItem, reasoningItem, refusalPart, textPart } from "./answer.ts";

/** Writes one event; the type and the number in the stream are added. */
export type Emit = (type: string, fields: Json) => string;

/** An item that has begun. */
export interface GrowingItem {
  readonly kind: "reasoning" | "message" | "call";
  /** The events that end it. */
  done(emit: Emit, status: ItemStatus): string;
  /** As it stands in the response after that. */
  item(status: ItemStatus): Json;
}

export class GrowingReasoning implements GrowingItem {
  readonly kind = "reasoning";
  private readonly id: string;
  private readonly place: number;
  private text = "";
  private begun = false;
  private readonly blocks: unknown[] = [];

  constructor(id: string, place: number) {
    this.id = id;
    this.place = place;
  }

  added(emit: Emit): string {
    return emit("response.output_item.added", { output_index: this.place, item: reasoningItem(this.id, "", []) });
  }

  /** Reasoning is told as a summary: that is what clients show. */
  push(text: string, emit: Emit): string {
    let events = "";
    if (!this.begun) {
      this.begun = true;
      events = emit("response.reasoning_summary_part.added", {
        ...this.at(),
        part: { type: "summary_text", text: "" },
      });
    }
    this.text += text;
    return events + emit("response.reasoning_summary_text.delta", { ...this.at(), delta: text });
  }

  keep(blocks: readonly unknown[]): void {
    this.blocks.push(...blocks);
  }

  done(emit: Emit, status: ItemStatus): string {
    const { text } = this;
    let events = "";
    if (this.begun) {
      events = emit("response.reasoning_summary_text.done", { ...this.at(), text });
      events += emit("response.reasoning_summary_part.done", { ...this.at(), part: { type: "summary_text", text } });
    }
    return events + emit("response.output_item.done", { output_index: this.place, item: this.item(status) });
  }

  item(_status: ItemStatus): Json {
    return reasoningItem(this.id, this.text, this.blocks);
  }

  private at(): Json {
    return { item_id: this.id, output_index: this.place, summary_index: 0 };
  }
}

interface GrowingPart {
  readonly refusal: boolean;
  text: string;
  annotations: Json[];
  logprobs: unknown[];
}

function partOf(part: GrowingPart): Json {
  return part.refusal ? refusalPart(part.text) : textPart(part.text, part.annotations, part.logprobs);
}

export class GrowingMessage implements GrowingItem {
  readonly kind = "message";
  private readonly id: string;
  private readonly place: number;
  private readonly parts: GrowingPart[] = [];

  constructor(id: string, place: number) {
    this.id = id;
    this.place = place;
  }

  added(emit: Emit): string {
    return emit("response.output_item.added", {
      output_index: this.place,
      item: messageItem(this.id, [], "in_progress"),
    });
  }

  pushText(text: string, logprobs: readonly unknown[], emit: Emit): string {
    const events = this.open(false, emit);
    const part = this.parts.at(-1)!;
    part.text += text;
    part.logprobs.push(...logprobs);
    return events + emit("response.output_text.delta", { ...this.at(), delta: text, logprobs });
  }

  pushRefusal(text: string, emit: Emit): string {
    const events = this.open(true, emit);
    this.parts.at(-1)!.text += text;
    return events + emit("response.refusal.delta", { ...this.at(), delta: text });
  }

  annotate(annotation: Json, emit: Emit): string {
    const events = this.open(false, emit);
    const { annotations } = this.parts.at(-1)!;
    annotations.push(annotation);
    const fields = { ...this.at(), annotation_index: annotations.length - 1, annotation };
    return events + emit("response.output_text.annotation.added", fields);
  }

  done(emit: Emit, status: ItemStatus): string {
    const events = this.endPart(emit);
    return events + emit("response.output_item.done", { output_index: this.place, item: this.item(status) });
  }

  item(status: ItemStatus): Json {
    return messageItem(this.id, this.parts.map(partOf), status);
  }

  /** Begins a part unless one of this kind is open. */
  private open(refusal: boolean, emit: Emit): string {
    if (this.parts.at(-1)?.refusal === refusal) return "";
    const events = this.endPart(emit);
    const part: GrowingPart = { refusal, text: "", annotations: [], logprobs: [] };
    this.parts.push(part);
    return events + emit("response.content_part.added", { ...this.at(), part: partOf(part) });
  }

  private endPart(emit: Emit): string {
    const part = this.parts.at(-1);
    if (part === undefined) return "";
    const { text, logprobs } = part;
    const events = part.refusal
      ? emit("response.refusal.done", { ...this.at(), refusal: text })
      : emit("response.output_text.done", { ...this.at(), text, logprobs });
    return events + emit("response.content_part.done", { ...this.at(), part: partOf(part) });
  }

  private at(): Json {
    return { item_id: this.id, output_index: this.place, content_index: this.parts.length - 1 };
  }
}

export class GrowingCall implements GrowingItem {
  readonly kind = "call";
  readonly callId: string;
  private readonly id: string;
  private readonly place: number;
  private readonly custom: boolean;
  private readonly name: string;
  private text = "";

  constructor(id: string, place: number, custom: boolean, callId: string, name: string) {
    this.id = id;
    this.place = place;
    this.custom = custom;
    this.callId = callId;
    this.name = name;
  }

  added(emit: Emit): string {
    return emit("response.output_item.added", { output_index: this.place, item: this.item("in_progress") });
  }

  push(text: string, emit: Emit): string {
    if (text === "") return "";
    this.text += text;
    const type = this.custom ? "response.custom_tool_call_input.delta" : "response.function_call_arguments.delta";
    return emit(type, { ...this.at(), delta: text });
  }

  done(emit: Emit, status: ItemStatus): string {
    const { text } = this;
    const events = this.custom
      ? emit("response.custom_tool_call_input.done", { ...this.at(), input: text })
      : emit("response.function_call_arguments.done", { ...this.at(), name: this.name, arguments: text });
    return events + emit("response.output_item.done", { output_index: this.place, item: this.item(status) });
  }

  item(status: ItemStatus): Json {
    return callItem(this.id, this.custom, this.callId, this.name, this.text, status);
  }

  private at(): Json {
    return { item_id: this.id, output_index: this.place };
  }
}
