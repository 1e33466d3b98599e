/** PURE. What `anthropic-version` changes. Facts: reference/UPSTREAM-FORMATS.md C1. */

import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf } from "../json.ts";

/** The version that refuses sampling, documents in answers and citations in questions. */
export const STRICT_VERSION = "2026-10-21";

const SAMPLING = ["temperature", "top_p", "top_k"];

function refuse(code: RefusedFieldError["code"], param: string, what: string): never {
  throw new RefusedFieldError(code, param, `${param}: ${what} with anthropic-version ${STRICT_VERSION}.`);
}

/**
 * Refuses what the client's version of the API refuses, wherever the request goes. Other versions, and none, refuse nothing.
 * @param version the header `anthropic-version`, "" if absent
 * @throws RefusedFieldError
 */
export function checkVersion(body: Json, version: string): void {
  if (version.trim() !== STRICT_VERSION) return;
  for (const name of SAMPLING)
    if (body[name] !== undefined && body[name] !== null) refuse("unsupported_parameter", name, "this is not supported");
  for (const [m, each] of listOf(body["messages"]).entries()) {
    const message = objectOf(each);
    for (const [c, inner] of listOf(message["content"]).entries()) {
      const block = objectOf(inner);
      const at = `messages[${m}].content[${c}]`;
      if (message["role"] === "assistant" && block["type"] === "document")
        refuse("unsupported_value", `${at}.type`, "documents are not supported in messages of the assistant");
      if (message["role"] === "user" && block["type"] === "text" && listOf(block["citations"]).length > 0)
        refuse("unsupported_value", `${at}.citations`, "citations are not supported in messages of the user");
    }
  }
}
