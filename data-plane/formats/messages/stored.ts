/**
 * PURE. Files and containers that a Messages body names: they belong to an account that many share, and cannot be told apart
 * by whom they were made for (reference/UPSTREAM-FORMATS.md C1).
 */

import { mayHold, type ScannedBody } from "../../body.ts";
import { type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf, parseObject, textOf } from "../json.ts";

/** Results of tools hold blocks too. */
const DEPTH_MAX = 4;

function fileIn(value: unknown, at: string, depth: number): string | null {
  if (depth > DEPTH_MAX) return null;
  for (const [i, each] of listOf(value).entries()) {
    const block = objectOf(each);
    const here = `${at}[${i}]`;
    if (textOf(block["file_id"]) !== "") return `${here}.file_id`;
    if (textOf(objectOf(block["source"])["file_id"]) !== "") return `${here}.source.file_id`;
    const inside = fileIn(block["content"], `${here}.content`, depth + 1);
    if (inside !== null) return inside;
  }
  return null;
}

function storedField(body: Json): string | null {
  const { container } = body;
  if (textOf(container) !== "" || textOf(objectOf(container)["id"]) !== "") return "container";
  return fileIn(body["messages"], "messages", 0);
}

/** Costs two searches for a word where there is nothing. @throws RefusedFieldError */
export function refuseStored(body: ScannedBody): void {
  if (!mayHold(body.bytes, '"file_i') && !mayHold(body.bytes, '"contai')) return;
  const field = storedField(parseObject(body.bytes) ?? {});
  if (field === null) return;
  throw new RefusedFieldError(
    "unsupported_parameter",
    field,
    `${field}: what is stored at the upstream cannot be named.`,
  );
}
