/** What one request holds of the rate limits of its access key and its VE, and how the client is told of them. */

import type { RouteKey } from "../route_types.ts";
import type { ExpectedTokens } from "./expected_tokens.ts";
import { isRefusal, type RateHold, type RateLimits, type RateRefusal, type Rates, type RateView } from "./rates.ts";

/** All of them, or the first refusal; what was taken before a refusal is given back. */
export function takeRates(rates: Rates, key: RouteKey, tokens: ExpectedTokens): RateHold[] | RateRefusal {
  const holds: RateHold[] = [];
  for (const { id, rateLimits } of [key, key.ve]) {
    if (rateLimits === null) continue;
    const taken = rates.take(id, rateLimits, tokens.all, tokens.input);
    if (isRefusal(taken)) {
      for (const hold of holds) hold.release();
      return taken;
    }
    holds.push(taken);
  }
  return holds;
}

/** As a Go duration, which is what OpenAI sends: `12ms`, `1.5s`, `6m0s`. */
export function formatDuration(ms: number): string {
  const whole = Math.max(0, Math.ceil(ms));
  if (whole < 1000) return `${whole}ms`;
  const minutes = Math.floor(whole / 60_000);
  const seconds = (whole - minutes * 60_000) / 1000;
  const text = `${Number(seconds.toFixed(3))}s`;
  return minutes === 0 ? text : `${minutes}m${text}`;
}

interface Standing {
  readonly limits: RateLimits;
  readonly view: RateView;
}

/** `x-ratelimit-*` of the limit that is nearer to its end, the key's or the VE's, each for itself. */
export function addRateHeaders(headers: string[], rates: Rates, key: RouteKey): void {
  const standings: Standing[] = [];
  for (const { id, rateLimits } of [key, key.ve])
    if (rateLimits !== null) standings.push({ limits: rateLimits, view: rates.view(id, rateLimits) });
  add(headers, "requests", standings, ({ limits, view }) => [
    limits.requestsPerMinute,
    view.remainingRequests,
    view.resetRequestsMs,
  ]);
  add(headers, "tokens", standings, ({ limits, view }) => [
    limits.tokensPerMinute,
    view.remainingTokens,
    view.resetTokensMs,
  ]);
}

function add(
  headers: string[],
  what: string,
  standings: readonly Standing[],
  of: (standing: Standing) => [limit: number, remaining: number, resetMs: number],
): void {
  let least: [limit: number, remaining: number, resetMs: number] | null = null;
  for (const standing of standings) {
    const figures = of(standing);
    if (figures[0] > 0 && (least === null || figures[1] < least[1])) least = figures;
  }
  if (least === null) return;
  const [limit, remaining, resetMs] = least;
  headers.push(`x-ratelimit-limit-${what}`, String(limit), `x-ratelimit-remaining-${what}`, String(remaining));
  headers.push(`x-ratelimit-reset-${what}`, formatDuration(resetMs));
}
