/**
 * PURE: what a report of a node means. Records are checked and priced one by one; one that cannot be billed is set aside
 * with a reason and never holds up the rest.
 */

import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { METER_SLOTS, type UnitQuantity, UnitSource } from "../../core/meters.ts";
import { type CompiledPrice, priceUsage } from "../../core/pricing.ts";

/** No id of ours is longer; a longer one in a record is no id. */
const ID_CHARS_MAX = 64;
/** Longer model names that clients send are cut for the request log. */
export const LOGICAL_MODEL_CHARS_MAX = 256;
/** More of one meter in one request is taken for an error of the node. */
export const QUANTITY_MAX = 1_000_000_000_000;
/**
 * Costlier requests are taken for an error: a price is below 1e9 Credits, so what is real stays below. A hundred million of
 * the costliest still fit numeric(38,12).
 */
export const RECORD_CREDITS_MAX: Credits = parseCredits("1000000000000000000");
/** Larger records are not decoded. */
export const RECORD_BYTES_MAX = 65_536;
const DAY_US = 86_400_000_000;
/** 2000-01-01 and 2200-01-01: arrivals outside come from a clock that was never set. */
const ARRIVE_US_MIN = 946_684_800_000_000;
const ARRIVE_US_MAX = 7_258_118_400_000_000;

/** What the ledger needs of a decoded UsageRecord; the rest stays in its bytes. */
export interface Usage {
  readonly recordNo: bigint;
  readonly id: string;
  readonly veId: string;
  readonly accessKeyId: string;
  readonly logicalModel: string;
  readonly physicalModelId: string;
  /** Empty: none served, costs nothing. */
  readonly priceId: string;
  readonly units: readonly UnitQuantity[];
  /** What the node computed. */
  readonly nodeCredits: string;
  readonly arriveUs: number;
}

/** A record that is billed. */
export interface PricedUsage extends Usage {
  readonly merchantId: string;
  /** What it costs, by our figure. */
  readonly credits: Credits;
  readonly body: Uint8Array;
}

/** A record that is not billed but kept. */
export interface Quarantined {
  readonly recordNo: bigint;
  readonly reason: QuarantineReason;
  readonly body: Uint8Array;
}

export type QuarantineReason =
  | "undecodable"
  | "too_large"
  | "record_no"
  | "bad_id"
  | "bad_units"
  | "bad_time"
  | "unknown_ve"
  | "unknown_price"
  | "excessive";

export interface KnownPrice {
  readonly merchantId: string;
  readonly price: CompiledPrice;
}

/** What the control plane knows that records refer to. */
export interface Known {
  /** Merchant by VE, deleted VEs included. */
  readonly merchants: ReadonlyMap<string, string>;
  readonly prices: ReadonlyMap<string, KnownPrice>;
}

/** A decoded record, or why there is none. */
export interface IncomingRecord {
  readonly body: Uint8Array;
  readonly usage: Usage | "undecodable" | "too_large";
}

export interface Mismatch {
  readonly id: string;
  readonly priceId: string;
  readonly node: string;
  readonly ours: string;
}

export interface Sorted {
  readonly priced: readonly PricedUsage[];
  readonly quarantined: readonly Quarantined[];
  /** Records whose figure differs from the node's; they are billed by ours. */
  readonly mismatches: readonly Mismatch[];
}

const ID = /^[\x21-\x7e]*$/;

function isId(text: string): boolean {
  return text.length <= ID_CHARS_MAX && ID.test(text);
}

function areUnits(units: readonly UnitQuantity[]): boolean {
  const seen = new Set<number | string>();
  for (const { meter, quantity, size, quality } of units) {
    if (!Number.isSafeInteger(quantity) || quantity < 0 || quantity > QUANTITY_MAX) return false;
    if (!(meter >= 1 && meter < METER_SLOTS)) return false;
    // Images of several sizes may come from one request.
    const key = size === undefined && quality === undefined ? meter : `${meter}\n${size ?? ""}\n${quality ?? ""}`;
    if (seen.has(key)) return false;
    seen.add(key);
  }
  return true;
}

function fault(usage: Usage, expectedNo: bigint): QuarantineReason | null {
  if (usage.recordNo !== expectedNo) return "record_no";
  const ids = [usage.veId, usage.accessKeyId, usage.physicalModelId, usage.priceId];
  if (usage.id === "" || !isId(usage.id) || !ids.every(isId)) return "bad_id";
  if (!areUnits(usage.units)) return "bad_units";
  if (!Number.isSafeInteger(usage.arriveUs) || usage.arriveUs < ARRIVE_US_MIN || usage.arriveUs >= ARRIVE_US_MAX)
    return "bad_time";
  return null;
}

/** PostgreSQL's text has no NUL; a lone surrogate cannot occur in decoded UTF-8 but a cut could make one. */
function cleanName(name: string): string {
  let cut = name;
  if (name.length > LOGICAL_MODEL_CHARS_MAX) {
    // Characters are code points, as in the schema's limits; each is at most two units.
    cut = [...name.slice(0, LOGICAL_MODEL_CHARS_MAX * 2)].slice(0, LOGICAL_MODEL_CHARS_MAX).join("");
  }
  return cut.replaceAll("\0", "\ufffd").toWellFormed();
}

