/** For tests only: reads a stream of Messages as strictly as its grammar is, and says what message it makes. */

import type { Json } from "../hub.ts";
import { objectOf } from "../json.ts";

interface Event {
  readonly name: string;
  readonly data: any;
}

/** The events of a stream. @throws if a frame is not one name and one line of data */
export function eventsOf(stream: string): Event[] {
  const frames = stream.split("\n\n");
  if (frames.pop() !== "") throw new Error("the last frame has no end");
  return frames.map((frame) => {
    const [, name, data] = /^event: ([a-z_]+)\ndata: ([^\n]*)$/.exec(frame) ?? [];
    if (name === undefined) throw new Error(`a bad frame: ${frame}`);
    const parsed = JSON.parse(data!) as Json;
    if (parsed["type"] !== name) throw new Error(`${name} has data of ${String(parsed["type"])}`);
    return { name, data: parsed };
  });
}

const DELTA_OF: Readonly<Record<string, readonly string[]>> = {
  text: ["text_delta"],
  thinking: ["thinking_delta", "signature_delta"],
  tool_use: ["input_json_delta"],
  redacted_thinking: [],
};

function addDelta(block: any, delta: any): void {
  if (!DELTA_OF[block.type]!.includes(delta.type)) throw new Error(`${delta.type} in a block of ${block.type}`);
  if (delta.type === "text_delta") block.text += delta.text;
  else if (delta.type === "thinking_delta") block.thinking += delta.thinking;
  else if (delta.type === "signature_delta") {
    if (block.signature !== "") throw new Error("signed twice");
    block.signature = delta.signature;
  } else block.json = ((block.json as string | undefined) ?? "") + delta.partial_json;
}

/** @throws if events come where they must not, or blocks overlap, or indexes do not grow one by one */
export function accumulate(stream: string): any {
  let message: any = null;
  let open: any = null;
  let state: "start" | "content" | "delta" | "stop" = "start";
  const expect = (condition: boolean, what: string): void => {
    if (!condition) throw new Error(`out of order: ${what} in ${state}`);
  };
  for (const { name, data } of eventsOf(stream)) {
    switch (name) {
      case "message_start":
        expect(state === "start", name);
        message = structuredClone(data.message);
        state = "content";
        break;
      case "ping":
        expect(state !== "start", name);
        break;
      case "content_block_start":
        expect(state === "content" && open === null && data.index === message.content.length, name);
        open = structuredClone(data.content_block);
        message.content.push(open);
        break;
      case "content_block_delta":
        expect(open !== null && data.index === message.content.length - 1, name);
        addDelta(open, data.delta);
        break;
      case "content_block_stop":
        expect(open !== null && data.index === message.content.length - 1, name);
        if (open.type === "tool_use") open.input = JSON.parse(open.json ?? "{}");
        delete open.json;
        open = null;
        break;
      case "message_delta":
        expect(state === "content" && open === null, name);
        Object.assign(message, data.delta, { usage: { ...objectOf(message.usage), ...objectOf(data.usage) } });
        state = "delta";
        break;
      case "message_stop":
        expect(state === "delta", name);
        state = "stop";
        break;
      default:
        throw new Error(`unknown event ${name}`);
    }
  }
  if (state !== "stop") throw new Error(`the stream ends in ${state}`);
  return message;
}
