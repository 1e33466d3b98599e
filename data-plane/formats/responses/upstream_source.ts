/** PURE. The events of a streamed response as chat deltas. Facts: reference/UPSTREAM-FORMATS.md A4. */

import type { SseEvent } from "../../sse.ts";
import { type ChatDelta, type ChatSource, type Json, SourceState, type UpstreamError } from "../hub.ts";
import { countOf, listOf, objectOf, parseObject, textOf } from "../json.ts";
import { blockOfItem, PART_BREAK, reasoningText } from "./reasoning.ts";
import { callOf, chatAnnotation, finishReasonOf } from "./upstream_answer.ts";
import { responseError } from "./upstream_errors.ts";
import { hubUsage } from "./usage.ts";

const DONE = "[DONE]";

/** What came of one output item. */
interface ItemState {
  /** Place among the calls of the message, -1 for other items. */
  readonly call: number;
  /** Some of its text, reasoning or arguments came as deltas: then what is said once more at its end is not new. */
  said: boolean;
  /** Some servers send reasoning both whole and as a summary: the first kind that comes counts. */
  reasoning: "" | "text" | "summary";
  /** The last part that reasoning came of. */
  part: number;
}

export class ResponsesSource implements ChatSource {
  deltas: readonly ChatDelta[] = [];
  usage: Json | null = null;
  error: UpstreamError | null = null;
  finished = false;
  private readonly items = new Map<number, ItemState>();
  private calls = 0;
  private begun = false;
  /** The message and the reasoning item whose text came last, -1: none yet. */
  private message = -1;
  private thought = -1;
  private said: Record<string, unknown>[] = [];

  read(event: SseEvent): SourceState {
    this.deltas = [];
    const { data } = event;
    if (data === null) return SourceState.OPEN;
    const text = data.length < 16 ? data.toString("latin1").trim() : "";
    if (text === DONE) return SourceState.DONE;
    if (data.length < 16 && text === "") return SourceState.OPEN;
    const body = parseObject(data);
    if (body === null) return SourceState.BROKEN;
    return this.readEvent(textOf(body["type"]) || event.event, body);
  }

  private readEvent(type: string, body: Json): SourceState {
    if (type === "error" || body["error"]) {
      const { error } = body;
      this.error = responseError(typeof error === "string" ? { message: error } : error ? objectOf(error) : body);
      return SourceState.ERROR;
    }
    this.said = [];
    switch (type) {
      case "response.completed":
      case "response.incomplete":
        return this.finish(objectOf(body["response"]));
      case "response.failed":
        return this.fail(objectOf(body["response"]));
      case "response.output_item.added":
        this.addItem(countOf(body["output_index"]) ?? 0, objectOf(body["item"]));
        break;
      case "response.output_item.done":
        this.endItem(countOf(body["output_index"]) ?? 0, objectOf(body["item"]));
        break;
      default:
        this.readPart(type, countOf(body["output_index"]) ?? 0, body);
    }
    this.deltas = this.said.map((delta) => this.deltaOf(delta, null));
    return SourceState.OPEN;
  }

  private readPart(type: string, place: number, body: Json): void {
    const delta = textOf(body["delta"]);
    switch (type) {
      case "response.output_text.delta":
        this.sayText(place, delta, listOf(body["logprobs"]));
        break;
      case "response.refusal.delta":
        this.say(place, { refusal: delta });
        break;
      case "response.reasoning_text.delta":
        this.sayReasoning(place, "text", countOf(body["content_index"]) ?? 0, delta);
        break;
      case "response.reasoning_summary_text.delta":
        this.sayReasoning(place, "summary", countOf(body["summary_index"]) ?? 0, delta);
        break;
      case "response.function_call_arguments.delta":
        this.sayCall(place, { function: { arguments: delta } });
        break;
      case "response.custom_tool_call_input.delta":
        this.sayCall(place, { custom: { input: delta } });
        break;
      case "response.output_text.annotation.added": {
        const annotation = chatAnnotation(body["annotation"]);
        if (annotation !== null) this.say(place, { annotations: [annotation] });
        break;
      }
      default:
    }
  }

  private logprobs: readonly unknown[] = [];

