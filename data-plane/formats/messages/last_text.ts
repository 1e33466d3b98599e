/** PURE. What the user said last, in a Messages body: for the Magic Command. */

import type { Json } from "../hub.ts";
import { listOf, objectOf } from "../json.ts";

/** Claude Code puts such notes of its own among the user's words. */
const REMINDER = /^\s*<system-reminder>[\s\S]*<\/system-reminder>\s*$/;

/**
 * The text of the last message of role `user`, if it is text alone, else null: results of tools, images and documents are
 * no command. Notes of Claude Code are left out.
 */
export function lastUserText(body: Json): string | null {
  const last = listOf(body["messages"])
    .map(objectOf)
    .findLast((message) => message["role"] === "user");
  if (last === undefined) return null;
  const { content } = last;
  if (typeof content === "string") return content;
  let text: string | null = null;
  for (const each of listOf(content)) {
    const block = objectOf(each);
    const piece = block["text"];
    if (block["type"] !== "text" || typeof piece !== "string") return null;
    if (!REMINDER.test(piece)) text = (text ?? "") + piece;
  }
  return text;
}
