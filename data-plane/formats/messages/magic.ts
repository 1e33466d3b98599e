/** PURE. Answers that the gateway gives by itself in the format of Messages: the Magic Command, and warmed caches. */

import type { HubContext, Json } from "../hub.ts";
import { messagesAnswer } from "./answer.ts";
import { MessagesSink } from "./sink.ts";

function contextOf(id: string, model: string): HubContext {
  return { id, createdS: 0, model, request: {} };
}

function chatOf(text: string, finishReason: string): Json {
  return { choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: finishReason }] };
}

/** The text as a message. @param id without a prefix */
export function messagesMagicJson(id: string, model: string, text: string): Buffer {
  return Buffer.from(JSON.stringify(messagesAnswer(chatOf(text, "stop"), contextOf(id, model))));
}

/** The same as a whole stream. */
export function messagesMagicStream(id: string, model: string, text: string): Buffer {
  const sink = new MessagesSink(contextOf(id, model));
  return Buffer.from(sink.push({ index: 0, delta: { content: text }, finishReason: "stop" }) + sink.end(null));
}

/** The answer to a request with `max_tokens: 0`, see `isWarmUp`: no content, and nothing used. */
export function warmUpJson(id: string, model: string): Buffer {
  return Buffer.from(JSON.stringify(messagesAnswer(chatOf("", "length"), contextOf(id, model))));
}

export function warmUpStream(id: string, model: string): Buffer {
  const sink = new MessagesSink(contextOf(id, model));
  return Buffer.from(sink.push({ index: 0, delta: {}, finishReason: "length" }) + sink.end(null));
}
