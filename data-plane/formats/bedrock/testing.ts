/** For tests of Bedrock: its frames, and what deltas add up to. */

import type { SseEvent } from "../../sse.ts";
import { type ChatSource, type Json, SourceState } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { encodeEventFrame } from "./event_stream.ts";

/** Type and payload. A type `exception:…` is an exception. */
export type Event = readonly [type: string, payload: unknown];

export function frameOf([type, payload]: Event): Buffer {
  const exception = type.startsWith("exception:");
  const headers: Record<string, string> = exception
    ? { ":exception-type": type.slice("exception:".length) }
    : { ":event-type": type };
  const kind = { ":content-type": "application/json", ":message-type": exception ? "exception" : "event" };
  return encodeEventFrame({ ...headers, ...kind }, JSON.stringify(payload));
}

export function sseEventOf([event, payload]: Event): SseEvent {
  return { event, data: Buffer.from(JSON.stringify(payload)) };
}

interface Call {
  id: string;
  type: string;
  function: { name: string; arguments: string };
}

/** What a client has after a stream. */
export class Folded {
  role = "";
  content = "";
  reasoning_content = "";
  thinking_blocks: unknown[] = [];
  tool_calls: Call[] = [];
  finish_reason: string | null = null;

  add(delta: Json, finishReason: string | null): void {
    this.role += textOf(delta["role"]);
    this.content += textOf(delta["content"]);
    this.reasoning_content += textOf(delta["reasoning_content"]);
    this.thinking_blocks.push(...listOf(delta["thinking_blocks"]));
    for (const each of listOf(delta["tool_calls"])) {
      const { index, id, type, function: called } = objectOf(each);
      const call = (this.tool_calls[index as number] ??= { id: "", type: "", function: { name: "", arguments: "" } });
      call.id += textOf(id);
      call.type += textOf(type);
      call.function.name += textOf(objectOf(called)["name"]);
      call.function.arguments += textOf(objectOf(called)["arguments"]);
    }
    this.finish_reason ??= finishReason;
  }
}

/** Reads events until the source says that it is over. */
export function foldDeltas(
  source: ChatSource,
  events: readonly Event[],
): Folded & { state: SourceState; usage: Json | null } {
  const folded = new Folded();
  let state: SourceState = SourceState.OPEN;
  for (const event of events) {
    state = source.read(sseEventOf(event));
    for (const { delta, finishReason } of source.deltas) folded.add(delta, finishReason);
    if (state !== SourceState.OPEN) break;
  }
  return { ...folded, state, usage: source.usage } as Folded & { state: SourceState; usage: Json | null };
}
