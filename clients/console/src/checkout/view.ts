/** PURE: what the page shows, from the session's state and from what happened in this tab. */

import { CheckoutState } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import type { StartPaymentResponse } from "../../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";

/** What the payer has to do, as StartPayment has answered it in this tab; a reload forgets it. */
export type Action = StartPaymentResponse["action"];

export type View =
  /** Packs and ways to pay; `declined` says that the last payment failed. */
  | { readonly kind: "choose"; readonly declined: boolean; readonly instead: boolean }
  | { readonly kind: "scan"; readonly text: string }
  /** On the way to the processor's page. */
  | { readonly kind: "leaving" }
  /** WeChat's own window is open, or was. */
  | { readonly kind: "wechat" }
  /** A payment was started, and what there is to do for it is not known here. */
  | { readonly kind: "waiting" }
  | { readonly kind: "settling" }
  | { readonly kind: "problem" }
  | { readonly kind: "success" }
  | { readonly kind: "expired" }
  | { readonly kind: "canceled" }
  | { readonly kind: "refunded"; readonly partly: boolean }
  | { readonly kind: "disputed" }
  /** A state of a newer release. */
  | { readonly kind: "unknown" };

export interface Tab {
  readonly action: Action;
  /** The payer wants another pack or way to pay while a payment waits. */
  readonly choosing: boolean;
}

export const EMPTY_TAB: Tab = { action: { case: undefined }, choosing: false };

function pendingView({ action, choosing }: Tab): View {
  if (choosing) return { kind: "choose", declined: false, instead: true };
  switch (action.case) {
    case "qrCode":
      return { kind: "scan", text: action.value };
    case "redirectUrl":
      return { kind: "leaving" };
    case "wechatPay":
      return { kind: "wechat" };
    default:
      return { kind: "waiting" };
  }
}

export function viewOf(session: { readonly state: CheckoutState; readonly problem: string }, tab: Tab): View {
  switch (session.state) {
    case CheckoutState.OPEN:
      return { kind: "choose", declined: false, instead: false };
    case CheckoutState.FAILED:
      return { kind: "choose", declined: true, instead: false };
    case CheckoutState.PENDING:
      return pendingView(tab);
    case CheckoutState.PAID:
      return { kind: session.problem === "" ? "settling" : "problem" };
    case CheckoutState.FULFILLED:
      return { kind: "success" };
    case CheckoutState.EXPIRED:
      return { kind: "expired" };
    case CheckoutState.CANCELED:
      return { kind: "canceled" };
    case CheckoutState.REFUNDED:
      return { kind: "refunded", partly: false };
    case CheckoutState.PARTIALLY_REFUNDED:
      return { kind: "refunded", partly: true };
    case CheckoutState.DISPUTED:
      return { kind: "disputed" };
    default:
      return { kind: "unknown" };
  }
}

/** Whether nothing more is to come of it for the payer: a link that is followed again opens a new session. */
export function isOver(state: CheckoutState): boolean {
  const going: readonly CheckoutState[] = [
    CheckoutState.OPEN,
    CheckoutState.PENDING,
    CheckoutState.FAILED,
    CheckoutState.PAID,
  ];
  return !going.includes(state);
}

const FAST_MS = 1_000;
const FAST_FOR_MS = 90_000;
const SLOWER_MS = 2_000;
const SLOWER_FOR_MS = 300_000;
const SLOW_MS = 5_000;
/** After the session's end, until the server has noticed it too. */
const ENDED_MS = 15_000;
/** Longer than any session: what timers take. */
const TIMER_MS_MAX = 86_400_000;

/** How long until the session is read again, in ms; false: not by itself. `sinceMs`: how long it has been waited for. */
export function pollAfterMs(state: CheckoutState, sinceMs: number, expiresInMs: number): number | false {
  switch (state) {
    case CheckoutState.PENDING:
    case CheckoutState.PAID:
      return sinceMs < FAST_FOR_MS ? FAST_MS : sinceMs < SLOWER_FOR_MS ? SLOWER_MS : SLOW_MS;
    case CheckoutState.OPEN:
    case CheckoutState.FAILED:
      return Math.min(Math.max(expiresInMs + 1_000, ENDED_MS), TIMER_MS_MAX);
    default:
      return false;
  }
}

/** How often the processor is asked while a payment waits. */
export const CHECK_MS = 5_000;

/** Whether the processor is asked on landing: something was started, and money may have arrived. */
export function mayBePaid(session: { readonly state: CheckoutState; readonly payments: readonly unknown[] }): boolean {
  const may: readonly CheckoutState[] = [
    CheckoutState.PENDING,
    CheckoutState.PAID,
    CheckoutState.EXPIRED,
    CheckoutState.CANCELED,
  ];
  return session.payments.length > 0 && may.includes(session.state);
}
