/** PURE. Errors in the shape that a client reads: OpenAI's envelope, the events of its newer streams, or Anthropic's. */

import { envelope, type ErrorAnswer, type ErrorFields } from "./errors.ts";
import type { ClientShape } from "./formats/format.ts";
import { responsesErrorFrame } from "./formats/responses/native.ts";
import { messagesErrorBody, messagesErrorFrame } from "./formats/messages/errors.ts";

/** The same answer as this client reads it. */
export function shaped(error: ErrorAnswer, shape: ClientShape, requestId: string): ErrorAnswer {
  if (shape !== "messages") return error;
  return { ...error, body: messagesErrorBody(error.status, error.fields, requestId) };
}

const FRAME_END = Buffer.from("\n\n");
const DATA = Buffer.from("data: ");
const ERROR_EVENT = Buffer.from("event: error\ndata: ");

/** A frame of server-sent events that the client's SDK raises as an error. */
export function errorFrame(shape: ClientShape, fields: ErrorFields, requestId: string): Buffer {
  if (shape === "messages") return messagesErrorFrame(fields, requestId);
  if (shape === "chat" || shape === "completions") return Buffer.concat([DATA, envelope(fields), FRAME_END]);
  if (shape === "responses") return responsesErrorFrame(fields);
  return Buffer.concat([ERROR_EVENT, envelope(fields), FRAME_END]);
}
