/** PURE. Reading JSON of unknown shape. */

import type { Json } from "./hub.ts";

const NOTHING: Json = {};

/** The object, or an empty one if it is none. */
export function objectOf(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : NOTHING;
}

/** The array, or an empty one if it is none. */
export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

/** The string, or "" if it is none. */
export function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The non-negative integer, undefined if it is none. */
export function countOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** The object that these bytes hold; null if they do not. */
export function parseObject(bytes: Buffer): Json | null {
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
  } catch {
    return null;
  }
}

/** Nothing but white space: upstreams refuse texts that are. */
export function isBlank(text: string): boolean {
  return text.trim() === "";
}
