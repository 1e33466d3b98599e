/**
 * JavaScript values <-> PostgreSQL's text format. Both dialects use this one codec, so that they cannot differ.
 * What goes in and comes out is written in database.ts.
 */

import type { SqlValue } from "./database.ts";

function quoteElement(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

function encodeElement(value: SqlValue): string {
  if (value === null) return "NULL";
  if (Array.isArray(value)) return encodeArray(value);
  return quoteElement(encodeValue(value)!);
}

function encodeArray(values: readonly SqlValue[]): string {
  return `{${values.map(encodeElement).join(",")}}`;
}

/** The text form of a parameter; null is SQL's null. */
export function encodeValue(value: SqlValue): string | null {
  if (value === null) return null;
  switch (typeof value) {
    case "string":
      return value;
    case "boolean":
      return value ? "t" : "f";
    case "number":
    case "bigint":
      return value.toString();
    default:
      if (value instanceof Date) return value.toISOString();
      if (value instanceof Uint8Array)
        return `\\x${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("hex")}`;
      if (Array.isArray(value)) return encodeArray(value);
      throw new TypeError("not a value for SQL");
  }
}

export type Parser = (text: string) => unknown;

const asText: Parser = (text) => text;
const asNumber: Parser = (text) => Number(text);
const asBigInt: Parser = (text) => BigInt(text);
const asBoolean: Parser = (text) => text === "t";
const asDate: Parser = (text) => new Date(text);
const asBytes: Parser = (text) => Uint8Array.from(Buffer.from(text.slice(2), "hex"));
const asJson: Parser = (text) => JSON.parse(text) as unknown;

/** Parses `{a,"b \" c",NULL,{…}}`. */
export function parseArray(text: string, parseElement: Parser): unknown[] {
  let at = 0;
  const readQuoted = (): string => {
    let out = "";
    at += 1;
    while (text[at] !== '"') {
      if (text[at] === "\\") at += 1;
      out += text[at];
      at += 1;
    }
    at += 1;
    return out;
  };
  const readBare = (): unknown => {
    const start = at;
    while (text[at] !== "," && text[at] !== "}") at += 1;
    const bare = text.slice(start, at);
    return bare === "NULL" ? null : parseElement(bare);
  };
  const readList = (): unknown[] => {
    const items: unknown[] = [];
    at += 1;
    while (text[at] !== "}") {
      if (text[at] === "{") items.push(readList());
      else if (text[at] === '"') items.push(parseElement(readQuoted()));
      else items.push(readBare());
      if (text[at] === ",") at += 1;
    }
    at += 1;
    return items;
  };
  // Bounds that do not start at 1 come as a prefix: `[0:1]={…}`.
  at = text.indexOf("{");
  return readList();
}

/** Type numbers as in pg_type; the second of each pair is the array type. */
const TYPES: readonly (readonly [oid: number, arrayOid: number, parser: Parser])[] = [
  [16, 1000, asBoolean],
  [17, 1001, asBytes],
  [18, 1002, asText],
  [19, 1003, asText],
  [20, 1016, asBigInt],
  [21, 1005, asNumber],
  [23, 1007, asNumber],
  [25, 1009, asText],
  [26, 1028, asNumber],
  [114, 199, asJson],
  [700, 1021, asNumber],
  [701, 1022, asNumber],
  [1042, 1014, asText],
  [1043, 1015, asText],
  [1082, 1182, asText],
  [1114, 1115, asText],
  [1184, 1185, asDate],
  [1700, 1231, asText],
  [2950, 2951, asText],
  [3802, 3807, asJson],
];

/** Parser by type number. A type that is not here comes as its text. */
export const PARSERS: ReadonlyMap<number, Parser> = new Map(
  TYPES.flatMap(([oid, arrayOid, parser]): [number, Parser][] => [
    [oid, parser],
    [arrayOid, (text) => parseArray(text, parser)],
  ]),
);
