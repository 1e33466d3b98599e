/** PURE. What a request costs, from what was delivered, and the records of it. */

import type { Credits } from "../core/credits.ts";
import { Meter, type UnitQuantity } from "../core/meters.ts";
import { type CompiledPrice, priceUsage } from "../core/pricing.ts";
import type { Admitted } from "./admitted.ts";
import type { EndpointSpec } from "./formats/format.ts";
import type { Growth } from "./growth.ts";
import type { AttemptEntry, LimitUse, Progress, Settlement } from "./journal/journal.ts";
import { BYTES_PER_TOKEN, estimateUnits, ONE_REQUEST, unitsFromUsage } from "./meter.ts";
import type { Outcome } from "./outcome.ts";
import type { Delivered } from "./relay.ts";
import { unreportedTokens } from "./unreported.ts";
import type { TokenCounts } from "./tokenizer/tokens.ts";

/** Who is paid for, and at what price. */
export interface Bill {
  /** "" and null: nobody served. */
  readonly pmId: string;
  readonly price: CompiledPrice | null;
}

export const NOBODY_SERVED: Bill = { pmId: "", price: null };

export interface Billed {
  readonly units: readonly UnitQuantity[];
  readonly credits: Credits;
}

export const NOTHING_BILLED: Billed = { units: [], credits: 0n };

function outputOf(units: readonly UnitQuantity[]): number {
  let sum = 0;
  for (const { meter, quantity } of units) {
    if (meter === Meter.OUTPUT_TOKENS || meter === Meter.REASONING_TOKENS || meter === Meter.AUDIO_OUTPUT_TOKENS)
      sum += quantity;
  }
  return sum;
}

/**
 * The units and Credits of what was delivered, as the upstream reported them; null: it did not, so they are estimated.
 * @param delivered null: nothing is billed
 * @param whole false: the answer is not complete, so a usage object that lags behind what arrived does not count
 */
export function billReported(
  bill: Bill,
  { endpoint, size }: Admitted,
  delivered: Delivered | null,
  whole: boolean,
): Billed | null {
  if (bill.price === null || delivered === null) return NOTHING_BILLED;
  const units = unitsOf(endpoint, delivered, whole);
  if (units === null) return null;
  if (!endpoint.estimated && delivered.usage === null && isUnpriced(bill, units))
    units.push(...unreportedTokens(size, delivered));
  return { units, credits: priceUsage(bill.price, units) };
}

/**
 * The most output tokens that the upstream was told to make, all answers together: what was reserved in STRICT covers so
 * many, and no estimate goes beyond.
 */
function outputLimit({ body, clampTo }: Admitted): number {
  const each = clampTo ?? body.outputTokensMax;
  return each === 0 ? Number.POSITIVE_INFINITY : each * body.answers;
}

/**
 * The same where nothing was reported. Counted text counts as it is: pieces of a stream are no lower bound, since there
 * are upstreams that send single letters. No text has more tokens than bytes, so that the input stays within what was
 * reserved for it. Without counts bytes decide, and each piece counts as a token at least.
 * @param counts tokens of input and output, null: not counted
 * @param growth of a stream: it bills no more than the wallet and one slice cover
 */
export function billEstimated(
  bill: Bill,
  request: Admitted,
  delivered: Delivered,
  counts: TokenCounts | null,
  growth: Growth | null,
): Billed {
  if (bill.price === null) return NOTHING_BILLED;
  const { endpoint, body } = request;
  const rough = Math.ceil(body.bytes.length / BYTES_PER_TOKEN);
  const input = Math.min(counts === null ? rough : counts.input, request.size.inputTokens);
  const least = delivered.hasContent ? 1 : 0;
  const output = counts === null ? delivered.outputTokens : Math.max(counts.output, least);
  const limited = Math.min(output, outputLimit(request));
  const units = estimateUnits(input, growth === null ? limited : growth.billable(limited), endpoint.hasOutput);
  units.push(...delivered.counted);
  return { units, credits: priceUsage(bill.price, units) };
}

function unitsOf(endpoint: EndpointSpec, delivered: Delivered, whole: boolean): UnitQuantity[] | null {
  const { usage, counted } = delivered;
  // All zeros are believed only if there was nothing.
  const units = usage === null ? null : unitsFromUsage(usage, endpoint.hasOutput, false);
  if (!endpoint.estimated) return [...counted, ...(units ?? [ONE_REQUEST])];
  if (units === null) return null;
  if (counted.length > 0) units.push(...counted);
  const zero = units.every(({ meter, quantity }) => meter === Meter.REQUESTS || quantity === 0);
  if (zero && delivered.hasContent) return null;
  return !whole && outputOf(units) < delivered.pieces ? null : units;
}

/** True if something was used that the price says nothing of: it was free by accident. A price of 0 is a price. */
export function isUnpriced({ price }: Bill, units: readonly UnitQuantity[]): boolean {
  if (price === null) return false;
  const used = units.filter(({ meter, quantity }) => meter !== Meter.REQUESTS && quantity > 0);
  return used.length > 0 && [...used, ONE_REQUEST].every(({ meter }) => price.rates[meter] === undefined);
}

/** How a request ended, besides what it cost. */
export interface Ending {
  readonly outcome: Outcome;
  /** The status that the client saw, 0 if it saw none. */
  readonly status: number;
  readonly errorCode: string;
  readonly attempts: readonly AttemptEntry[];
  /** Microseconds after arrival; 0: it never came to that. */
  readonly firstByteUs: number;
  readonly firstContentUs: number;
  readonly durationUs: number;
  readonly upstreamRequestId: string;
}

export function settlementOf(
  request: Admitted,
  arriveUnixUs: number,
  bill: Bill,
  billed: Billed,
  ending: Ending,
  limits?: readonly LimitUse[],
): Settlement {
  const { key, lm } = request;
  // Written out, since spreading costs more than all of it.
  const settlement = {
    id: request.id,
    veId: key.ve.id,
    accessKeyId: key.id,
    logicalModelId: lm.id,
    logicalModel: request.body.model,
    endpoint: request.endpoint.number,
    stream: request.stream,
    physicalModelId: bill.pmId,
    priceId: bill.price?.id ?? "",
    units: billed.units,
    credits: billed.credits,
    outcome: ending.outcome,
    httpStatus: ending.status,
    attempts: ending.attempts,
    arriveUnixUs,
    firstByteUs: ending.firstByteUs,
    firstContentUs: ending.firstContentUs,
    durationUs: ending.durationUs,
    upstreamRequestId: ending.upstreamRequestId,
    errorCode: ending.errorCode,
    hedgeOf: request.hedgeOf,
  };
  return limits === undefined ? settlement : { ...settlement, limits };
}

export function progressOf(request: Admitted, bill: Bill, delivered: Delivered): Progress {
  const billed = billReported(bill, request, delivered, false) ?? billEstimated(bill, request, delivered, null, null);
  const { units, credits } = billed;
  return { id: request.id, physicalModelId: bill.pmId, priceId: bill.price?.id ?? "", units, credits };
}
