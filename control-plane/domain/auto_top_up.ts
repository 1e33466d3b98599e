/** PURE: when an automatic top-up buys, and what follows when that fails. */

import type { Credits } from "../../core/credits.ts";
import { CheckoutState } from "./checkout.ts";
import type { Money } from "./money.ts";

/** So many failures in a row switch it off. */
export const FAILURES_MAX = 3;
/** How long it rests after the first failure in a row, the second, and all others. */
export const RETRY_AFTER_MS: readonly number[] = [60_000, 600_000, 3_600_000];
/** How often it is looked what became of a charge that is under way. */
export const LOOK_AGAIN_MS = 10_000;
/**
 * A charge that was begun and is not heard of for so long is lost, with the process that began it. Far longer than asking a
 * processor takes.
 */
export const CHARGE_LOST_MS = 600_000;

/** Only the payer can mend it, at the processor: asking again is in vain. */
const NEEDS_PAYER: ReadonlySet<string> = new Set(["authentication_required"]);

/** What is charged is no longer what was agreed to: another currency, an open amount, or more than the daily maximum. */
export const PACK_CHANGED = "pack_changed";
/** Another purchase would be more than the daily maximum. It is no failure of the payment method. */
export const DAILY_MAX_REACHED = "daily_max_reached";

/** An automatic session, as it stands. */
export interface AutomaticSession {
  readonly id: string;
  readonly state: CheckoutState;
  /** In a word; empty: not known. */
  readonly failure: string;
  /** A payment of it has not ended: money may still come, whatever the session's state. */
  readonly unsettled: boolean;
  readonly createdAtMs: number;
}

export interface AutoTopUpFacts {
  /** A charge was begun of which nothing is known yet. */
  readonly charging: boolean;
  /** The newest automatic session whose end is known; null: none. */
  readonly lastSessionId: string | null;
  readonly savedAtMs: number;
  /** Neither VE nor merchant, pack nor account is disabled, and the VE is not frozen. */
  readonly open: boolean;
  readonly remaining: Credits;
  readonly threshold: Credits;
  /** What the pack costs; null: as much as the payer likes. */
  readonly price: Money | null;
  readonly dailyMax: Money;
  /** What automatic sessions of today have charged, or may still, in the currency of `dailyMax`. */
  readonly spentMinor: bigint;
  readonly dayEndMs: number;
  /** The newest automatic session of the VE. */
  readonly newest: AutomaticSession | null;
}

/**
 * `look`: a charge is under way. `failed`, `went_well`: so ended the last one. `capped`: not before tomorrow. `rest`: there
 * is nothing to do, and no charge under way.
 */
export type AutoTopUpStep =
  | { readonly kind: "look" }
  | { readonly kind: "failed"; readonly failure: string }
  | { readonly kind: "went_well" }
  | { readonly kind: "rest" }
  | { readonly kind: "capped"; readonly untilMs: number }
  | { readonly kind: "charge" };

/** How a session ended; null: it has not. */
export function endOf({ state, failure, unsettled }: AutomaticSession): "well" | { readonly failure: string } | null {
  switch (state) {
    case CheckoutState.FULFILLED:
    case CheckoutState.REFUNDED:
    case CheckoutState.PARTIALLY_REFUNDED:
    case CheckoutState.DISPUTED:
      return "well";
    case CheckoutState.FAILED:
      return unsettled ? null : { failure: failure || "declined" };
    case CheckoutState.EXPIRED:
      return unsettled ? null : { failure: failure || "expired" };
    case CheckoutState.CANCELED:
      return unsettled ? null : { failure: failure || "canceled" };
    default:
      return null;
  }
}

export function nextStep(facts: AutoTopUpFacts): AutoTopUpStep {
  const { newest, price, dailyMax } = facts;
  const end = newest === null ? "well" : endOf(newest);
  if (end === null) return { kind: "look" };
  // What a charge with an earlier payment method came to says nothing of this one.
  if (facts.charging && newest !== null && newest.id !== facts.lastSessionId && newest.createdAtMs >= facts.savedAtMs)
    return end === "well" ? { kind: "went_well" } : { kind: "failed", failure: end.failure };
  if (!facts.open || facts.remaining >= facts.threshold) return { kind: "rest" };
  if (price === null || price.currency !== dailyMax.currency || price.minor > dailyMax.minor)
    return { kind: "failed", failure: PACK_CHANGED };
  if (facts.spentMinor + price.minor > dailyMax.minor) return { kind: "capped", untilMs: facts.dayEndMs };
  return { kind: "charge" };
}

export interface AfterFailure {
  readonly failures: number;
  readonly enabled: boolean;
  readonly tryAtMs: number;
}

/** `failures` are those in a row before this one. */
export function afterFailure(failures: number, failure: string, nowMs: number): AfterFailure {
  const all = failures + 1;
  const restMs = RETRY_AFTER_MS[Math.min(failures, RETRY_AFTER_MS.length - 1)]!;
  return { failures: all, enabled: all < FAILURES_MAX && !NEEDS_PAYER.has(failure), tryAtMs: nowMs + restMs };
}

/** What is offered to payers of a merchant; null: automatic top-ups are not. */
export interface AutoTopUpTerms {
  readonly threshold: Credits;
  readonly dailyMax: Money;
}

/**
 * Why a pack cannot be bought automatically on these terms; null: it can. `price` is null for a pack whose amount the payer
 * chooses.
 */
export function unfit(
  price: Money | null,
  terms: AutoTopUpTerms | null,
): "not_offered" | "custom_amount" | "other_currency" | "above_daily_max" | null {
  if (terms === null) return "not_offered";
  if (price === null) return "custom_amount";
  if (price.currency !== terms.dailyMax.currency) return "other_currency";
  return price.minor > terms.dailyMax.minor ? "above_daily_max" : null;
}
