/** PURE. Usage between the Responses API and the hub. Facts: reference/UPSTREAM-FORMATS.md A4 and A5. */

import type { Json } from "../hub.ts";
import { countOf, listOf, objectOf } from "../json.ts";

/**
 * What a response reports in the hub's shape, null if it reports no tokens. Beyond tokens of the model it holds what hosted
 * tools used, where there is some of it: `images` and `tool_calls` (counts), `image_input_tokens`, `image_output_tokens`.
 * @param response the `response` object, which has `usage`, `output` and `tool_usage`
 */
export function hubUsage(response: Json): Json | null {
  const tokens = hubTokens(response["usage"]);
  return tokens === null ? null : { ...tokens, ...hostedUsage(response) };
}

/** The tokens of a `usage` object of the Responses API in the hub's shape, null if it does not say them. */
export function hubTokens(value: unknown): Json | null {
  const usage = objectOf(value);
  const input = countOf(usage["input_tokens"]);
  const output = countOf(usage["output_tokens"]);
  if (input === undefined || output === undefined) return null;
  const inputDetails = objectOf(usage["input_tokens_details"]);
  const long = countOf(objectOf(inputDetails["cache_write_tokens_details"])["ttl_12h_tokens"]) ?? 0;
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: countOf(usage["total_tokens"]) ?? input + output,
    prompt_tokens_details: {
      cached_tokens: countOf(inputDetails["cached_tokens"]) ?? 0,
      cache_write_tokens: countOf(inputDetails["cache_write_tokens"]) ?? 0,
      ...(long > 0 ? { cache_write_long_tokens: long } : {}),
    },
    completion_tokens_details: {
      reasoning_tokens: countOf(objectOf(usage["output_tokens_details"])["reasoning_tokens"]) ?? 0,
    },
  };
}

/** What hosted tools used: it stands outside `usage`. Empty if nothing did. */
export function hostedUsage(response: Json): Json {
  const tools = objectOf(response["tool_usage"]);
  const images = objectOf(tools["image_gen"]);
  let imageInput = countOf(images["input_tokens"]) ?? 0;
  let imageOutput = countOf(images["output_tokens"]) ?? 0;
  let made = 0;
  let searches = 0;
  for (const each of listOf(response["output"])) {
    const item = objectOf(each);
    if (isMadeImage(item)) made++;
    if (item["type"] === "web_search_call") searches++;
    const drawn = objectOf(item["svg_usage"]);
    imageInput += countOf(drawn["input_tokens"]) ?? 0;
    imageOutput += countOf(drawn["output_tokens"]) ?? 0;
  }
  // Billable searches are said in `tool_usage`: discounted ones and pages that were only opened are left out there.
  const calls = countOf(objectOf(tools["web_search"])["num_requests"]) ?? searches;
  const counts: [string, number][] = [
    ["images", made],
    ["tool_calls", calls],
    ["image_input_tokens", imageInput],
    ["image_output_tokens", imageOutput],
  ];
  return Object.fromEntries(counts.filter(([, count]) => count > 0));
}

export function isMadeImage(item: Json): boolean {
  return item["type"] === "image_generation_call" && item["status"] === "completed";
}

/** The hub's usage as a Responses client knows it; null for null. */
export function responsesUsage(usage: Json | null): Json | null {
  if (usage === null) return null;
  const input = countOf(usage["prompt_tokens"]) ?? 0;
  const output = countOf(usage["completion_tokens"]) ?? 0;
  const inputDetails = objectOf(usage["prompt_tokens_details"]);
  const written = countOf(inputDetails["cache_write_tokens"]) ?? 0;
  const long = countOf(inputDetails["cache_write_long_tokens"]) ?? 0;
  return {
    input_tokens: input,
    input_tokens_details: {
      cached_tokens: countOf(inputDetails["cached_tokens"]) ?? 0,
      cache_write_tokens: written,
      ...(long > 0
        ? { cache_write_tokens_details: { ttl_30m_tokens: Math.max(0, written - long), ttl_12h_tokens: long } }
        : {}),
    },
    output_tokens: output,
    output_tokens_details: {
      reasoning_tokens: countOf(objectOf(usage["completion_tokens_details"])["reasoning_tokens"]) ?? 0,
    },
    total_tokens: countOf(usage["total_tokens"]) ?? input + output,
  };
}
