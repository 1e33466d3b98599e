/**
 * PURE. Anthropic's usage object in the hub's shape, for whole answers and streams, translated and passed through alike.
 * Facts are from reference/UPSTREAM-FORMATS.md C5: `input_tokens` leaves cached tokens out, `output_tokens` has thinking in.
 */

import type { Json } from "../hub.ts";
import { countOf, listOf, objectOf } from "../json.ts";

/** What one event says over what those before it said: fields count if they are not null, and are never added up. */
export function laterUsage(before: Json, usage: unknown): Json {
  const next: Record<string, unknown> = { ...before };
  for (const [key, value] of Object.entries(objectOf(usage))) if (value !== null) next[key] = value;
  return next;
}

/** Whether an event after the start says what came out so far: only then is a usage worth anything. */
export function saysOutput(usage: unknown): boolean {
  return countOf(objectOf(usage)["output_tokens"]) !== undefined;
}

interface Counts {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite: number;
  cacheWriteLong: number;
}

function countsOf(usage: Json): Counts | null {
  const input = countOf(usage["input_tokens"]);
  const output = countOf(usage["output_tokens"]);
  if (input === undefined || output === undefined) return null;
  const split = objectOf(usage["cache_creation"]);
  const long = countOf(split["ephemeral_1h_input_tokens"]) ?? 0;
  const cacheWrite =
    countOf(usage["cache_creation_input_tokens"]) ?? long + (countOf(split["ephemeral_5m_input_tokens"]) ?? 0);
  // The split may be older than the sum.
  const cacheWriteLong = Math.min(long, cacheWrite);
  return { input, output, cacheRead: countOf(usage["cache_read_input_tokens"]) ?? 0, cacheWrite, cacheWriteLong };
}

/**
 * What was compacted on the way stands beside the totals, not in them. An advisor is another model, and after a fallback
 * the totals are those of the model that answered.
 */
function countsWithIterations(usage: Json): Counts | null {
  const iterations = listOf(usage["iterations"]).map(objectOf);
  const has = (type: string): boolean => iterations.some((each) => each["type"] === type);
  if (!has("compaction") || has("fallback_message")) return countsOf(usage);
  const own = iterations.filter(({ type }) => type === "message" || type === "compaction").map(countsOf);
  const sum: Counts = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, cacheWriteLong: 0 };
  for (const each of own) {
    if (each === null) return countsOf(usage);
    for (const key of Object.keys(sum) as (keyof Counts)[]) sum[key] += each[key];
  }
  return sum;
}

/**
 * The hub's usage: `prompt_tokens` with all that was cached, `prompt_tokens_details` with `cached_tokens`,
 * `cache_write_tokens` and `cache_write_long_tokens` (those kept for an hour), `completion_tokens_details.reasoning_tokens`
 * where it is said, and `tool_calls`, the searches of the web that the upstream made. Null: it does not say what went in
 * and what came out.
 */
export function hubUsage(usage: unknown): Json | null {
  const fields = objectOf(usage);
  const counts = countsWithIterations(fields);
  if (counts === null) return null;
  const { input, output, cacheRead, cacheWrite, cacheWriteLong } = counts;
  const prompt = input + cacheRead + cacheWrite;
  const details: Record<string, unknown> = { cached_tokens: cacheRead };
  if (cacheWrite > 0) details["cache_write_tokens"] = cacheWrite;
  if (cacheWriteLong > 0) details["cache_write_long_tokens"] = cacheWriteLong;
  const out: Record<string, unknown> = {
    prompt_tokens: prompt,
    completion_tokens: output,
    total_tokens: prompt + output,
    prompt_tokens_details: details,
  };
  const thinking = countOf(objectOf(fields["output_tokens_details"])["thinking_tokens"]);
  if (thinking !== undefined) out["completion_tokens_details"] = { reasoning_tokens: Math.min(thinking, output) };
  const searches = countOf(objectOf(fields["server_tool_use"])["web_search_requests"]);
  if (searches !== undefined && searches > 0) out["tool_calls"] = searches;
  return out;
}
