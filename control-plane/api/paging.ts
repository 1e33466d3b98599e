/** Page sizes and opaque page tokens, the same for every list. */

import { createHash } from "node:crypto";
import { badPageToken } from "../domain/errors.ts";

export const PAGE_SIZE_DEFAULT = 50;
export const PAGE_SIZE_MAX = 1000;

/** The number of items to return for what a client asked: 0 or less means the default, too many means the most. */
export function pageSize(asked: number): number {
  if (asked <= 0) return PAGE_SIZE_DEFAULT;
  return Math.min(asked, PAGE_SIZE_MAX);
}

const CHECK_BYTES = 12;

function check(kind: string, filterKey: string, position: string): Buffer {
  const text = JSON.stringify(["tokenbill.page.1", kind, filterKey, position]);
  return createHash("sha256").update(text).digest().subarray(0, CHECK_BYTES);
}

/**
 * A token for the page after `position`. `kind` names the list, `filterKey` its owner and filters: the token is refused
 * elsewhere. The check finds mistakes and old tokens, it is no secret: a forged position only skips within the list, and
 * every list is limited to its owner by its query, never by the token.
 */
export function encodePageToken(kind: string, filterKey: string, position: string): string {
  return Buffer.concat([check(kind, filterKey, position), Buffer.from(position, "utf8")]).toString("base64url");
}

/** The position in a token made by `encodePageToken`; null for the empty token: the start. @throws DomainError bad_page_token */
export function decodePageToken(kind: string, filterKey: string, token: string): string | null {
  if (token === "") return null;
  const bytes = Buffer.from(token, "base64url");
  // Node skips characters that are not base64url; a token must be exactly what was handed out.
  if (bytes.length <= CHECK_BYTES || bytes.toString("base64url") !== token) throw badPageToken();
  const position = bytes.subarray(CHECK_BYTES).toString("utf8");
  if (!check(kind, filterKey, position).equals(bytes.subarray(0, CHECK_BYTES))) throw badPageToken();
  return position;
}

/** As `decodePageToken` for lists ordered by a row number; null at the start. @throws DomainError bad_page_token */
export function decodeRowPosition(kind: string, filterKey: string, token: string): bigint | null {
  const position = decodePageToken(kind, filterKey, token);
  if (position === null) return null;
  if (!/^(0|[1-9][0-9]{0,18})$/.test(position)) throw badPageToken();
  return BigInt(position);
}

export interface Page<Row> {
  readonly items: Row[];
  readonly nextPageToken: string;
}

/** Cuts `size + 1` rows that were read down to a page, with a token if there was one more. */
export function toPage<Row extends { n: bigint }>(
  rows: Row[],
  size: number,
  kind: string,
  filterKey: string,
): Page<Row> {
  if (rows.length <= size) return { items: rows, nextPageToken: "" };
  const items = rows.slice(0, size);
  return { items, nextPageToken: encodePageToken(kind, filterKey, String(items[size - 1]!.n)) };
}
