/** PURE: reads what WeChat says without trusting its shape. */

export type Json = Readonly<Record<string, unknown>>;

/** Nothing but an object: no array, no null. */
export function objectOf(value: unknown): Json | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
}

/** Null: the bytes are no UTF-8, no JSON, or not an object. */
export function parseObject(bytes: Uint8Array): Json | null {
  try {
    return objectOf(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return null;
    throw error;
  }
}

const own = (from: Json | null, name: string): unknown =>
  from !== null && Object.hasOwn(from, name) ? from[name] : undefined;

export function fieldOf(from: Json | null, name: string): Json | null {
  return objectOf(own(from, name));
}

/** Empty: it is absent, or no text. */
export function textOf(from: Json | null, name: string): string {
  const value = own(from, name);
  return typeof value === "string" ? value : "";
}

/** Null: it is absent, or no whole number that a double holds exactly. */
export function integerOf(from: Json | null, name: string): number | null {
  const value = own(from, name);
  return typeof value === "number" && Number.isSafeInteger(value) ? value : null;
}

export function listOf(from: Json | null, name: string): readonly unknown[] {
  const value = own(from, name);
  return Array.isArray(value) ? value : [];
}
