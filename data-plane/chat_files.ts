/**
 * PURE. Files that messages of chat completions, and edits of images, name by id: only the account that stores them can read
 * them.
 */

import { mayHold, type ScannedBody } from "./body.ts";
import { objectOf, parseObject } from "./formats/json.ts";

function namesFile(message: unknown): boolean {
  const { content } = objectOf(message);
  if (!Array.isArray(content)) return false;
  return content.some((part: unknown) => {
    const id = objectOf(objectOf(part)["file"])["file_id"];
    return typeof id === "string" && id !== "";
  });
}

/** The beginning of the key, short enough to be looked for by its quote alone (see `tokenizer/media.ts`). */
const FILE_ID_START = '"file_i';

/** True if a message names a stored file. Costs one search for a word if none can. */
export function namesStoredFile({ bytes, ranges }: ScannedBody): boolean {
  const { messages } = ranges;
  if (messages === undefined || !mayHold(bytes, FILE_ID_START)) return false;
  let parsed: unknown;
  try {
    parsed = JSON.parse(bytes.toString("utf8", messages.start, messages.end));
  } catch {
    // Whoever cannot read it finds no file in it either.
    return false;
  }
  return Array.isArray(parsed) && parsed.some(namesFile);
}

function isStored(image: unknown): boolean {
  const id = objectOf(image)["file_id"];
  return typeof id === "string" && id !== "";
}

/**
 * The field of an edit, sent as JSON, that names a stored file; null if none does. Costs one search for a word if none can.
 * Source: reference/UPSTREAM-FORMATS.md A1.
 */
export function storedImageField({ bytes }: ScannedBody): string | null {
  if (!mayHold(bytes, "file_id")) return null;
  const { images, mask } = parseObject(bytes) ?? {};
  if (Array.isArray(images) && images.some(isStored)) return "images";
  return isStored(mask) ? "mask" : null;
}
