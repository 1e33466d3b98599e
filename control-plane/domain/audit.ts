/** PURE: the invariants of the money, checked at one moment. */

import { type Credits, formatCredits } from "../../core/credits.ts";
import { available, remaining, type WalletRow } from "./wallet.ts";

/** Everything that is known to be checked: metrics show each of them, also while it holds. */
export const INVARIANTS = {
  escrowed: "escrowed = sum of open leases",
  daily: "settled = sum of daily usage",
  events: "settled = sum of usage events",
  requests: "requests of daily usage = usage events",
  usage: "settled = usage transfers",
  purchased: "purchased = adjustment and payment transfers",
  payments: "granted less taken back = payment transfers",
  debt: "debt = debt transfers",
  remaining: "remaining = balance of the wallet account",
  balanced: "sum of debits = sum of credits",
  available: "available >= 0",
  limits: "leased = sum of limit leases",
  wallets: "every VE has its wallet",
  duplicates: "usage events are unique",
  records: "every reported record is kept once",
  paid: "every fulfilled payment has its transfer",
  cause: "every transfer has its cause",
  references: "references are unique",
} as const;

export type Invariant = (typeof INVARIANTS)[keyof typeof INVARIANTS];

/** What an hourly audit checks; a deep one checks all. */
export const QUICK_INVARIANTS: readonly Invariant[] = [
  INVARIANTS.escrowed,
  INVARIANTS.daily,
  INVARIANTS.usage,
  INVARIANTS.purchased,
  INVARIANTS.payments,
  INVARIANTS.debt,
  INVARIANTS.remaining,
  INVARIANTS.balanced,
  INVARIANTS.available,
  INVARIANTS.limits,
  INVARIANTS.wallets,
];

export const ALL_INVARIANTS: readonly Invariant[] = Object.values(INVARIANTS);

/** What went into each account of a VE less what left it. */
export interface LedgerSums {
  readonly wallet: Credits;
  readonly usage: Credits;
  readonly debt: Credits;
  readonly adjustment: Credits;
  readonly payment: Credits;
}

/** Everything that must agree with a wallet, all read at one moment. */
export interface WalletEvidence {
  readonly veId: string;
  readonly wallet: WalletRow;
  /** Sum of the open leases. */
  readonly leases: Credits;
  /** Sum of the daily rollups. */
  readonly daily: Credits;
  /** What its payments granted, less what refunds and disputes took back. */
  readonly paid: Credits;
  readonly ledger: LedgerSums;
}

/** The usage events of a VE, all of them at one moment, beside its daily rollups. */
export interface EventEvidence {
  readonly veId: string;
  readonly settled: Credits;
  readonly credits: Credits;
  readonly events: bigint;
  readonly dailyRequests: bigint;
  /** Events beyond the first of one record. */
  readonly duplicates: bigint;
}

/** The records of one boot up to the cursor `last`, wherever they were put: usage events and quarantine. */
export interface RecordEvidence {
  readonly bootId: string;
  readonly last: bigint;
  readonly records: bigint;
  /** Sum of their numbers. */
  readonly numbers: bigint;
}

export interface AuditBreak {
  readonly invariant: Invariant;
  /** A VE, a boot, a reference, or a limit as `<physical model>/<kind>`. */
  readonly subject: string;
  readonly expected: string;
  readonly found: string;
}

/** What is broken; empty when everything agrees. */
export function auditWallet({ veId, wallet, leases, daily, paid, ledger }: WalletEvidence): AuditBreak[] {
  const breaks: AuditBreak[] = [];
  const same = (invariant: Invariant, expected: Credits, found: Credits): void => {
    if (expected === found) return;
    breaks.push({ invariant, subject: veId, expected: formatCredits(expected), found: formatCredits(found) });
  };
  same(INVARIANTS.escrowed, leases, wallet.escrowed);
  same(INVARIANTS.daily, daily, wallet.settled);
  same(INVARIANTS.usage, ledger.usage, wallet.settled);
  same(INVARIANTS.purchased, -(ledger.adjustment + ledger.payment), wallet.purchased);
  same(INVARIANTS.payments, paid, -ledger.payment);
  same(INVARIANTS.debt, -ledger.debt, wallet.debt);
  same(INVARIANTS.remaining, ledger.wallet, remaining(wallet));
  const { usage, debt, adjustment, payment } = ledger;
  same(INVARIANTS.balanced, 0n, ledger.wallet + usage + debt + adjustment + payment);
  const left = available(wallet);
  if (left < 0n)
    breaks.push({ invariant: INVARIANTS.available, subject: veId, expected: "0", found: formatCredits(left) });
  return breaks;
}

/** What is broken between a VE's events and the sums of them. */
export function auditEvents(evidence: EventEvidence): AuditBreak[] {
  const { veId, settled, credits, events, dailyRequests, duplicates } = evidence;
  const breaks: AuditBreak[] = [];
  const same = (invariant: Invariant, expected: string, found: string): void => {
    if (expected !== found) breaks.push({ invariant, subject: veId, expected, found });
  };
  same(INVARIANTS.events, formatCredits(credits), formatCredits(settled));
  same(INVARIANTS.requests, String(events), String(dailyRequests));
  same(INVARIANTS.duplicates, "0", String(duplicates));
  return breaks;
}

/**
 * Whether the records 1 … `last` of a boot are there, each once. Count and sum together: one that is lost and another that
 * is there twice would go unnoticed by either alone.
 */
export function auditRecords({ bootId, last, records, numbers }: RecordEvidence): AuditBreak[] {
  const sum = (last * (last + 1n)) / 2n;
  if (records === last && numbers === sum) return [];
  const show = (count: bigint, total: bigint): string => `${count} records, their numbers add up to ${total}`;
  const broken = { expected: show(last, sum), found: show(records, numbers) };
  return [{ invariant: INVARIANTS.records, subject: bootId, ...broken }];
}
