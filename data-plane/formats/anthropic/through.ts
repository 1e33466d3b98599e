/**
 * PURE. What must change in a Messages body although it goes through as it came: thoughts that Claude never signed, and a
 * thinking budget that a lowered limit has no room for. Both are answered with 400 there. Facts are from
 * reference/UPSTREAM-FORMATS.md C3 and C8.
 */

import type { ScannedBody, Splice } from "../../body.ts";
import { decodeString, scanObject, skipSpace } from "../../json_scan.ts";
import type { Json } from "../hub.ts";
import { countOf, listOf, objectOf, parseObject, textOf } from "../json.ts";
import { isSealed, SEALED_START } from "../responses/reasoning.ts";
import { budgetWithin } from "./thinking.ts";

const QUOTE = 0x22;
const COLON = 0x3a;
const SIGNATURE_KEY = Buffer.from('"signature"');
const SEALED = Buffer.from(SEALED_START);

/**
 * Whether some signature may be one that other upstreams' thoughts got here: an empty one, or a reasoning item in disguise.
 * Only signatures are looked at, since bodies are long and nearly always need no change.
 */
function mayHoldUnsigned(bytes: Buffer): boolean {
  for (let at = bytes.indexOf(SIGNATURE_KEY); at !== -1; at = bytes.indexOf(SIGNATURE_KEY, at + 1)) {
    const colon = skipSpace(bytes, at + SIGNATURE_KEY.length);
    const value = skipSpace(bytes, colon + 1);
    if (bytes[colon] !== COLON || bytes[value] !== QUOTE) continue;
    if (bytes[value + 1] === QUOTE || bytes.subarray(value + 1, value + 1 + SEALED.length).equals(SEALED)) return true;
  }
  return false;
}

function isUnsigned(value: unknown): boolean {
  const { type, signature } = objectOf(value);
  return type === "thinking" && (textOf(signature) === "" || isSealed(textOf(signature)));
}

/** Messages that had nothing else go altogether: Claude takes no empty ones. */
function withoutUnsigned(messages: readonly unknown[]): readonly unknown[] {
  return messages.flatMap((each) => {
    const { role, content } = objectOf(each);
    if (role !== "assistant" || !Array.isArray(content) || !content.some(isUnsigned)) return [each];
    const kept = (content as unknown[]).filter((block) => !isUnsigned(block));
    return kept.length === 0 ? [] : [{ ...objectOf(each), content: kept }];
  });
}

/** The last turn of the assistant calls tools and does not begin with a thought: no budget for thinking is taken then. */
function callsUnthinking(messages: readonly unknown[]): boolean {
  const last = messages.map(objectOf).findLast(({ role }) => role === "assistant");
  const types = listOf(last?.["content"]).map((block) => objectOf(block)["type"]);
  return types.includes("tool_use") && types[0] !== "thinking" && types[0] !== "redacted_thinking";
}

/** Null: nothing must change. */
function signedMessages({ bytes, ranges }: ScannedBody): readonly unknown[] | null {
  const range = ranges.messages;
  if (range === undefined || !mayHoldUnsigned(bytes)) return null;
  // As the value of a member, so that what cannot be parsed is left to the upstream.
  const list = `{"m":${bytes.toString("utf8", range.start, range.end)}}`;
  const messages = listOf(parseObject(Buffer.from(list))?.["m"]);
  const kept = withoutUnsigned(messages);
  return kept.length === messages.length && kept.every((each, index) => each === messages[index]) ? null : kept;
}

/** Changes the budget; `change` gives null where there must be none. */
function thinkingSplices({ bytes }: ScannedBody, change: (budget: number) => number | null): Splice[] {
  const splices: Splice[] = [];
  scanObject(bytes, skipSpace(bytes, 0), 0, (member, keyEnd, start, end) => {
    if (decodeString(bytes, member, keyEnd) !== "thinking") return;
    const thinking: Json = parseObject(bytes.subarray(start, end)) ?? {};
    const budget = countOf(thinking["budget_tokens"]);
    if (thinking["type"] !== "enabled" || budget === undefined) return;
    const changed = change(budget);
    if (changed === budget) return;
    const value = changed === null ? { type: "disabled" } : { ...thinking, budget_tokens: changed };
    splices.push({ start, end, text: JSON.stringify(value) });
  });
  return splices;
}

/** Splices besides those of `changeBody`; null: none. @param clampTo what `max_tokens` is lowered to, null: it stays */
export function throughChanges(body: ScannedBody, clampTo: number | null): readonly Splice[] | null {
  const messages = signedMessages(body);
  const unthinking = messages !== null && callsUnthinking(messages);
  // A limit that is low enough already is the client's own affair, and so is a budget beyond it.
  const most = clampTo !== null && clampTo < body.outputTokensMax ? clampTo : null;
  if (messages === null && most === null) return null;
  const splices = thinkingSplices(body, (budget) => {
    if (unthinking) return null;
    return most === null || budget < most ? budget : budgetWithin(budget, most);
  });
  const range = body.ranges.messages;
  if (messages !== null && range !== undefined)
    splices.push({ start: range.start, end: range.end, text: JSON.stringify(messages) });
  return splices.length === 0 ? null : splices;
}
