/** PURE. What a request costs, from what was delivered, and the records of it. */

import type { Credits } from "../core/credits.ts";
import { Meter, type UnitQuantity } from "../core/meters.ts";
import { type CompiledPrice, priceUsage } from "../core/pricing.ts";
import type { Admitted } from "./admitted.ts";
import type { EndpointSpec } from "./formats/format.ts";
import type { AttemptEntry, Progress, Settlement } from "./journal/journal.ts";
import { estimateUnits, unitsFromUsage } from "./meter.ts";
import type { Outcome } from "./outcome.ts";
import type { Delivered } from "./relay.ts";

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
 * The units and Credits of what was delivered: as the upstream reported, else estimated.
 * @param delivered null: nothing is billed
 * @param whole false: the answer is not complete, so a usage object that lags behind what arrived does not count
 */
export function billFor(bill: Bill, { endpoint, body }: Admitted, delivered: Delivered | null, whole: boolean): Billed {
  if (bill.price === null || delivered === null) return NOTHING_BILLED;
  let units = unitsOf(endpoint, delivered, whole);
  units ??= estimateUnits(body.bytes.length, delivered.outputTokens, endpoint.hasOutput);
  return { units, credits: priceUsage(bill.price, units) };
}

function unitsOf(endpoint: EndpointSpec, delivered: Delivered, whole: boolean): UnitQuantity[] | null {
  const { usage } = delivered;
  if (usage === null) return null;
  // All zeros are believed only if there was nothing.
  const units = unitsFromUsage(usage, endpoint.hasOutput, false);
  if (units === null) return null;
  const zero = units.every(({ meter, quantity }) => meter === Meter.REQUESTS || quantity === 0);
  if (zero && delivered.hasContent) return null;
  return !whole && outputOf(units) < delivered.pieces ? null : units;
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
): Settlement {
  const { key, lm } = request;
  // Written out, since spreading costs more than all of it.
  return {
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
  };
}

export function progressOf(request: Admitted, bill: Bill, delivered: Delivered): Progress {
  const { units, credits } = billFor(bill, request, delivered, false);
  return { id: request.id, physicalModelId: bill.pmId, priceId: bill.price?.id ?? "", units, credits };
}
