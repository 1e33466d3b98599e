/** PURE: reads JSON that people write. What is wrong is said with its place: `models[2].per_image[0].price`. */

/** The file cannot be used; the message is one line for the person who wrote it. */
export class PriceFileError extends Error {
  readonly code = "price_file";
  constructor(message: string) {
    super(message);
    this.name = "PriceFileError";
  }
}

export type Fields = Readonly<Record<string, unknown>>;

/** True if it is wrong whatever may follow it. */
function isBroken(beginning: string): boolean {
  try {
    JSON.parse(beginning);
    return false;
  } catch (error) {
    const { message } = error as Error;
    if (/end of JSON input|Unterminated/.test(message)) return false;
    return !message.includes(`at position ${beginning.length}`);
  }
}

/** Where the first wrong character is: the engine says it for some mistakes only. */
function brokenAt(text: string): number {
  let [low, high] = [0, text.length + 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (isBroken(text.slice(0, middle))) high = middle;
    else low = middle;
  }
  return low;
}

/** @throws PriceFileError with the line */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    const at = brokenAt(text);
    const before = text.slice(0, at).split("\n");
    const what = at === text.length ? "it ends too early" : `${JSON.stringify(text[at])} is not expected here`;
    throw new PriceFileError(`line ${before.length}, column ${before.at(-1)!.length + 1}: not JSON: ${what}`);
  }
}

/** An object with no other fields than these. A misspelt field would be a price that is not set. */
export function objectAt(value: unknown, at: string, known: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new PriceFileError(`${at === "" ? "the file" : at}: must be an object, in braces`);
  for (const name of Object.keys(value)) {
    if (!known.includes(name))
      throw new PriceFileError(`${fieldAt(at, name)}: there is no such field; there are ${known.join(", ")}`);
  }
  return value as Fields;
}

export function fieldAt(at: string, name: string): string {
  return at === "" ? name : `${at}.${name}`;
}

/** Undefined: it is not there. */
export function listAt(fields: Fields, name: string, at: string): readonly unknown[] | undefined {
  const value = fields[name];
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw new PriceFileError(`${fieldAt(at, name)}: must be a list, in square brackets`);
  return value;
}

/** Undefined: it is not there. Numbers are refused: JSON's have lost digits before anybody can look. */
export function textAt(fields: Fields, name: string, at: string): string | undefined {
  const value = fields[name];
  if (value === undefined || typeof value === "string") return value;
  throw new PriceFileError(
    `${fieldAt(at, name)}: must be a text; write it in quotes${typeof value === "number" ? `, "${value}"` : ""}`,
  );
}

/** Undefined: it is not there. */
export function wholeAt(fields: Fields, name: string, at: string, max: number): number | undefined {
  const value = fields[name];
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0 && value <= max) return value;
  throw new PriceFileError(`${fieldAt(at, name)}: must be a whole number from 1 to ${max}, without quotes`);
}
