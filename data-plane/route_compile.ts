/** PURE. From messages of the feed to the values of compiled routes. What cannot be used throws RejectError. */

import { CreditsFormatError, parseCredits } from "../core/credits.ts";
import { Meter, UnitKind } from "../core/meters.ts";
import {
  type CompiledPrice,
  compileDetailedPrice,
  compileSimplePrice,
  dearestRate,
  INPUT_METERS,
  PriceError,
  pricesKind,
} from "../core/pricing.ts";
import type { ProviderConfig } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { Deadlines, Routing, Target } from "../proto/gen/tokenbill/v1/logical_model_pb.ts";
import type { RateLimits as RateLimitsConfig } from "../proto/gen/tokenbill/v1/rate_limit_pb.ts";
import { type Price, ProviderFormat } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import { mergeDeadlines } from "./deadlines.ts";
import type { RateLimits } from "./rates/rates.ts";
import {
  type AdmissionRates,
  type RouteDeadlines,
  type RoutePm,
  type RouteRouting,
  type RouteTier,
  StickySource,
} from "./route_types.ts";

/** A resource that this node cannot use; the message is reported to the control plane. */
export class RejectError extends Error {
  readonly code = "resource_rejected";
}

const TIER_MAX = 15;
const WEIGHT_MAX = 1_000_000;
export const TARGETS_MAX = 256;

const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/;
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]{0,8192}$/;
const API_KEY = /^[\x21-\x7e]{0,8192}$/;
/** Set by us on every call; an extra header of these names is ignored. */
const OWN_HEADERS = new Set([
  "host",
  "authorization",
  "connection",
  "keep-alive",
  "content-length",
  "content-type",
  "content-encoding",
  "transfer-encoding",
  "accept-encoding",
  "expect",
  "te",
  "trailer",
  "upgrade",
]);

export interface BaseUrl {
  readonly origin: string;
  readonly basePath: string;
  readonly baseQuery: string;
}

export function compileBaseUrl(text: string): BaseUrl {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new RejectError("base_url is not a URL");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new RejectError("base_url must be http or https");
  if (url.username !== "" || url.password !== "") throw new RejectError("base_url must not hold credentials");
  return { origin: url.origin, basePath: url.pathname.replace(/\/+$/, ""), baseQuery: url.search };
}

export function checkFormat(format: number): number {
  if (format === ProviderFormat.UNSPECIFIED || !Object.values<number>(ProviderFormat).includes(format)) {
    throw new RejectError(`format ${format} is not known to this node`);
  }
  return format;
}

export function compileApiKey(provider: ProviderConfig): string {
  const key = provider.credentials?.apiKey ?? "";
  if (!API_KEY.test(key)) throw new RejectError("the API key holds characters that a header cannot carry");
  return key;
}

export function compileHeaders(headers: Readonly<Record<string, string>>): readonly string[] {
  const flat: string[] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (!HEADER_NAME.test(name) || !HEADER_VALUE.test(value))
      throw new RejectError(`header "${name.slice(0, 64)}" cannot be sent`);
    if (!OWN_HEADERS.has(name.toLowerCase())) flat.push(name.toLowerCase(), value);
  }
  return flat;
}

/** Null: there is no price. What it does not cover is for the endpoint to say, which knows what it consumes. */
export function compilePrice(price: Price | undefined): CompiledPrice | null {
  if (price === undefined) return null;
  try {
    return compileKind(price);
  } catch (error) {
    if (error instanceof PriceError || error instanceof CreditsFormatError)
      throw new RejectError(`price: ${error.message}`);
    throw error;
  }
}

