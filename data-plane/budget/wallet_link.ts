/** What passes between the wallets and the reporter. Amounts as in accounts.ts. */

import type { Credits } from "../../core/credits.ts";
import type { WalletBalance } from "./budget.ts";

/** What one report says of one account. Amounts as in `tokenbill.node.v1.LeaseRequest` and `LimitRequest`. */
export interface LeaseLine {
  /** See accounts.ts. */
  readonly account: string;
  readonly spent: Credits;
  readonly reserved: Credits;
  readonly want: Credits;
  readonly release: Credits;
  readonly need: Credits;
  readonly burn: Credits;
}

/** What an answer says of one account. */
export interface LeaseAnswer {
  readonly account: string;
  readonly granted: Credits;
  readonly ttlMs: number;
  /** Of a limit: OK or EXHAUSTED. */
  readonly state: number;
  /** Null: not told, as of limits. */
  readonly creditRemaining: Credits | null;
  /** When a limit counts from 0 again, by the clock of the wallets; 0: never, or it is a wallet. */
  readonly resetAt: number;
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
