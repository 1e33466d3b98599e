/**
 * PURE. Reads what the gateway needs of a JSON request body without parsing the rest, and changes it by splicing, so
 * that every other byte goes upstream as it came.
 */

import { isUtf8 } from "node:buffer";
import { decodeString, JsonScanError, scanArray, scanObject, skipSpace } from "./json_scan.ts";

/** The body cannot be used; the client is told so with status 400. */
export class BodyError extends Error {
  readonly code: "invalid_json" | "invalid_type" | "missing_required_parameter";
  /** The field at fault, null for the body itself. */
  readonly param: string | null;
  constructor(code: BodyError["code"], param: string | null, message: string) {
    super(message);
    this.code = code;
    this.param = param;
  }
}

/** Where a value stands: `[start, end)`. */
interface Range {
  member: number;
  start: number;
  end: number;
}

/** Top-level fields that matter here; every other one is skipped. */
const KEYS = [
  "model",
  "stream",
  "stream_options",
  "max_tokens",
  "max_completion_tokens",
  "max_output_tokens",
  "n",
  "best_of",
  "messages",
  "tools",
  "prompt",
  "user",
  "prompt_cache_key",
] as const;
type Key = (typeof KEYS)[number];
/**
 * The fields that limit an answer: of chat, of newer chat models, and of `/v1/responses`. Every one that a body has is
 * read and, where it must be, lowered, whatever the path: servers differ about which ones they obey.
 */
const LIMITS = ["max_tokens", "max_completion_tokens", "max_output_tokens"] as const satisfies readonly Key[];
export type LimitName = (typeof LIMITS)[number];

/** The keys of one length, and their bytes. */
interface KnownKeys {
  readonly names: readonly Key[];
  readonly bytes: readonly Buffer[];
}
const KEYS_BY_LENGTH: readonly (KnownKeys | undefined)[] = Array.from({ length: 32 }, (_, length) => {
  const names = KEYS.filter((key) => key.length === length);
  return names.length === 0 ? undefined : { names, bytes: names.map((name) => Buffer.from(name)) };
});

/** Which of our keys is the string literal at `start..end`, null if none. Nearly always without making a string. */
function keyOf(bytes: Buffer, start: number, end: number): Key | null {
  const from = start + 1;
  const length = end - start - 2;
  const known = KEYS_BY_LENGTH[length];
  if (known !== undefined) {
    for (let k = 0; k < known.bytes.length; k++) {
      const wanted = known.bytes[k]!;
      let same = 0;
      while (same < length && bytes[from + same] === wanted[same]) same++;
      if (same === length) return known.names[k]!;
    }
  }
  for (let at = from; at < end - 1; at++) {
    if (bytes[at] !== BACKSLASH) continue;
    const key = decodeString(bytes, start, end) as Key;
    return KEYS.includes(key) ? key : null;
  }
  return null;
}

