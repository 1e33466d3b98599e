/** PURE. What an upstream says inside a 200 when a response fails. Facts: reference/UPSTREAM-FORMATS.md A4 and A7. */

import type { Json, UpstreamError } from "../hub.ts";
import { textOf } from "../json.ts";
import { healthOf } from "../openai.ts";

/** Codes that say the request itself is at fault: no other target would answer differently. */
const CLIENT_FAULT =
  /^(?:invalid_prompt|bio_policy|misalignment_policy_violation|content_policy_violation|context_length_exceeded|invalid_(?:base64_)?image.*|image_.+|unsupported_image_media_type|empty_image_file|failed_to_download_image)$/;

/** An `error` object of a response, or the fields of an `error` event. */
export function responseError(error: Json): UpstreamError {
  const code = textOf(error["code"]);
  const type = textOf(error["type"]);
  const clientFault = CLIENT_FAULT.test(code);
  const account = type === "insufficient_quota";
  const said = { message: textOf(error["message"]), param: textOf(error["param"]) || null, code: code || null };
  // The event's own type says only that it is an error.
  const words = { ...said, type: type === "" || type === "error" ? null : type };
  if (clientFault) return { ...words, clientFault, health: "ignore", status: 400 };
  // There is no status to go by: it was 200.
  const health = healthOf(code === "rate_limit_exceeded" ? 429 : 500, code, account);
  return { ...words, clientFault, health };
}
