/** Settlements as real requests of the VEs of sql_world.ts have them, for the journal's benches. */

import { parseCredits } from "../../core/credits.ts";
import { Meter, UnitSource } from "../../core/meters.ts";
import type { Intent, Progress, Settlement } from "../../data-plane/journal/journal.ts";
import { Outcome } from "../../data-plane/outcome.ts";
import { CREDITS_PER_1000, idText } from "./sql_world.ts";

const OUTPUT_TOKENS = 50;
const RATE = parseCredits(CREDITS_PER_1000) / 1000n;

/** A chat request of one of `ves` VEs that its first target served. */
export function settlementOf(n: number, ves: number, stream: boolean): Settlement {
  const ve = 1 + (n % ves);
  const inputTokens = 200 + (n % 100);
  const pmId = `pm_${idText(1)}`;
  return {
    id: `usg_${idText(n)}`,
    veId: `ve_${idText(ve)}`,
    accessKeyId: `key_${idText(ve)}`,
    logicalModelId: `lm_${idText(ve * 1000)}`,
    logicalModel: "gpt-4o-mini",
    endpoint: 1,
    stream,
    physicalModelId: pmId,
    priceId: `price_${idText(1)}`,
    units: [
      { meter: Meter.INPUT_TOKENS, quantity: inputTokens, source: UnitSource.REPORTED },
      { meter: Meter.OUTPUT_TOKENS, quantity: OUTPUT_TOKENS, source: UnitSource.REPORTED },
    ],
    credits: RATE * BigInt(inputTokens + OUTPUT_TOKENS),
    outcome: Outcome.COMPLETED,
    httpStatus: 200,
    attempts: [
      {
        physicalModelId: pmId,
        tier: 0,
        result: 1,
        httpStatus: 200,
        startUs: 55,
        durationUs: 812_345,
        kind: 1,
        firstByteUs: 300_068,
        firstContentUs: 301_401,
        detail: "",
        credits: RATE * BigInt(inputTokens + OUTPUT_TOKENS),
      },
    ],
    arriveUnixUs: Date.now() * 1000,
    firstByteUs: 300_123,
    firstContentUs: 301_456,
    durationUs: 812_500,
    upstreamRequestId: "req_0123456789abcdef0123456789abcdef",
    errorCode: "",
  };
}

export function intentOf({
  id,
  veId,
  accessKeyId,
  logicalModelId,
  logicalModel,
  endpoint,
  arriveUnixUs,
}: Settlement): Intent {
  return { id, veId, accessKeyId, logicalModelId, logicalModel, endpoint, arriveUnixUs };
}

export function progressOf({ id, physicalModelId, priceId, units, credits }: Settlement): Progress {
  return { id, physicalModelId, priceId, units, credits };
}
