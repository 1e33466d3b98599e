/** PURE. Errors in the middle of a stream, in the shape that its client reads. */

import { envelope, type ErrorFields } from "./errors.ts";
import type { ClientShape } from "./formats/format.ts";

const FRAME_END = Buffer.from("\n\n");

/** A frame of server-sent events that the client's SDK raises as an error. */
export function errorFrame(shape: ClientShape, fields: ErrorFields): Buffer {
  if (shape === "chat" || shape === "completions") return Buffer.concat([DATA, envelope(fields), FRAME_END]);
  if (shape !== "responses") return Buffer.concat([ERROR_EVENT, envelope(fields), FRAME_END]);
  const { message, code, param = null, checkout_url } = fields;
  const event = { type: "error", code, message, param, checkout_url };
  return Buffer.from(`event: error\ndata: ${JSON.stringify(event)}\n\n`);
}

const DATA = Buffer.from("data: ");
const ERROR_EVENT = Buffer.from("event: error\ndata: ");
