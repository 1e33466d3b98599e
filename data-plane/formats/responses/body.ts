/**
 * PURE. Which ids a Responses request names, since what is stored is known to one upstream only
 * (reference/UPSTREAM-FORMATS.md A1). The body is scanned, and only what may hold such ids is parsed.
 */

import { decodeString, JsonScanError, scanArray, scanObject, skipSpace } from "../../json_scan.ts";
import { objectOf, textOf } from "../json.ts";
import { openBlocks } from "./reasoning.ts";

export interface ResponsesIds {
  /** As the client sent it: see `pins.ts`. Null: none. */
  readonly previousResponseId: string | null;
  readonly conversation: string | null;
  /** Of a stored prompt template. */
  readonly prompt: string | null;
  /** Items of earlier responses. They have no tag. */
  readonly itemReferences: readonly string[];
  /** Files, vector stores, containers and skills: made at a Provider, by other endpoints. */
  readonly files: readonly string[];
  /** There is reasoning, or a compaction, that only the upstream that encrypted it can read. */
  readonly encrypted: boolean;
  /** There is reasoning that was sealed here, which Responses upstreams refuse: see `dropSealed`. */
  readonly sealed: boolean;
  readonly background: boolean;
  /** False: the client asked to keep nothing. It is kept by default. */
  readonly store: boolean;
}

interface Found {
  previousResponseId: string | null;
  conversation: string | null;
  prompt: string | null;
  itemReferences: string[];
  files: string[];
  encrypted: boolean;
  sealed: boolean;
  background: boolean;
  store: boolean;
}

/** Without one of these, and without an escape that may hide one, there is no id to be found. */
const WORDS = ["item_reference", "file_id", "vector_store_ids", "container", "skill_id", "encrypted_content"].map(
  (word) => Buffer.from(word),
);
const ESCAPE = Buffer.from("\\u00");

/** Letters and the like need no escape: only somebody who hides a word writes one. */
function hidesAscii(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(ESCAPE); at !== -1; at = bytes.indexOf(ESCAPE, at + ESCAPE.length)) {
    const digit = bytes[at + ESCAPE.length]!;
    if (digit >= 0x32 && digit <= 0x37) return true;
  }
  return false;
}

function mayHoldIds(bytes: Buffer): boolean {
  return WORDS.some((word) => bytes.includes(word)) || hidesAscii(bytes);
}

const ONE_ID: ReadonlySet<string> = new Set(["file_id", "container", "container_id", "skill_id"]);
const MANY_IDS: ReadonlySet<string> = new Set(["file_ids", "vector_store_ids"]);
/** Schemas name fields of the client's own tools. */
const NOT_OURS: ReadonlySet<string> = new Set(["parameters", "output_schema", "schema"]);

/** The scanner bounds how deep this goes. */
function walk(value: unknown, into: Found): void {
  if (Array.isArray(value)) {
    for (const each of value) walk(each, into);
    return;
  }
  if (typeof value !== "object" || value === null) return;
  for (const [key, each] of Object.entries(value)) {
    if (NOT_OURS.has(key)) continue;
    if (key === "encrypted_content" && typeof each === "string" && each !== "") {
      if (openBlocks(each).length === 0) into.encrypted = true;
      else into.sealed = true;
    } else if (ONE_ID.has(key) && typeof each === "string") {
      into.files.push(each);
    } else if (MANY_IDS.has(key) && Array.isArray(each)) {
      for (const id of each) if (typeof id === "string") into.files.push(id);
    } else {
      walk(each, into);
    }
  }
}

const OBJECT = 0x7b;
const ARRAY = 0x5b;
const QUOTE = 0x22;

function parse(bytes: Buffer): unknown {
  return JSON.parse(bytes.toString("utf8"));
}

