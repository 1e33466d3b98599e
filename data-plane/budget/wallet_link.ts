/** What passes between the wallets and the reporter. Amounts are picocredits. */

import type { Credits } from "../../core/credits.ts";
import type { WalletBalance } from "./budget.ts";

/** What one report says of one VE. Amounts as in `tokenbill.node.v1.LeaseRequest`. */
export interface LeaseLine {
  readonly veId: string;
  readonly spent: Credits;
  readonly reserved: Credits;
  readonly want: Credits;
  readonly release: Credits;
  readonly need: Credits;
}

/** What an answer says of one VE. */
export interface LeaseAnswer {
  readonly veId: string;
  readonly granted: Credits;
  readonly ttlMs: number;
  readonly state: number;
  readonly creditRemaining: Credits;
}

/** The reporter and the control plane, as the wallets see them. */
export interface WalletLink {
  /** A report is wanted: `need` and `recall` at once, `low` soon. */
  wake(reason: "need" | "recall" | "low"): void;
  /** Resolves when everything settled before the call has been reported, or after `timeoutMs`. Never rejects. */
  flush(timeoutMs: number): Promise<void>;
  /** Null if the control plane does not answer in time. Never rejects. */
  getWallet(veId: string, timeoutMs: number): Promise<(WalletBalance & { readonly state: number }) | null>;
}

/** Before a reporter is there, nothing can be asked. */
export const NO_LINK: WalletLink = {
  wake: () => undefined,
  flush: () => Promise.resolve(),
  getWallet: () => Promise.resolve(null),
};

/** Runs `fn` after `ms`; the returned function calls it off. */
export type Timer = (ms: number, fn: () => void) => () => void;
