/** PURE. Names of tools: Messages allows longer ones than chat does, and Claude Code makes use of it. */

import { createHash } from "node:crypto";
import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";

/** The longest name of a function, at OpenAI and at Bedrock (reference/UPSTREAM-FORMATS.md A2, C3, D3). */
export const NAME_CHARS_MAX = 64;
const DIGEST_CHARS = 12;

/** The name as chat takes it: too long a one is cut, and told apart from others by a digest of the whole. */
export function shortName(name: string): string {
  if (name.length <= NAME_CHARS_MAX) return name;
  const digest = createHash("sha256").update(name).digest("hex").slice(0, DIGEST_CHARS);
  return `${name.slice(0, NAME_CHARS_MAX - DIGEST_CHARS - 1)}_${digest}`;
}

/** From names that were cut to those that the client gave, by its request. */
export function longNames(request: Json): ReadonlyMap<string, string> {
  const names = listOf(request["tools"]).map((tool) => textOf(objectOf(tool)["name"]));
  return new Map(names.filter((name) => name.length > NAME_CHARS_MAX).map((name) => [shortName(name), name]));
}
