/** PURE: the invariants of the money, checked for one wallet at one moment. */

import { type Credits, formatCredits } from "../../core/credits.ts";
import { available, remaining, type WalletRow } from "./wallet.ts";

/** Everything that must agree with a wallet, all read at one moment. */
export interface WalletEvidence {
  readonly veId: string;
  readonly wallet: WalletRow;
  /** Sum of the open leases. */
  readonly leases: Credits;
  /** Sum of the daily rollups. */
  readonly daily: Credits;
  /** Sum of the usage events; null when they were not read. */
  readonly events: Credits | null;
  /** Transfers into the `wallet` account, less those out of it. */
  readonly ledger: Credits;
  /** Transfers from `wallet` to `usage`. */
  readonly ledgerUsage: Credits;
  /** Transfers out of `debt`, less those into it. */
  readonly ledgerDebt: Credits;
  /** Transfers out of `adjustment`, less those into it. */
  readonly ledgerPurchased: Credits;
}

export interface AuditBreak {
  readonly invariant: string;
  readonly veId: string;
  readonly expected: string;
  readonly found: string;
}

/** What is broken; empty when everything agrees. */
export function auditWallet(evidence: WalletEvidence): AuditBreak[] {
  const { veId, wallet, leases, daily, events, ledger, ledgerUsage, ledgerDebt, ledgerPurchased } = evidence;
  const breaks: AuditBreak[] = [];
  const same = (invariant: string, expected: Credits, found: Credits): void => {
    if (expected !== found)
      breaks.push({ invariant, veId, expected: formatCredits(expected), found: formatCredits(found) });
  };
  same("escrowed = sum of open leases", leases, wallet.escrowed);
  same("settled = sum of daily usage", daily, wallet.settled);
  if (events !== null) same("settled = sum of usage events", events, wallet.settled);
  same("settled = usage transfers", ledgerUsage, wallet.settled);
  same("purchased = adjustment transfers", ledgerPurchased, wallet.purchased);
  same("debt = debt transfers", ledgerDebt, wallet.debt);
  same("remaining = balance of the wallet account", ledger, remaining(wallet));
  if (available(wallet) < 0n)
    breaks.push({ invariant: "available >= 0", veId, expected: "0", found: formatCredits(available(wallet)) });
  return breaks;
}
