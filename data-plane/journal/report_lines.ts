/** PURE. The lines of a report and its answer: what the wallets say and hear <-> the wire. */

import { type Credits, formatCredits, minCredits, parseCredits } from "../../core/credits.ts";
import type {
  LeaseState,
  LimitState,
  ReportUsageRequest,
  ReportUsageResponse,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { limitAccount, type LimitKind, limitOf } from "../budget/accounts.ts";
import { WalletState } from "../budget/wallet.ts";
import type { LeaseAnswer, LeaseLine } from "../budget/wallet_link.ts";
import type { JournalRecord } from "./journal_records.ts";

/** More than any account can hold, and less than the wire can carry. */
const AMOUNT_MAX: Credits = parseCredits("9999999999999999999999999");

function text(amount: Credits): string {
  return amount > 0n ? formatCredits(minCredits(amount, AMOUNT_MAX)) : "";
}

function amount(decimal: string): Credits {
  return parseCredits(decimal === "" ? "0" : decimal);
}

function figures({ spent, reserved, want, release, need, burn }: LeaseLine) {
  return {
    spent: text(spent),
    reserved: text(reserved),
    want: text(want),
    release: text(release),
    need: text(need),
    burn: text(burn),
  };
}

type Lines = Pick<ReportUsageRequest, "leases" | "limits">;

/** The lines of wallets and those of limits. */
export function requestLines(lines: readonly LeaseLine[]): {
  leases: Omit<Lines["leases"][number], "$typeName">[];
  limits: Omit<Lines["limits"][number], "$typeName">[];
} {
  const leases = [];
  const limits = [];
  for (const line of lines) {
    const limit = limitOf(line.account);
    if (limit === null) leases.push({ veId: line.account, ...figures(line) });
    else limits.push({ physicalModelId: limit.pmId, kind: limit.kind, ...figures(line) });
  }
  return { leases, limits };
}

function leaseAnswer({ veId, granted, ttlMs, state, creditRemaining }: LeaseState): LeaseAnswer {
  return {
    account: veId,
    granted: amount(granted),
    ttlMs: Number(ttlMs),
    state,
    creditRemaining: amount(creditRemaining),
    resetAt: 0,
  };
}

function limitAnswer({ physicalModelId, kind, granted, ttlMs, exhausted, resetUnixMs }: LimitState): LeaseAnswer {
  return {
    account: limitAccount(physicalModelId, kind as number as LimitKind),
    granted: amount(granted),
    ttlMs: Number(ttlMs),
    state: exhausted ? WalletState.EXHAUSTED : WalletState.OK,
    creditRemaining: null,
    resetAt: Number(resetUnixMs),
  };
}

export function answersOf({ leases, limits }: ReportUsageResponse): LeaseAnswer[] {
  return [...leases.map(leaseAnswer), ...limits.map(limitAnswer)];
}

/** What records after `ackedNo` cost, by VE. */
export function spentByVe(records: readonly JournalRecord[], ackedNo: number): Map<string, Credits> {
  const spent = new Map<string, Credits>();
  for (const { recordNo, veId, credits } of records) {
    if (recordNo > ackedNo && veId !== "") spent.set(veId, (spent.get(veId) ?? 0n) + credits);
  }
  return spent;
}
