/**
 * PURE. Reasoning that has to come back unchanged in the next turn, carried in the one opaque field that each format has:
 * thinking blocks in a reasoning item's `encrypted_content`, reasoning items in a thinking block's `signature`. Clients keep
 * both as they are. Nothing is encrypted here: what is inside is encrypted or signed by the upstream where that matters.
 */

import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";

const BLOCKS_MARK = "tokenbill.thinking_blocks.1";
const ITEM_MARK = "tokenbill.reasoning_item.1";

function pack(mark: string, value: unknown): string {
  return Buffer.from(JSON.stringify({ mark, value })).toString("base64");
}

/** Everything that was packed begins with these: what others made is told apart without decoding it. */
export const SEALED_START = "eyJtYXJrIjoi";

/** Whether a signature, or encrypted reasoning, was packed here, so that no upstream but the one it came of can read it. */
export function isSealed(text: string): boolean {
  return text.startsWith(SEALED_START);
}

/** What `pack` made with this mark; undefined for anything else. */
function unpack(mark: string, text: string): unknown {
  if (!isSealed(text)) return undefined;
  try {
    const { mark: found, value } = objectOf(JSON.parse(Buffer.from(text, "base64").toString("utf8")));
    return found === mark ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Thinking blocks as the `encrypted_content` of a reasoning item. */
export function sealBlocks(blocks: readonly unknown[]): string {
  return pack(BLOCKS_MARK, blocks);
}

/** The thinking blocks in an `encrypted_content`; none if it is not from here. */
export function openBlocks(encrypted: unknown): readonly unknown[] {
  return listOf(unpack(BLOCKS_MARK, textOf(encrypted)));
}

/** A reasoning item of a Responses upstream as a thinking block; null if it has nothing to be replayed. */
export function blockOfItem(item: Json): Json | null {
  const encrypted = textOf(item["encrypted_content"]);
  if (encrypted === "") return null;
  return {
    type: "thinking",
    thinking: reasoningText(item),
    signature: pack(ITEM_MARK, { id: item["id"], encrypted_content: encrypted }),
  };
}

/** The reasoning item that a thinking block stands for; null if the block is another upstream's. */
export function itemOfBlock(block: Json): Json | null {
  const sealed = objectOf(unpack(ITEM_MARK, textOf(block["signature"])));
  if (typeof sealed["encrypted_content"] !== "string") return null;
  const text = textOf(block["thinking"]);
  return {
    type: "reasoning",
    ...(typeof sealed["id"] === "string" ? { id: sealed["id"] } : {}),
    summary: text === "" ? [] : [{ type: "summary_text", text }],
    encrypted_content: sealed["encrypted_content"],
  };
}

/** Between parts of a summary, which have no white space of their own. */
export const PART_BREAK = "\n\n";

/** What a reasoning item shows: the reasoning itself, or else its summary. */
export function reasoningText(item: Json): string {
  const texts = (value: unknown): string =>
    listOf(value)
      .map((part) => textOf(objectOf(part)["text"]))
      .filter((text) => text !== "")
      .join(PART_BREAK);
  return texts(item["content"]) || texts(item["summary"]);
}
