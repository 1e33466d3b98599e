/** PURE: which way a Checkout Session may go. */

import { DomainError } from "./errors.ts";

/** Numbers equal `tokenbill.v1.CheckoutState`. */
export const CheckoutState = {
  OPEN: 1,
  PENDING: 2,
  PAID: 3,
  FULFILLED: 4,
  EXPIRED: 5,
  FAILED: 6,
  CANCELED: 7,
  REFUNDED: 8,
  PARTIALLY_REFUNDED: 9,
  DISPUTED: 10,
} as const;
export type CheckoutState = (typeof CheckoutState)[keyof typeof CheckoutState];
export type CheckoutStateName = keyof typeof CheckoutState;

/** Numbers equal `tokenbill.v1.PaymentState`. */
export const PaymentState = { STARTING: 1, PENDING: 2, PAID: 3, FULFILLED: 4, FAILED: 5, CLOSED: 6 } as const;
export type PaymentState = (typeof PaymentState)[keyof typeof PaymentState];

/** Numbers equal `tokenbill.v1.RefundState`. */
export const RefundState = { PENDING: 1, SUCCEEDED: 2, FAILED: 3 } as const;
export type RefundState = (typeof RefundState)[keyof typeof RefundState];

/** Numbers equal `tokenbill.v1.PaymentProcessor`. */
export const PaymentProcessor = { STRIPE: 1, WECHAT_PAY: 2, SANDBOX: 3 } as const;
export type PaymentProcessor = (typeof PaymentProcessor)[keyof typeof PaymentProcessor];

/** Numbers equal `tokenbill.v1.PaymentMethod`. */
export const PaymentMethod = {
  STRIPE_CHECKOUT: 1,
  STRIPE_SAVED: 2,
  WECHAT_NATIVE: 3,
  WECHAT_JSAPI: 4,
  WECHAT_MINI_PROGRAM: 5,
  WECHAT_VIRTUAL: 6,
  SANDBOX: 7,
} as const;
export type PaymentMethod = (typeof PaymentMethod)[keyof typeof PaymentMethod];

/**
 * What can happen to a session. `paid`: money arrived, possibly a second time. `fulfil`: its Credits are in the wallet.
 * `refund_part`, `refund_all`: money went back. `dispute`: the payer asked their bank for it; `win`: in vain.
 */
export const CHECKOUT_EVENTS = [
  "start",
  "decline",
  "cancel",
  "expire",
  "paid",
  "fulfil",
  "refund_part",
  "refund_all",
  "dispute",
  "win",
] as const;
export type CheckoutMove = (typeof CHECKOUT_EVENTS)[number];

type Moves = Readonly<Partial<Record<CheckoutMove, CheckoutStateName>>>;

/** Money that arrives is never refused, whatever was before. */
const MOVES: Readonly<Record<CheckoutStateName, Moves>> = {
  OPEN: { start: "PENDING", cancel: "CANCELED", expire: "EXPIRED", paid: "PAID" },
  PENDING: { start: "PENDING", decline: "FAILED", cancel: "CANCELED", expire: "EXPIRED", paid: "PAID" },
  FAILED: { start: "PENDING", decline: "FAILED", cancel: "CANCELED", expire: "EXPIRED", paid: "PAID" },
  EXPIRED: { paid: "PAID" },
  CANCELED: { paid: "PAID" },
  PAID: {
    paid: "PAID",
    fulfil: "FULFILLED",
    refund_part: "PARTIALLY_REFUNDED",
    refund_all: "REFUNDED",
    dispute: "DISPUTED",
  },
  FULFILLED: {
    paid: "FULFILLED",
    fulfil: "FULFILLED",
    refund_part: "PARTIALLY_REFUNDED",
    refund_all: "REFUNDED",
    dispute: "DISPUTED",
  },
  PARTIALLY_REFUNDED: {
    paid: "PARTIALLY_REFUNDED",
    fulfil: "PARTIALLY_REFUNDED",
    refund_part: "PARTIALLY_REFUNDED",
    refund_all: "REFUNDED",
    dispute: "DISPUTED",
  },
  REFUNDED: { paid: "PARTIALLY_REFUNDED", fulfil: "REFUNDED", refund_all: "REFUNDED", dispute: "DISPUTED" },
  DISPUTED: {
    paid: "DISPUTED",
    fulfil: "DISPUTED",
    dispute: "DISPUTED",
    refund_part: "DISPUTED",
    refund_all: "REFUNDED",
    win: "FULFILLED",
  },
};

const NAMES = new Map<number, CheckoutStateName>(
  Object.entries(CheckoutState).map(([name, number]) => [number, name as CheckoutStateName]),
);

/** @throws RangeError for a number that is none of a state */
export function stateName(state: number): CheckoutStateName {
  const name = NAMES.get(state);
  if (name === undefined) throw new RangeError(`there is no Checkout Session state ${state}`);
  return name;
}

/** Where the move leads; null: it is not allowed. */
export function moved(state: CheckoutState, move: CheckoutMove): CheckoutState | null {
  const to = MOVES[stateName(state)][move];
  return to === undefined ? null : CheckoutState[to];
}

/** @throws DomainError wrong_state */
export function requireMove(state: CheckoutState, move: CheckoutMove): CheckoutState {
  const to = moved(state, move);
  if (to !== null) return to;
  const name = stateName(state);
  throw new DomainError("wrong_state", `the Checkout Session is ${name}, which does not allow this`, {
    metadata: { state: name },
  });
}

/** Whether the payer can still start a payment. */
export function isPayable(state: CheckoutState): boolean {
  return moved(state, "start") !== null;
}