  private deltaOf(delta: Record<string, unknown>, finishReason: string | null): ChatDelta {
    const role = this.begun ? {} : { role: "assistant" };
    this.begun = true;
    const { logprobs } = this;
    this.logprobs = [];
    return {
      index: 0,
      delta: { ...role, ...delta },
      finishReason,
      ...(logprobs.length === 0 ? {} : { logprobs: { content: logprobs, refusal: null } }),
    };
  }

  private stateOf(place: number): ItemState {
    let state = this.items.get(place);
    if (state === undefined) {
      state = { call: -1, said: false, reasoning: "", part: 0 };
      this.items.set(place, state);
    }
    return state;
  }

  private say(place: number, delta: Record<string, unknown>): void {
    this.stateOf(place).said = true;
    this.said.push(delta);
  }

  private sayText(place: number, text: string, logprobs: readonly unknown[]): void {
    if (text === "") return;
    const apart = this.message !== -1 && this.message !== place;
    this.message = place;
    this.logprobs = logprobs;
    this.say(place, { content: apart ? PART_BREAK + text : text });
  }

  private sayReasoning(place: number, kind: "text" | "summary", part: number, text: string): void {
    if (text === "") return;
    const state = this.stateOf(place);
    if (state.reasoning !== "" && state.reasoning !== kind) return;
    const apart = this.thought !== -1 && (this.thought !== place || state.part !== part);
    state.reasoning = kind;
    state.part = part;
    this.thought = place;
    this.say(place, { reasoning_content: apart ? PART_BREAK + text : text });
  }

  private sayCall(place: number, call: Json): void {
    const state = this.stateOf(place);
    // Arguments of a call that never began belong to nothing.
    if (state.call !== -1) this.say(place, { tool_calls: [{ index: state.call, ...call }] });
  }

  private addItem(place: number, item: Json): void {
    const call = callOf(item);
    if (call === null) {
      this.stateOf(place);
      return;
    }
    const index = this.calls++;
    const begun = textOf(item["arguments"]) !== "" || textOf(item["input"]) !== "";
    this.items.set(place, { call: index, said: begun, reasoning: "", part: 0 });
    this.said.push({ tool_calls: [{ index, ...call }] });
  }

  /** What came without deltas, or without a beginning, is said now. */
  private endItem(place: number, item: Json): void {
    const known = this.items.get(place);
    const call = callOf(item);
    if (call !== null) {
      if (known === undefined || known.call === -1) this.addItem(place, item);
      else if (!known.said) this.endCall(place, item);
      return;
    }
    const silent = known === undefined || !known.said;
    if (item["type"] === "message" && silent) this.endMessage(place, item);
    if (item["type"] !== "reasoning") return;
    if (silent) this.sayReasoning(place, "text", 0, reasoningText(item));
    const block = blockOfItem(item);
    if (block !== null) this.said.push({ thinking_blocks: [block] });
  }

  private endCall(place: number, item: Json): void {
    const custom = item["type"] === "custom_tool_call";
    const text = textOf(item[custom ? "input" : "arguments"]);
    if (text !== "") this.sayCall(place, custom ? { custom: { input: text } } : { function: { arguments: text } });
  }

  private endMessage(place: number, item: Json): void {
    for (const each of listOf(item["content"])) {
      const part = objectOf(each);
      if (part["type"] === "output_text") this.sayText(place, textOf(part["text"]), listOf(part["logprobs"]));
      else if (textOf(part["refusal"]) !== "") this.say(place, { refusal: part["refusal"] });
    }
  }

  private finish(response: Json): SourceState {
    this.usage = hubUsage(response) ?? this.usage;
    // Servers that stream only the end say everything there.
    if (this.items.size === 0) {
      listOf(response["output"]).forEach((item, place) => this.endItem(place, objectOf(item)));
    }
    this.finished = true;
    const end = this.deltaOf.bind(this);
    const said = this.said.map((delta) => end(delta, null));
    this.deltas = [...said, end({}, finishReasonOf(response, this.calls > 0))];
    return SourceState.OPEN;
  }

  private fail(response: Json): SourceState {
    this.usage = hubUsage(response) ?? this.usage;
    this.error = responseError(objectOf(response["error"]));
    return SourceState.ERROR;
  }
}
