/** PURE. What an upstream says of errors, without anything of the account that the gateway uses there. */

import { openAiError } from "../formats/openai.ts";
import { refusalCode, scrub } from "../formats/refusal.ts";
import type { FailureKind } from "../health.ts";
import type { RouteProvider } from "../route_types.ts";
import { type Fields, fieldsOf, parseEvent } from "./events.ts";

/** What the client is told in place of words about the gateway's own account. */
const OURS = {
  type: "server_error",
  code: "upstream_error",
  message: "The upstream could not serve this request.",
  param: null,
};

export interface Words {
  /** What the client may see. */
  readonly error: Fields;
  /** What it says of the target. */
  readonly health: FailureKind;
  /** For the record of a turn; "" if there is none to show. */
  readonly code: string;
  /** The upstream's own word, for the record of an attempt; "" if there is none to show. */
  readonly detail: string;
}

export function wordsOf(error: Fields, provider: RouteProvider): Words {
  const body = Buffer.from(JSON.stringify({ error }));
  // As if it were a refused request: what is not about the account or the model is the client's own fault.
  const read = openAiError(400, {}, body);
  const { clientFault, health } = read;
  const code = refusalCode(read, provider);
  if (!clientFault && (health === "account" || health === "model"))
    return { error: { ...OURS, event_id: error["event_id"] ?? null }, health, code: OURS.code, detail: code };
  const clean = { ...error };
  for (const name of ["message", "param", "code", "type"]) {
    const value = error[name];
    if (typeof value === "string") clean[name] = scrub(value, provider);
  }
  return { error: clean, health: "ignore", code, detail: code };
}

/** The `error` event with these words; as it came if they are its own. */
export function errorFrameOf(frame: Buffer, { error }: Words): Buffer {
  const event = parseEvent(frame);
  if (JSON.stringify(event["error"]) === JSON.stringify(error)) return frame;
  return Buffer.from(JSON.stringify({ ...event, error }));
}

/** The same for the `response.done` of a response that failed. */
export function failedFrameOf(frame: Buffer, { error }: Words): Buffer {
  const event = parseEvent(frame);
  const response = fieldsOf(event["response"]);
  const details = fieldsOf(response["status_details"]);
  if (JSON.stringify(details["error"]) === JSON.stringify(error)) return frame;
  return Buffer.from(JSON.stringify({ ...event, response: { ...response, status_details: { ...details, error } } }));
}