export interface Splice {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

export interface ScannedBody {
  readonly bytes: Buffer;
  readonly model: string;
  readonly stream: boolean;
  /** `stream_options.include_usage` is true. */
  readonly usageAsked: boolean;
  /** The client's limit of output tokens, the largest if it gave several; 0: none. */
  readonly outputTokensMax: number;
  /** The limit is 0, as clients of Messages say who only want a cache to be filled. */
  readonly noOutput: boolean;
  /** Answers asked for: the larger of `n` and `best_of`, times prompts. */
  readonly answers: number;
  /** `n`, 1 if absent. */
  readonly choices: number;
  readonly ranges: Readonly<Partial<Record<Key, Range>>>;
  /** After the opening brace. */
  readonly inside: number;
  /** Earlier copies of fields that came twice: cut out, so that no two readers can differ about which one counts. */
  readonly cuts: readonly Splice[];
}

const NO_CUTS: readonly Splice[] = [];
/** The most that `n` and `best_of` can ask for, as at OpenAI. */
const ANSWERS_MAX = 128;
/** The most prompts of one legacy completion. */
const PROMPTS_MAX = 2048;

/** All keys are there from the start, so that these objects have one shape. */
function noRanges(): Partial<Record<Key, Range>> {
  return {
    model: undefined,
    stream: undefined,
    stream_options: undefined,
    max_tokens: undefined,
    max_completion_tokens: undefined,
    max_output_tokens: undefined,
    n: undefined,
    best_of: undefined,
    messages: undefined,
    tools: undefined,
    prompt: undefined,
    user: undefined,
    prompt_cache_key: undefined,
  };
}

/**
 * @param leastTokens the lowest limit of output tokens that may be given
 * @throws BodyError
 */
export function scanBody(bytes: Buffer, leastTokens: 0 | 1 = 1): ScannedBody {
  const ranges = noRanges();
  let cuts: Splice[] | null = null;
  const open = skipSpace(bytes, 0);
  try {
    if (!isUtf8(bytes)) throw new JsonScanError("this is not valid UTF-8", 0);
    const end = scanObject(bytes, open, 0, (member, keyEnd, start, valueEnd) => {
      const key = keyOf(bytes, member, keyEnd);
      if (key === null) return;
      const before = ranges[key];
      if (before !== undefined) (cuts ??= []).push(cutOf(bytes, before));
      ranges[key] = { member, start, end: valueEnd };
    });
    if (skipSpace(bytes, end) !== bytes.length) throw new JsonScanError("there is more after the JSON value", end);
    return readFields(bytes, open + 1, ranges, cuts ?? NO_CUTS, leastTokens);
  } catch (error) {
    if (!(error instanceof JsonScanError)) throw error;
    throw new BodyError("invalid_json", null, `We could not parse the JSON body of your request: ${error.message}.`);
  }
}

/** A member that has another one after it: the cut takes the comma along. */
function cutOf(bytes: Buffer, range: Range): Splice {
  const comma = skipSpace(bytes, range.end);
  return { start: range.member, end: skipSpace(bytes, comma + 1), text: "" };
}

function readFields(
  bytes: Buffer,
  inside: number,
  ranges: Partial<Record<Key, Range>>,
  cuts: readonly Splice[],
  leastTokens: 0 | 1,
): ScannedBody {
  const n = readCount(bytes, ranges.n, "n", 1, ANSWERS_MAX) || 1;
  const bestOf = readCount(bytes, ranges.best_of, "best_of", 1, ANSWERS_MAX) || 1;
  // Not 0: some servers take it for no limit at all, and nothing would be held for what they send then.
  const max = Math.max(...LIMITS.map((name) => readCount(bytes, ranges[name], name, leastTokens)));
  const stream = readBoolean(bytes, ranges.stream, "stream");
  return {
    bytes,
    model: readModel(bytes, ranges.model),
    stream,
    usageAsked: stream && readStreamOptions(bytes, ranges.stream_options)?.["include_usage"] === true,
    outputTokensMax: max,
    noOutput: leastTokens === 0 && max === 0 && isSet(bytes, ranges.max_tokens),
    answers: Math.max(n, bestOf) * countPrompts(bytes, ranges.prompt),
    choices: n,
    ranges,
    inside,
    cuts,
  };
}

/** A field of text, "" if it is absent or something else: whether it may be is for the upstream to say. */
export function textField(body: ScannedBody, name: "user" | "prompt_cache_key"): string {
  const range = body.ranges[name];
  return range === undefined || body.bytes[range.start] !== QUOTE
    ? ""
    : decodeString(body.bytes, range.start, range.end);
}

const LOWER_N = 0x6e;
const LOWER_T = 0x74;
const LOWER_F = 0x66;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OBJECT = 0x7b;
const ARRAY = 0x5b;

/** `null` counts as absent, as at OpenAI. */
function isSet(bytes: Buffer, range: Range | undefined): range is Range {
  return range !== undefined && bytes[range.start] !== LOWER_N;
}

function readModel(bytes: Buffer, range: Range | undefined): string {
  if (!isSet(bytes, range))
    throw new BodyError("missing_required_parameter", "model", "you must provide a model parameter");
  if (bytes[range.start] !== QUOTE)
    throw new BodyError("invalid_type", "model", "Invalid type for 'model': expected a string.");
  return decodeString(bytes, range.start, range.end);
}

function readBoolean(bytes: Buffer, range: Range | undefined, name: string): boolean {
  if (!isSet(bytes, range)) return false;
  if (bytes[range.start] === LOWER_T) return true;
  if (bytes[range.start] === LOWER_F) return false;
  throw new BodyError("invalid_type", name, `Invalid type for '${name}': expected a boolean.`);
}

/** These decide how much is held, so a wrong type is refused here and not left to the upstream. 0 if absent. */
function readCount(
  bytes: Buffer,
  range: Range | undefined,
  name: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  if (!isSet(bytes, range)) return 0;
  const first = bytes[range.start]!;
  const isNumber = first === 0x2d || (first >= 0x30 && first <= 0x39);
  const value = isNumber ? Number(bytes.toString("latin1", range.start, range.end)) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  const bounds = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
  throw new BodyError("invalid_type", name, `Invalid value for '${name}': expected an integer ${bounds}.`);
}

function readStreamOptions(bytes: Buffer, range: Range | undefined): Record<string, unknown> | null {
  if (range === undefined || bytes[range.start] !== OBJECT) return null;
  try {
    return JSON.parse(bytes.toString("utf8", range.start, range.end)) as Record<string, unknown>;
  } catch {
    throw new JsonScanError("a string has a bad escape", range.start);
  }
}

/** Legacy completions take many prompts at once, each a string or an array of tokens; each gets its own answers. */
function countPrompts(bytes: Buffer, range: Range | undefined): number {
  if (range === undefined || bytes[range.start] !== ARRAY) return 1;
  let prompts = 0;
  scanArray(bytes, range.start, 1, (start) => {
    if (bytes[start] === QUOTE || bytes[start] === ARRAY) prompts++;
  });
  if (prompts > PROMPTS_MAX)
    throw new BodyError(
      "invalid_type",
      "prompt",
      `Invalid value for 'prompt': at most ${PROMPTS_MAX} prompts at once.`,
    );
  return Math.max(1, prompts);
}

/** What the upstream should read instead. */
export interface BodyChanges {
  /** The model name. */
  readonly model: string;
  /** Ask for usage in the stream. */
  readonly includeUsage: boolean;
  /** The most output tokens, null to leave them alone. */
  readonly outputTokensMax: number | null;
  /** The field for it when the client used none: servers differ about which one they take. */
  readonly outputTokensField: LimitName;
  /**
   * Limits of other endpoints. They say how much is held for the answer, so one that stands alone is said once more in the
   * field that counts here: an upstream that passes over what it does not know would have no limit at all.
   */
  readonly foreignLimits?: readonly LimitName[];
}

/** The changed body; all other bytes are as they came. @param more splices besides, null for none */
export function changeBody(body: ScannedBody, changes: BodyChanges, more: readonly Splice[] | null = null): Buffer {
  const { ranges, bytes, inside } = body;
  const model = ranges.model!;
  const splices: Splice[] = [{ start: model.start, end: model.end, text: JSON.stringify(changes.model) }, ...body.cuts];
  if (changes.includeUsage && !body.usageAsked) {
    const options = ranges.stream_options;
    if (options === undefined) {
      splices.push({ start: inside, end: inside, text: '"stream_options":{"include_usage":true},' });
    } else if (bytes[options.start] === OBJECT || bytes[options.start] === LOWER_N) {
      const value = { ...readStreamOptions(bytes, options), include_usage: true };
      splices.push({ start: options.start, end: options.end, text: JSON.stringify(value) });
    }
  }
  limitOutput(body, changes, splices);
  return splice(bytes, more === null ? splices : outermost([...splices, ...more]));
}

/** Without the splices that lie within another one, which counts in their place. Insertions stay. */
export function outermost(splices: readonly Splice[]): readonly Splice[] {
  return splices.filter(
    (inner, at) =>
      inner.start === inner.end ||
      !splices.some((outer, other) => {
        if (other === at || outer.start > inner.start || outer.end < inner.end) return false;
        return outer.start < inner.start || outer.end > inner.end || other < at;
      }),
  );
}

function limitOutput(body: ScannedBody, changes: BodyChanges, splices: Splice[]): void {
  const { bytes, ranges, inside } = body;
  const { outputTokensMax, outputTokensField: field, foreignLimits } = changes;
  const max = outputTokensMax ?? body.outputTokensMax;
  // Without a limit `max` is 0 here; with one of this endpoint's own nothing is to be done unless it is lowered.
  if (max === 0 && outputTokensMax === null) return;
  let found = false;
  for (const name of LIMITS) {
    const range = ranges[name];
    if (!isSet(bytes, range)) continue;
    if (foreignLimits?.includes(name) !== true) found = true;
    if (outputTokensMax === null) continue;
    if (Number(bytes.toString("latin1", range.start, range.end)) > max)
      splices.push({ start: range.start, end: range.end, text: String(max) });
  }
  if (found) return;
  const absent = ranges[field];
  if (absent === undefined) splices.push({ start: inside, end: inside, text: `"${field}":${max},` });
  else splices.push({ start: absent.start, end: absent.end, text: String(max) });
}

/** Applies splices, which must not overlap; several at one place apply in the given order. */
export function splice(bytes: Buffer, splices: readonly Splice[]): Buffer {
  const sorted = splices.length === 1 ? splices : [...splices].sort((a, b) => a.start - b.start || a.end - b.end);
  let size = bytes.length;
  for (const { start, end, text } of sorted) size += Buffer.byteLength(text) - (end - start);
  const out = Buffer.allocUnsafe(size);
  let read = 0;
  let write = 0;
  for (const { start, end, text } of sorted) {
    write += bytes.copy(out, write, read, start);
    write += out.write(text, write);
    read = end;
  }
  bytes.copy(out, write, read);
  return out;
}

/** An escape of a printable ASCII character other than in the usual places: only then can a word hide in escapes. */
const ASCII_ESCAPE = Buffer.from("\\u00");

export function mayHold(bytes: Buffer, word: string): boolean {
  if (bytes.includes(word, 0, "latin1")) return true;
  for (let at = bytes.indexOf(ASCII_ESCAPE); at !== -1; at = bytes.indexOf(ASCII_ESCAPE, at + 1)) {
    const digit = bytes[at + 4]!;
    if (digit >= 0x32 && digit <= 0x37) return true;
  }
  return false;
}

/**
 * The text of the last message of role `user` if it is text alone, else null. Does nothing, and returns null, when the
 * body cannot hold `word`.
 */
export function lastUserText(body: ScannedBody, word: string): string | null {
  const { bytes, ranges } = body;
  const messages = ranges.messages;
  if (messages === undefined || bytes[messages.start] !== ARRAY || !mayHold(bytes, word)) return null;
  const elements: number[] = [];
  scanArray(bytes, messages.start, 1, (start, end) => void elements.push(start, end));
  for (let i = elements.length - 2; i >= 0; i -= 2) {
    const message = parseOrNull(bytes.toString("utf8", elements[i], elements[i + 1]));
    if (message?.["role"] === "user") return textOf(message["content"]);
  }
  return null;
}

function parseOrNull(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" ? (value as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

function textOf(content: unknown): string | null {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return null;
  let text = "";
  for (const part of content as readonly unknown[]) {
    const { type, text: piece } = (part ?? {}) as Record<string, unknown>;
    if ((type !== "text" && type !== "input_text") || typeof piece !== "string") return null;
    text += piece;
  }
  return text;
}