function compileKind(price: Price): CompiledPrice {
  if (price.id === "") throw new RejectError("price: it has no id");
  if (price.kind.case === "simple") {
    const { creditPerUnit, unit, perUnits } = price.kind.value;
    if (unit < 1 || unit > UnitKind.REQUESTS) throw new RejectError(`price: unit ${unit} is not known to this node`);
    return compileSimplePrice(price.id, { creditPerUnit, unit: unit as UnitKind, perUnits });
  }
  if (price.kind.case === "detailed") {
    return compileDetailedPrice(
      price.id,
      price.kind.value.meters.map(({ meter, creditPerUnit, perUnits, size, quality, aboveInputTokens }) => ({
        meter: meter as Meter,
        creditPerUnit,
        perUnits,
        size,
        quality,
        aboveInputTokens: Number(aboveInputTokens),
      })),
    );
  }
  throw new RejectError("price: its kind is not known to this node");
}

/** The kinds of Units that it covers, as bits. A price for requests covers all of them. */
export function kindsOf(price: CompiledPrice): number {
  let bits = 0;
  for (const kind of Object.values(UnitKind)) if (pricesKind(price, kind)) bits |= 1 << kind;
  return bits;
}

/** The kind of Unit that a Unit Limit counts; 0: there is none. */
export function compileUnitKind(unit: number): UnitKind | 0 {
  // A limit that cannot be counted cannot be kept: better no such model than one without its limit.
  if (unit < 0 || unit > UnitKind.REQUESTS) throw new RejectError(`unit_limit_unit ${unit} is not known to this node`);
  return unit as UnitKind | 0;
}

const OUTPUT_METERS = [
  Meter.OUTPUT_TOKENS,
  Meter.REASONING_TOKENS,
  Meter.AUDIO_OUTPUT_TOKENS,
  Meter.IMAGE_OUTPUT_TOKENS,
];

/** Each the dearest that it can be, over thresholds, sizes and qualities: what a request comes to is known at its end. */
export function admissionRates(price: CompiledPrice): AdmissionRates {
  return {
    input: dearestRate(price, [Meter.INPUT_TOKENS]),
    output: dearestRate(price, [Meter.OUTPUT_TOKENS, Meter.REASONING_TOKENS]),
    dearInput: dearestRate(price, INPUT_METERS),
    dearOutput: dearestRate(price, OUTPUT_METERS),
    request: dearestRate(price, [Meter.REQUESTS]),
    image: dearestRate(price, [Meter.IMAGES]),
    second: dearestRate(price, [Meter.SECONDS]),
    character: dearestRate(price, [Meter.CHARACTERS]),
    toolCall: dearestRate(price, [Meter.TOOL_CALLS]),
  };
}

/** The targets in their one canonical order: tier, weighted before weight 0, weight, id. */
export function sortTargets(targets: readonly Target[]): Target[] {
  if (targets.length > TARGETS_MAX) throw new RejectError(`more than ${TARGETS_MAX} targets`);
  const seen = new Set<string>();
  for (const { physicalModelId, tier, weight } of targets) {
    if (physicalModelId === "") throw new RejectError("a target names no Physical Model");
    if (seen.has(physicalModelId)) throw new RejectError(`target ${physicalModelId} is named twice`);
    seen.add(physicalModelId);
    if (tier < 0 || tier > TIER_MAX) throw new RejectError(`tier ${tier} is outside 0 to ${TIER_MAX}`);
    if (weight < 0 || weight > WEIGHT_MAX) throw new RejectError(`weight ${weight} is outside 0 to ${WEIGHT_MAX}`);
  }
  const byId = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  return [...targets].sort(
    (a, b) => a.tier - b.tier || b.weight - a.weight || byId(a.physicalModelId, b.physicalModelId),
  );
}

export function groupKey(sorted: readonly Target[]): string {
  return sorted
    .map(({ physicalModelId, tier, weight, deadlines }) => {
      const own = deadlines === undefined ? "" : `,${deadlinesKey(compileDeadlines(deadlines))}`;
      return `${tier}:${weight}:${physicalModelId}${own}`;
    })
    .join(";");
}

export function deadlinesKey({ connectMs, firstByteMs, firstContentMs, idleMs, totalMs }: RouteDeadlines): string {
  return `${connectMs},${firstByteMs},${firstContentMs},${idleMs},${totalMs}`;
}

