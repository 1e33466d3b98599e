/** PURE. From the parts of OpenAI's messages to Converse's content blocks (reference/UPSTREAM-FORMATS.md D3). */

import { type Json, RefusedFieldError } from "../hub.ts";
import { isBlank, objectOf, textOf } from "../json.ts";
import type { Family } from "./family.ts";

/** The block that marks the end of what is to be cached; null if there is none, or the family knows none there. */
export function cachePoint(marked: Json, family: Family, place: "message" | "tool"): Json | null {
  const control = marked["cache_control"];
  if (typeof control !== "object" || control === null || family.cache === "none") return null;
  if (place === "tool" && family.cache === "messages") return null;
  const long = family.longCache && objectOf(control)["ttl"] === "1h";
  return { cachePoint: long ? { type: "default", ttl: "1h" } : { type: "default" } };
}

const IMAGE_FORMATS: Readonly<Record<string, string>> = {
  "image/png": "png",
  "image/jpeg": "jpeg",
  "image/jpg": "jpeg",
  "image/gif": "gif",
  "image/webp": "webp",
};

const DOCUMENT_FORMATS: Readonly<Record<string, string>> = {
  "application/pdf": "pdf",
  "text/csv": "csv",
  "application/msword": "doc",
  "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
  "application/vnd.ms-excel": "xls",
  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
  "text/html": "html",
  "text/plain": "txt",
  "text/markdown": "md",
};
const DOCUMENT_ENDINGS = new Set(Object.values(DOCUMENT_FORMATS));

interface DataUrl {
  /** Lower case, without parameters. */
  readonly mediaType: string;
  /** Base64. */
  readonly data: string;
}

/** Null if the text is none, or not in base64. */
function readDataUrl(text: string): DataUrl | null {
  if (!/^data:/i.test(text)) return null;
  const comma = text.indexOf(",");
  const head = comma === -1 ? "" : text.slice("data:".length, comma).toLowerCase();
  if (!head.endsWith(";base64")) return null;
  return { mediaType: head.split(";")[0]!.trim(), data: text.slice(comma + 1) };
}

function imageBlock(part: Json, param: string): Json {
  const image = part["image_url"];
  const url = typeof image === "string" ? image : textOf(objectOf(image)["url"]);
  const field = typeof image === "string" ? `${param}.image_url` : `${param}.image_url.url`;
  const read = readDataUrl(url);
  if (read === null) {
    throw new RefusedFieldError(
      "unsupported_value",
      field,
      "This model takes images as data URLs in base64 only, not by an address.",
    );
  }
  const format = IMAGE_FORMATS[read.mediaType];
  if (format === undefined)
    throw new RefusedFieldError("unsupported_value", field, "This model takes PNG, JPEG, GIF and WebP images only.");
  return { image: { format, source: { bytes: read.data } } };
}

/** Names of documents may hold few characters, and what a client calls its file could steer the model: so they are numbered. */
function documentBlock(part: Json, param: string, number: number): Json {
  const file = objectOf(part["file"]);
  if (typeof file["file_id"] === "string") {
    throw new RefusedFieldError(
      "unsupported_value",
      `${param}.file.file_id`,
      "This model takes files in `file_data` only.",
    );
  }
  const read = readDataUrl(textOf(file["file_data"]));
  if (read === null) {
    throw new RefusedFieldError("invalid_value", `${param}.file.file_data`, "A data URL in base64 is expected here.");
  }
  const ending = textOf(file["filename"]).split(".").at(-1)!.toLowerCase();
  const format = DOCUMENT_FORMATS[read.mediaType] ?? (DOCUMENT_ENDINGS.has(ending) ? ending : undefined);
  if (format === undefined) {
    const known = [...DOCUMENT_ENDINGS].join(", ");
    throw new RefusedFieldError(
      "unsupported_value",
      `${param}.file`,
      `This model takes files of these kinds: ${known}.`,
    );
  }
  return { document: { name: `document-${number}`, format, source: { bytes: read.data } } };
}

/** Counts the documents of a conversation. */
export interface DocumentCount {
  documents: number;
}

/**
 * The block of one part of a message, null for blank text.
 * @param param such as `messages[2].content[0]`
 * @throws RefusedFieldError
 */
export function blockOf(part: Json, param: string, count: DocumentCount): Json | null {
  const { type } = part;
  if (type === "text" || type === "refusal") {
    const text = textOf(part[type]);
    return isBlank(text) ? null : { text };
  }
  if (type === "image_url") return imageBlock(part, param);
  if (type === "file") return documentBlock(part, param, ++count.documents);
  const what = type === "input_audio" ? "This model takes no audio." : "This model does not know this kind of content.";
  throw new RefusedFieldError("unsupported_value", `${param}.type`, what);
}
