/**
 * PURE. Ids of responses that an upstream stores lead back to the upstream that made them, on every node and without a
 * table: a client's id is the upstream's with a tag that is signed for the VE and the Physical Model. Another VE's secret
 * makes other tags, so an id is of no use to it. What is changed is spliced: every other byte stays as the upstream or the
 * client sent it.
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import { base32 } from "./ids.ts";
import { decodeString, JsonScanError, scanObject, skipSpace } from "./json_scan.ts";

/** Of the tag: 100 bits. */
export const PIN_TAG_CHARS = 20;
/** A longer id is none that we gave. */
export const PIN_ID_CHARS_MAX = 512;
/** Physical Models that an id is tried with. */
export const PIN_PMS_MAX = 4096;

const SEPARATOR = "_";

/** The stored response an id stands for. */
export interface Pin {
  /** As the upstream knows it. */
  readonly upstreamId: string;
  readonly pmId: string;
}

function tagOf(secret: Buffer, upstreamId: string, pmId: string): string {
  const digest = createHmac("sha256", secret).update(upstreamId).update("\n").update(pmId).digest();
  return base32(digest).slice(0, PIN_TAG_CHARS);
}

/**
 * The id for the client.
 * @param secret the VE's `pinSecret`, latin1; "": the id stays as it is, and cannot be used later
 */
export function pinId(secret: string, upstreamId: string, pmId: string): string {
  return secret === "" ? upstreamId : upstreamId + SEPARATOR + tagOf(Buffer.from(secret, "latin1"), upstreamId, pmId);
}

/**
 * What a client's id stands for; null if this VE never got it from one of these Physical Models, or has no secret.
 * @param pmIds the first `PIN_PMS_MAX` are tried
 */
export function unpinId(secret: string, clientId: string, pmIds: Iterable<string>): Pin | null {
  const at = clientId.length - PIN_TAG_CHARS - SEPARATOR.length;
  if (secret === "" || at <= 0 || clientId.length > PIN_ID_CHARS_MAX || clientId[at] !== SEPARATOR) return null;
  const tag = Buffer.from(clientId.slice(at + SEPARATOR.length));
  if (tag.length !== PIN_TAG_CHARS) return null;
  const upstreamId = clientId.slice(0, at);
  const key = Buffer.from(secret, "latin1");
  let tried = 0;
  for (const pmId of pmIds) {
    if (tried++ === PIN_PMS_MAX) return null;
    if (timingSafeEqual(tag, Buffer.from(tagOf(key, upstreamId, pmId)))) return { upstreamId, pmId };
  }
  return null;
}

/** The new text of an id. */
export type RenameId = (id: string) => string;

/** `[start, end)` of a string literal, quotes included, and what it says. */
export interface IdRange {
  readonly start: number;
  readonly end: number;
  readonly id: string;
}

const QUOTE = 0x22;
const OBJECT = 0x7b;

/**
 * The members of the object at `at` that are called so and are strings. Where the bytes end before the object does (the
 * head of a long answer) those before the end are found.
 */
function idsIn(bytes: Buffer, at: number, depth: number, names: ReadonlySet<string>, found: IdRange[]): void {
  try {
    scanObject(bytes, at, depth, (member, keyEnd, start, end) => {
      if (bytes[start] !== QUOTE || !names.has(decodeString(bytes, member, keyEnd))) return;
      found.push({ start, end, id: decodeString(bytes, start, end) });
    });
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
  }
}

/** The bytes with other ids at these places, which are in order; the same buffer if nothing changes. */
function renamed(bytes: Buffer, ranges: readonly IdRange[], rename: RenameId): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  for (const { start, end, id } of ranges) {
    const name = rename(id);
    if (name === id) continue;
    parts.push(bytes.subarray(from, start), Buffer.from(JSON.stringify(name)));
    from = end;
  }
  return parts.length === 0 ? bytes : Buffer.concat([...parts, bytes.subarray(from)]);
}

const OWN_IDS: ReadonlySet<string> = new Set(["id", "previous_response_id"]);
const PREVIOUS: ReadonlySet<string> = new Set(["previous_response_id"]);

/** A whole answer, or the head of a long one, with its own id and that of the response before it renamed. */
export function renameInAnswer(body: Buffer, rename: RenameId): Buffer {
  const found: IdRange[] = [];
  idsIn(body, skipSpace(body, 0), 0, OWN_IDS, found);
  return renamed(body, found, rename);
}

/** The data of a stream event that holds a `response`, with the ids of that renamed; the same buffer if it holds none. */
export function renameInEvent(data: Buffer, rename: RenameId): Buffer {
  const found: IdRange[] = [];
  try {
    scanObject(data, skipSpace(data, 0), 0, (member, keyEnd, start) => {
      if (data[start] === OBJECT && decodeString(data, member, keyEnd) === "response")
        idsIn(data, start, 1, OWN_IDS, found);
    });
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
  }
  return renamed(data, found, rename);
}

/** A request's body with the id of the response that it continues renamed. */
export function renamePrevious(body: Buffer, rename: RenameId): Buffer {
  const found: IdRange[] = [];
  idsIn(body, skipSpace(body, 0), 0, PREVIOUS, found);
  return renamed(body, found, rename);
}
