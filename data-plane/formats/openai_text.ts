/** PURE. How much text OpenAI answers hold, in bytes, for estimates: output, reasoning, refusals and tool arguments. */

import { decodeString, skipSpace, skipString, skipValue } from "../json_scan.ts";
import type { Sampler } from "../tokenizer/tokens.ts";

/** Fields whose strings the model generated. Audio data is left out: its tokens have nothing to do with its bytes. */
const GENERATED = new Set([
  "content",
  "reasoning_content",
  "reasoning",
  "thinking",
  "refusal",
  "arguments",
  "name",
  "text",
  "transcript",
  "input",
]);
/** What surrounds a call of a tool, beyond its name and arguments; reported calls have four to eight. */
const CALL_TOKENS = 6;
/** What stands in a delta or message without being content; blocks of thinking say again what was generated before. */
const NO_CONTENT = new Set(["role", "annotations", "thinking_blocks"]);

/** What was found in one delta, message or choice. */
export interface TextMeasure {
  bytes: number;
  /** Something was generated, even if it has no length (a tool call without arguments). */
  content: boolean;
  /** Keeps some of it for the tokenizer. */
  readonly sampler: Sampler;
}

/** Adds up what `value`, a parsed delta, message or choice, holds. */
export function measureValue(value: unknown, into: TextMeasure): void {
  if (typeof value !== "object" || value === null) return;
  // Names alone: pairs would be made for each piece of a stream.
  for (const key of Object.keys(value)) {
    if (NO_CONTENT.has(key)) continue;
    const each = (value as Readonly<Record<string, unknown>>)[key];
    if (typeof each === "string") {
      if (!GENERATED.has(key) || each === "") continue;
      into.bytes += Buffer.byteLength(each);
      into.sampler.addText(each);
      if (key === "name") into.sampler.tokens += CALL_TOKENS;
      into.content = true;
    } else if (
      typeof each === "object" &&
      each !== null &&
      (Array.isArray(each) ? each.length > 0 : Object.keys(each).length > 0)
    ) {
      into.content = true;
      if (!Array.isArray(each)) measureValue(each, into);
      else for (const element of each) measureValue(element, into);
    }
  }
}

const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const ARRAY = 0x5b;
const ARRAY_END = 0x5d;
const QUOTE = 0x22;
const COMMA = 0x2c;

/** The same on the bytes of the object at `at`, without parsing. @throws JsonScanError */
export function measureObject(bytes: Buffer, at: number, into: TextMeasure): number {
  let pos = skipSpace(bytes, at + 1);
  while (bytes[pos] === QUOTE) {
    const keyEnd = skipString(bytes, pos);
    const key = decodeString(bytes, pos, keyEnd);
    const value = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1);
    pos = NO_CONTENT.has(key) ? skipValue(bytes, value) : measureMember(bytes, key, value, into);
    pos = skipSpace(bytes, pos);
    if (bytes[pos] !== COMMA) break;
    pos = skipSpace(bytes, pos + 1);
  }
  if (bytes[pos] !== OBJECT_END) return skipValue(bytes, at);
  return pos + 1;
}

function measureMember(bytes: Buffer, key: string, at: number, into: TextMeasure): number {
  const first = bytes[at];
  if (first === QUOTE) {
    const end = skipString(bytes, at);
    if (end - at > 2 && GENERATED.has(key)) {
      into.bytes += end - at - 2;
      into.sampler.add(bytes, at + 1, end - 1);
      if (key === "name") into.sampler.tokens += CALL_TOKENS;
      into.content = true;
    }
    return end;
  }
  if (first === OBJECT) {
    if (bytes[skipSpace(bytes, at + 1)] !== OBJECT_END) into.content = true;
    return measureObject(bytes, at, into);
  }
  if (first !== ARRAY) return skipValue(bytes, at);
  let pos = skipSpace(bytes, at + 1);
  if (bytes[pos] === ARRAY_END) return pos + 1;
  into.content = true;
  for (;;) {
    pos = skipSpace(bytes, bytes[pos] === OBJECT ? measureObject(bytes, pos, into) : skipValue(bytes, pos));
    if (bytes[pos] !== COMMA) return pos + 1;
    pos = skipSpace(bytes, pos + 1);
  }
}