/** Null: no target has deadlines of its own. */
export function compileTargetDeadlines(
  sorted: readonly Target[],
  pms: readonly RoutePm[],
  all: RouteDeadlines,
): ReadonlyMap<RoutePm, RouteDeadlines> | null {
  const merged = new Map<RoutePm, RouteDeadlines>();
  for (const { physicalModelId, deadlines } of sorted) {
    const pm = pms.find(({ id }) => id === physicalModelId);
    if (deadlines !== undefined && pm !== undefined) merged.set(pm, mergeDeadlines(compileDeadlines(deadlines), all));
  }
  return merged.size === 0 ? null : merged;
}

export function compileRouting(config: Routing | undefined): RouteRouting {
  if (config === undefined) return ROUTING_UNSET;
  const { hedgeAfterMs, sticky } = config;
  if (hedgeAfterMs < 0) throw new RejectError("hedge_after_ms is negative");
  if (sticky === undefined || sticky.sources.length === 0) return { hedgeAfterMs, sticky: null };
  const known = sticky.sources.filter((source) => source > 0 && source <= StickySource.HEADER);
  // A source that this node does not know is passed over: requests stick by the others, or are drawn.
  return { hedgeAfterMs, sticky: { sources: known, header: sticky.header.toLowerCase() } };
}

const ROUTING_UNSET: RouteRouting = { hedgeAfterMs: 0, sticky: null };

export function routingKey({ hedgeAfterMs, sticky }: RouteRouting): string {
  return sticky === null ? `${hedgeAfterMs}` : `${hedgeAfterMs}:${sticky.sources.join(".")}:${sticky.header}`;
}

/** Null: there is no limit. */
export function compileRateLimits(config: RateLimitsConfig | undefined): RateLimits | null {
  if (config === undefined) return null;
  const { requestsPerMinute, tokensPerMinute, concurrentRequests } = config;
  const limits = { requestsPerMinute, tokensPerMinute: Number(tokensPerMinute), concurrentRequests };
  if (requestsPerMinute < 0 || limits.tokensPerMinute < 0 || concurrentRequests < 0)
    throw new RejectError("a rate limit is negative");
  return requestsPerMinute + limits.tokensPerMinute + concurrentRequests === 0 ? null : limits;
}

export function compileLowBalance(text: string): bigint {
  if (text === "") return 0n;
  try {
    return parseCredits(text);
  } catch {
    throw new RejectError("low_balance_credits is not a decimal");
  }
}

const EXHAUSTED_STATUS_DEFAULT = 429;

/** What the schema does not allow counts as the default: a wallet must be refused with some error status. */
export function exhaustedStatus(status: number): number {
  return status >= 400 && status <= 599 ? status : EXHAUSTED_STATUS_DEFAULT;
}

const DEADLINES_UNSET: RouteDeadlines = { connectMs: 0, firstByteMs: 0, firstContentMs: 0, idleMs: 0, totalMs: 0 };

export function compileDeadlines(config: Deadlines | undefined): RouteDeadlines {
  if (config === undefined) return DEADLINES_UNSET;
  const { connectMs, firstByteMs, firstContentMs, idleMs, totalMs } = config;
  if (connectMs < 0 || firstByteMs < 0 || firstContentMs < 0 || idleMs < 0 || totalMs < 0)
    throw new RejectError("a deadline is negative");
  return { connectMs, firstByteMs, firstContentMs, idleMs, totalMs };
}

/** `pms[i]` is what `sorted[i]` leads to. */
export function compileTiers(sorted: readonly Target[], pms: readonly RoutePm[]): RouteTier[] {
  const tiers: { tier: number; pms: RoutePm[]; cumulative: number[] }[] = [];
  sorted.forEach(({ tier, weight }, i) => {
    let last = tiers.at(-1);
    if (last === undefined || last.tier !== tier) tiers.push((last = { tier, pms: [], cumulative: [] }));
    last.pms.push(pms[i]!);
    if (weight > 0) last.cumulative.push((last.cumulative.at(-1) ?? 0) + weight);
  });
  return tiers;
}
