/**
 * PURE. What STRICT cannot hold for, since its cost does not show in the request: it is refused there, with a 400 that names
 * the field. And images, which are held for at the most that any model reads of one, however few bytes they have.
 */

import { badRequest, type ErrorAnswer } from "./errors.ts";
import type { ClientShape } from "./formats/format.ts";
import type { Json } from "./formats/hub.ts";
import { listOf, objectOf, textOf } from "./formats/json.ts";
import { IMAGE_TOKENS_MAX } from "./tokenizer/media.ts";

/** Tools that the client runs itself, by the shape of the request: all others are run, and billed, by the upstream. */
const OWN_TOOLS: Readonly<Partial<Record<ClientShape, ReadonlySet<string>>>> = {
  responses: new Set(["function", "custom"]),
  messages: new Set(["", "custom"]),
};
const IMAGES = new Set(["image_url", "input_image", "image", "computer_screenshot"]);
const DEPTH_MAX = 12;
const WHY = "cannot be held for where the budget mode of the endpoint is strict";

export interface StrictView {
  /** Why the request cannot be served; null: it can. */
  readonly refusal: ErrorAnswer | null;
  /** Tokens to hold for images. */
  readonly imageTokens: number;
}

function refuse(param: string, what: string): ErrorAnswer {
  return badRequest(`${param}: ${what} ${WHY}.`, param, "unsupported_parameter");
}

/** Stored contexts, and tools that the upstream runs. */
function refusedField(shape: ClientShape, body: Json): ErrorAnswer | null {
  for (const name of ["previous_response_id", "prompt"])
    if (shape === "responses" && body[name] !== undefined && body[name] !== null)
      return refuse(name, "what is stored at the upstream");
  if (shape === "chat" && objectOf(body["web_search_options"]) === body["web_search_options"])
    return refuse("web_search_options", "searches");
  const own = OWN_TOOLS[shape];
  if (own === undefined) return null;
  for (const [i, tool] of listOf(body["tools"]).entries())
    if (!own.has(textOf(objectOf(tool)["type"]))) return refuse(`tools[${i}].type`, "a tool that the upstream runs");
  return null;
}

class Parts {
  images = 0;
  /** The first of what is somewhere else, and may be of any length. */
  remote: string | null = null;

  walk(value: unknown, at: string, depth: number): void {
    if (depth > DEPTH_MAX || typeof value !== "object" || value === null) return;
    if (Array.isArray(value)) return value.forEach((each, i) => this.walk(each, `${at}[${i}]`, depth + 1));
    const part = objectOf(value);
    const type = textOf(part["type"]);
    if (IMAGES.has(type)) this.images++;
    else if (isRemote(type, part)) this.remote ??= at;
    for (const name of ["content", "output"]) this.walk(part[name], `${at}.${name}`, depth + 1);
  }
}

function isRemote(type: string, part: Json): boolean {
  if (type === "item_reference") return true;
  if (type === "document") return ["url", "file"].includes(textOf(objectOf(part["source"])["type"]));
  if (type === "input_file") return part["file_url"] !== undefined || part["file_id"] !== undefined;
  return type === "file" && objectOf(part["file"])["file_id"] !== undefined;
}

export function strictView(shape: ClientShape, body: Json): StrictView {
  const field = refusedField(shape, body);
  if (field !== null) return { refusal: field, imageTokens: 0 };
  const parts = new Parts();
  for (const name of ["messages", "input", "system"]) parts.walk(body[name], name, 0);
  const refusal = parts.remote === null ? null : refuse(parts.remote, "what is stored elsewhere");
  return { refusal, imageTokens: parts.images * IMAGE_TOKENS_MAX };
}
