/**
 * PURE: limits of Physical Models. A limit is kept like a wallet: it is leased to nodes, and what their records used is
 * counted. Amounts are exact decimals of Units or Credits, held as BigInt with 12 decimals.
 */

import { unitsOfKind, type UnitKind } from "../../core/meters.ts";
import { type Period, periodOf } from "../../core/periods.ts";
import type { PricedUsage } from "./report.ts";
import type { WalletRow } from "./wallet.ts";

/** Numbers equal `tokenbill.v1.LimitKind`. */
export const LimitKind = { UNITS: 1, CREDITS: 2 } as const;
export type LimitKind = (typeof LimitKind)[keyof typeof LimitKind];

/** What a merchant sets. */
export interface LimitTerms {
  readonly kind: LimitKind;
  /** 0 for a limit in Credits. */
  readonly unit: UnitKind | 0;
  /** 0: it never starts again. */
  readonly period: Period | 0;
  /** Above 0. */
  readonly amount: bigint;
}

export interface LimitAccount extends LimitTerms {
  readonly physicalModelId: string;
  readonly merchantId: string;
  readonly timeZone: string;
  /** What requests that arrived since `countsFromMs` used; may be more than `amount`. */
  readonly used: bigint;
  /** Sum of the leases. */
  readonly leased: bigint;
  readonly countsFromMs: number;
  /** When the count starts again; null: never. */
  readonly endsMs: number | null;
}

/** Names one limit: `<Physical Model>/<kind>`. */
export function limitKey(physicalModelId: string, kind: LimitKind): string {
  return `${physicalModelId}/${kind}`;
}

/**
 * The same as a wallet. Debt is what is used and leased beyond the amount, whether requests used it or the amount was
 * lowered; nothing can be granted while there is any.
 */
export function asWallet({ amount, used, leased }: LimitAccount): WalletRow {
  const over = used + leased - amount;
  return { purchased: amount, settled: used, escrowed: leased, debt: over > 0n ? over : 0n };
}

/** Nothing is left in this period: what nodes give back would not help either. */
export function isExhausted({ amount, used }: LimitAccount): boolean {
  return used >= amount;
}

function endOf(period: Period | 0, timeZone: string, nowMs: number): number | null {
  return period === 0 ? null : periodOf(period, timeZone, nowMs).endMs;
}

export interface LimitOwner {
  readonly physicalModelId: string;
  readonly merchantId: string;
  readonly timeZone: string;
}

/** A limit that counts from now on. */
export function newLimit(owner: LimitOwner, terms: LimitTerms, nowMs: number): LimitAccount {
  const endsMs = endOf(terms.period, owner.timeZone, nowMs);
  return { ...owner, ...terms, used: 0n, leased: 0n, countsFromMs: nowMs, endsMs };
}

/** The account as of now: in a new period nothing is used yet. Leases stay and count, since nodes may still use them. */
export function rollOver(account: LimitAccount, nowMs: number): LimitAccount {
  const { period, timeZone, endsMs } = account;
  if (endsMs === null || period === 0 || nowMs < endsMs) return account;
  const present = periodOf(period, timeZone, nowMs);
  return { ...account, used: 0n, countsFromMs: present.startMs, endsMs: present.endMs };
}

/**
 * New terms. Only another amount keeps the count. Another kind of Unit ends the leases as well, which were in the old
 * one: the caller deletes them when `leased` is 0 afterwards.
 */
export function changeLimit(account: LimitAccount, terms: LimitTerms, nowMs: number): LimitAccount {
  const present = rollOver(account, nowMs);
  const sameUnit = terms.unit === account.unit;
  if (sameUnit && terms.period === account.period) return { ...present, amount: terms.amount };
  return { ...newLimit(account, terms, nowMs), leased: sameUnit ? account.leased : 0n };
}

/** The period ends as the new time zone says; what was used stays counted. */
export function moveLimit(account: LimitAccount, timeZone: string, nowMs: number): LimitAccount {
  const present = rollOver(account, nowMs);
  return { ...present, timeZone, endsMs: endOf(present.period, timeZone, nowMs) };
}

/** What one record uses of a limit. */
export function useOf({ kind, unit }: LimitTerms, usage: Pick<PricedUsage, "units" | "credits">): bigint {
  return kind === LimitKind.CREDITS || unit === 0 ? usage.credits : unitsOfKind(usage.units, unit);
}

export interface LimitUse {
  /** By requests that arrived in the present period. */
  readonly counted: bigint;
  /** By those that arrived before it; their lease shrinks all the same. */
  readonly late: bigint;
}

/** Records by the Physical Model that they are billed for. */
export function byModel(records: readonly PricedUsage[]): Map<string, PricedUsage[]> {
  const map = new Map<string, PricedUsage[]>();
  for (const record of records) {
    const list = map.get(record.physicalModelId);
    if (list === undefined) map.set(record.physicalModelId, [record]);
    else list.push(record);
  }
  return map;
}

/**
 * What these records of its Physical Model use of a limit. Those of another merchant use nothing. When the count began in
 * the future, by the clock of a replica that was ahead, everything counts: or nothing would until then.
 */
export function sumUse(account: LimitAccount, records: readonly PricedUsage[], nowMs: number): LimitUse {
  const fromUs = nowMs < account.countsFromMs ? 0 : account.countsFromMs * 1000;
  let counted = 0n;
  let late = 0n;
  for (const record of records) {
    if (record.merchantId !== account.merchantId) continue;
    const use = useOf(account, record);
    if (record.arriveUs >= fromUs) counted += use;
    else late += use;
  }
  return { counted, late };
}