/** References are items with an id, whose type may be left out. */
function readReferences(bytes: Buffer, at: number, into: Found): void {
  scanArray(bytes, at, 1, (start) => {
    if (bytes[start] !== OBJECT) return;
    let id: string | null = null;
    let type: string | null = null;
    let message = false;
    scanObject(bytes, start, 2, (member, keyEnd, value, end) => {
      const key = decodeString(bytes, member, keyEnd);
      if (key === "role") message = true;
      if (bytes[value] !== QUOTE) return;
      if (key === "id") id = decodeString(bytes, value, end);
      if (key === "type") type = decodeString(bytes, value, end);
    });
    if (id !== null && (type === "item_reference" || (type === null && !message))) into.itemReferences.push(id);
  });
}

function readField(bytes: Buffer, key: string, start: number, end: number, into: Found): void {
  const text = bytes[start] === QUOTE ? decodeString(bytes, start, end) : null;
  switch (key) {
    case "previous_response_id":
      into.previousResponseId = text;
      break;
    case "conversation":
      into.conversation =
        text ?? (bytes[start] === OBJECT ? textOf(objectOf(parse(bytes.subarray(start, end)))["id"]) : null);
      break;
    case "prompt":
      if (bytes[start] !== OBJECT) break;
      into.prompt = textOf(objectOf(parse(bytes.subarray(start, end)))["id"]);
      walk(objectOf(parse(bytes.subarray(start, end)))["variables"], into);
      break;
    case "background":
      into.background = bytes[start] === 0x74;
      break;
    case "store":
      into.store = bytes[start] !== 0x66;
      break;
    case "input":
      if (bytes[start] !== ARRAY) break;
      readReferences(bytes, start, into);
      if (mayHoldIds(bytes.subarray(start, end))) walk(parse(bytes.subarray(start, end)), into);
      break;
    case "tools":
      if (mayHoldIds(bytes.subarray(start, end))) walk(parse(bytes.subarray(start, end)), into);
      break;
    default:
  }
}

/** Null: this is not a JSON object. The last of members with the same name counts, as it does for parsers. */
export function idsOfRequest(body: Buffer): ResponsesIds | null {
  const found: Found = {
    previousResponseId: null,
    conversation: null,
    prompt: null,
    itemReferences: [],
    files: [],
    encrypted: false,
    sealed: false,
    background: false,
    store: true,
  };
  try {
    scanObject(body, skipSpace(body, 0), 0, (member, keyEnd, start, end) => {
      readField(body, decodeString(body, member, keyEnd), start, end, found);
    });
  } catch (error) {
    if (error instanceof JsonScanError || error instanceof SyntaxError) return null;
    throw error;
  }
  return found;
}

interface Range {
  start: number;
  end: number;
  sealed: boolean;
}

function inputItems(body: Buffer): Range[] {
  const items: Range[] = [];
  scanObject(body, skipSpace(body, 0), 0, (member, keyEnd, value) => {
    if (body[value] !== ARRAY || decodeString(body, member, keyEnd) !== "input") return;
    scanArray(body, value, 1, (start, end) => {
      const item = objectOf(parse(body.subarray(start, end)));
      items.push({ start, end, sealed: openBlocks(item["encrypted_content"]).length > 0 });
    });
  });
  return items;
}

/**
 * A body, already found sound, without the input items that hold reasoning which was sealed here: they came from an upstream
 * that only has chat, and one that has Responses cannot decrypt them. Every other byte stays.
 */
export function dropSealed(body: Buffer): Buffer {
  const items = inputItems(body);
  const parts: Buffer[] = [];
  let from = 0;
  let kept = false;
  items.forEach((item, index) => {
    if (!item.sealed) {
      kept = true;
      return;
    }
    // One comma goes with the item: the one before it, or, where nothing stands before, the one behind.
    parts.push(body.subarray(from, kept ? items[index - 1]!.end : item.start));
    from = kept ? item.end : (items[index + 1]?.start ?? item.end);
  });
  return parts.length === 0 ? body : Buffer.concat([...parts, body.subarray(from)]);
}