/** Our figure, or why there is none. A price of another merchant is as good as unknown. */
function priceOf(usage: Usage, merchantId: string, prices: Known["prices"]): Credits | QuarantineReason {
  if (usage.priceId === "") return 0n;
  const known = prices.get(usage.priceId);
  if (known === undefined || known.merchantId !== merchantId) return "unknown_price";
  const credits = priceUsage(known.price, usage.units);
  return credits > RECORD_CREDITS_MAX ? "excessive" : credits;
}

function differs(nodeCredits: string, ours: Credits): boolean {
  if (nodeCredits === formatCredits(ours)) return false;
  try {
    return parseCredits(nodeCredits === "" ? "0" : nodeCredits) !== ours;
  } catch {
    return true;
  }
}

/** Sorts the records of a report, the first of which has the number `firstNo`. */
export function sortRecords(firstNo: bigint, records: readonly IncomingRecord[], known: Known): Sorted {
  const priced: PricedUsage[] = [];
  const quarantined: Quarantined[] = [];
  const mismatches: Mismatch[] = [];
  for (const [index, { body, usage }] of records.entries()) {
    const recordNo = firstNo + BigInt(index);
    const keep = (reason: QuarantineReason) => quarantined.push({ recordNo, reason, body });
    if (typeof usage === "string") {
      keep(usage);
      continue;
    }
    const wrong = fault(usage, recordNo);
    const merchantId = known.merchants.get(usage.veId);
    if (wrong !== null || merchantId === undefined) {
      keep(wrong ?? "unknown_ve");
      continue;
    }
    const credits = priceOf(usage, merchantId, known.prices);
    if (typeof credits === "string") {
      keep(credits);
      continue;
    }
    if (differs(usage.nodeCredits, credits)) {
      mismatches.push({
        id: usage.id,
        priceId: usage.priceId,
        node: usage.nodeCredits.slice(0, 64),
        ours: formatCredits(credits),
      });
    }
    priced.push({ ...usage, logicalModel: cleanName(usage.logicalModel), merchantId, credits, body });
  }
  return { priced, quarantined, mismatches };
}

/** What the records of each VE cost together. */
export function spendByVe(priced: readonly PricedUsage[]): Map<string, Credits> {
  const sums = new Map<string, Credits>();
  for (const { veId, credits } of priced) sums.set(veId, (sums.get(veId) ?? 0n) + credits);
  return sums;
}

/** One row of the daily rollup, or what is added to one. */
export interface DailyUsage {
  readonly merchantId: string;
  readonly veId: string;
  /** Days since 1970, UTC, of arrival. */
  readonly day: number;
  readonly logicalModel: string;
  readonly physicalModelId: string;
  readonly accessKeyId: string;
  requests: number;
  estimatedRequests: number;
  credits: Credits;
  /** By meter number; index 0 is not used. */
  readonly units: bigint[];
}

export function dayOf(arriveUs: number): number {
  return Math.floor(arriveUs / DAY_US);
}

const NO_UNITS: readonly bigint[] = Array.from({ length: METER_SLOTS }, () => 0n);

/** Adds records up by VE, day, model, Physical Model and key. */
export function rollUp(priced: readonly PricedUsage[]): DailyUsage[] {
  const rows = new Map<string, DailyUsage>();
  for (const usage of priced) {
    const { merchantId, veId, logicalModel, physicalModelId, accessKeyId } = usage;
    const day = dayOf(usage.arriveUs);
    const key = `${veId}\0${day}\0${physicalModelId}\0${accessKeyId}\0${logicalModel}`;
    let row = rows.get(key);
    if (row === undefined) {
      const units = NO_UNITS.slice();
      row = {
        merchantId,
        veId,
        day,
        logicalModel,
        physicalModelId,
        accessKeyId,
        requests: 0,
        estimatedRequests: 0,
        credits: 0n,
        units,
      };
      rows.set(key, row);
    }
    row.requests += 1;
    if (usage.units.some(({ source }) => source === UnitSource.ESTIMATED)) row.estimatedRequests += 1;
    row.credits += usage.credits;
    for (const { meter, quantity } of usage.units) row.units[meter]! += BigInt(quantity);
  }
  return [...rows.values()];
}

/** When each key was last used, in microseconds; a key counts only with the VE it was used for. */
export function lastUses(priced: readonly PricedUsage[]): { keyId: string; veId: string; usedUs: number }[] {
  const uses = new Map<string, { keyId: string; veId: string; usedUs: number }>();
  for (const { accessKeyId: keyId, veId, arriveUs } of priced) {
    const key = `${keyId}\0${veId}`;
    const use = uses.get(key);
    if (use === undefined) uses.set(key, { keyId, veId, usedUs: arriveUs });
    else if (arriveUs > use.usedUs) use.usedUs = arriveUs;
  }
  return [...uses.values()];
}

/** Where a boot's reports have come to. */
export interface BootCursor {
  readonly lastSeq: bigint;
  readonly lastRecordNo: bigint;
}

/** What to do with a report, by its numbers alone. A report without records needs no record number. */
export function placeReport(
  cursor: BootCursor,
  seq: bigint,
  firstRecordNo: bigint,
  records: number,
): "apply" | "duplicate" | "gap" {
  if (seq <= cursor.lastSeq) return "duplicate";
  if (seq !== cursor.lastSeq + 1n) return "gap";
  if (records > 0 && firstRecordNo !== cursor.lastRecordNo + 1n) return "gap";
  return "apply";
}
