/** PURE. Chat deltas as the events of a streamed response. */

import type { ChatDelta, ChatSink, HubContext, Json } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";
import { annotationOf, type Ending, endingOf, IN_PROGRESS, itemId, ItemPrefix, LENGTH, responseOf } from "./answer.ts";
import { GrowingCall, type GrowingItem, GrowingMessage, GrowingReasoning } from "./sink_items.ts";

/** A call whose tool is not named yet: the item that begins it has to name it. */
interface NamelessCall {
  id: string;
  custom: boolean;
  text: string;
}

export class ResponsesSink implements ChatSink {
  private readonly context: HubContext;
  private sequence = 0;
  private begun = false;
  private finishReason: string | null = null;
  private readonly items: GrowingItem[] = [];
  /** The last item, if more of it may come: text goes on in it until something else begins. */
  private current: GrowingReasoning | GrowingMessage | null = null;
  /** Calls by their place in the chat message. They stay open to the end, since their parts may come in any order. */
  private readonly calls = new Map<number, GrowingCall>();
  private readonly open = new Set<GrowingItem>();
  private readonly nameless = new Map<number, NamelessCall>();

  constructor(context: HubContext) {
    this.context = context;
  }

  push({ index, delta, finishReason, logprobs }: ChatDelta): string {
    // A response has one choice.
    if (index !== 0) return "";
    let events = this.begin();
    const reasoning = textOf(delta["reasoning_content"]);
    const blocks = listOf(delta["thinking_blocks"]);
    if (reasoning !== "" || blocks.length > 0) events += this.pushReasoning(reasoning, blocks);
    const text = textOf(delta["content"]);
    const refusal = textOf(delta["refusal"]);
    const annotations = listOf(delta["annotations"]);
    if (text !== "" || refusal !== "" || annotations.length > 0) {
      const [message, added] = this.message();
      events += added;
      if (text !== "") events += message.pushText(text, listOf(objectOf(logprobs)["content"]), this.emit);
      for (const each of annotations) events += message.annotate(annotationOf(each), this.emit);
      if (refusal !== "") events += message.pushRefusal(refusal, this.emit);
    }
    for (const each of listOf(delta["tool_calls"])) events += this.pushCall(objectOf(each));
    this.finishReason ??= finishReason;
    return events;
  }

  end(usage: Json | null): string {
    return this.finish(endingOf(this.finishReason), usage);
  }

  cut(usage: Json | null): string {
    return this.finish(LENGTH, usage);
  }

  private finish(ending: Ending, usage: Json | null): string {
    let events = this.begin();
    for (const [place, call] of this.nameless) events += this.openCall(place, call, "");
    const last = this.items.at(-1);
    const statusOf = (item: GrowingItem) => (item === last && ending.reason !== null ? "incomplete" : "completed");
    for (const item of this.open) events += item.done(this.emit, statusOf(item));
    const output = this.items.map((item) => item.item(statusOf(item)));
    const type = ending.reason === null ? "response.completed" : "response.incomplete";
    return events + this.emit(type, { response: responseOf(this.context, ending, output, usage) });
  }

  private begin(): string {
    if (this.begun) return "";
    this.begun = true;
    const response = responseOf(this.context, IN_PROGRESS, [], null);
    return this.emit("response.created", { response }) + this.emit("response.in_progress", { response });
  }

  private readonly emit = (type: string, fields: Json): string => {
    // Types are names without anything to escape, and every event has fields.
    const rest = JSON.stringify(fields).slice(1);
    return `event: ${type}\ndata: {"type":"${type}","sequence_number":${this.sequence++},${rest}\n\n`;
  };

  private add(item: GrowingReasoning | GrowingMessage | GrowingCall): string {
    this.items.push(item);
    this.open.add(item);
    return item.added(this.emit);
  }

  /** What follows text or reasoning ends it. */
  private closeCurrent(): string {
    const { current } = this;
    if (current === null) return "";
    this.current = null;
    this.open.delete(current);
    return current.done(this.emit, "completed");
  }

  private pushReasoning(text: string, blocks: readonly unknown[]): string {
    let events = "";
    let item = this.current;
    if (item?.kind !== "reasoning") {
      events = this.closeCurrent();
      item = new GrowingReasoning(this.newId(ItemPrefix.REASONING), this.items.length);
      this.current = item;
      events += this.add(item);
    }
    item.keep(blocks);
    return text === "" ? events : events + item.push(text, this.emit);
  }

  private message(): [GrowingMessage, string] {
    if (this.current?.kind === "message") return [this.current, ""];
    const events = this.closeCurrent();
    const item = new GrowingMessage(this.newId(ItemPrefix.MESSAGE), this.items.length);
    this.current = item;
    return [item, events + this.add(item)];
  }

  private newId(prefix: ItemPrefix): string {
    return itemId(this.context, prefix, this.items.length);
  }

  private pushCall(call: Json): string {
    const place = countOf(call["index"]) ?? 0;
    const id = textOf(call["id"]);
    const custom = call["type"] === "custom" || call["custom"] !== undefined;
    const named = objectOf(call[custom ? "custom" : "function"]);
    const name = textOf(named["name"]);
    const text = textOf(named[custom ? "input" : "arguments"]);
    const open = this.calls.get(place);
    // Some servers give every call the same place: another id is another call.
    if (open !== undefined && (id === "" || id === open.callId)) return open.push(text, this.emit);
    const begun = this.nameless.get(place) ?? { id: "", custom, text: "" };
    begun.id ||= id;
    begun.text += text;
    this.nameless.set(place, begun);
    return name === "" ? "" : this.openCall(place, begun, name);
  }

  private openCall(place: number, { id, custom, text }: NamelessCall, name: string): string {
    this.nameless.delete(place);
    const events = this.closeCurrent();
    const prefix = custom ? ItemPrefix.CUSTOM : ItemPrefix.FUNCTION;
    const callId = id === "" ? `call_${this.context.id}_${place}` : id;
    const item = new GrowingCall(this.newId(prefix), this.items.length, custom, callId, name);
    this.calls.set(place, item);
    return events + this.add(item) + item.push(text, this.emit);
  }
}
