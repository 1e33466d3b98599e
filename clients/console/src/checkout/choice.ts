/** PURE: what the payer chose, and what can be chosen. */

import {
  type CheckoutOffer,
  type CheckoutSession,
  type CreditPack,
  PaymentMethod,
  type PaymentMethodOffer,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";

export interface Choice {
  readonly packId: string;
  /** For packs with a custom amount; empty otherwise. */
  readonly amount: string;
  readonly accountId: string;
  readonly method: PaymentMethod;
  readonly autoTopUp: boolean;
}

/** What matters of the browser. */
export interface Browser {
  /** WeChat's own, on a phone: it pays without a QR code. */
  readonly wechat: boolean;
  readonly phone: boolean;
}

/** WeChat on a desktop cannot pay in its browser, so it counts as any other. */
export function browserOf(userAgent: string): Browser {
  const phone = /Android|iPhone|iPad|iPod|Mobile|HarmonyOS/i.test(userAgent);
  const desktop = /WindowsWechat|MacWechat/i.test(userAgent);
  return { wechat: /MicroMessenger/i.test(userAgent) && !desktop, phone: phone && !desktop };
}

/** The ways to pay that make sense on this page, in this browser, in this currency: each once, in the server's order. */
export function usableMethods(
  offers: readonly PaymentMethodOffer[],
  currency: string,
  browser: Browser,
): readonly PaymentMethodOffer[] {
  const has = (method: PaymentMethod): boolean => offers.some((offer) => offer.method === method);
  const works = ({ method }: PaymentMethodOffer): boolean => {
    switch (method) {
      case PaymentMethod.STRIPE_CHECKOUT:
      case PaymentMethod.SANDBOX:
        return true;
      case PaymentMethod.WECHAT_JSAPI:
        return browser.wechat;
      case PaymentMethod.WECHAT_NATIVE:
        return !(browser.wechat && has(PaymentMethod.WECHAT_JSAPI));
      default:
        return false; // Of Mini Programs, or without the payer.
    }
  };
  const usable = offers.filter(
    (offer) => works(offer) && (offer.currencies.length === 0 || offer.currencies.includes(currency)),
  );
  // Two accounts for the same way to pay would look the same: the first one is meant.
  const once = usable.filter((offer, i) => usable.findIndex(({ method }) => method === offer.method) === i);
  // Inside WeChat its own payment is what people expect first.
  const isFirst = ({ method }: PaymentMethodOffer): boolean => method === PaymentMethod.WECHAT_JSAPI;
  return [...once.filter(isFirst), ...once.filter((offer) => !isFirst(offer))];
}

/** Whether automatic top-ups can be agreed to with this pack and way to pay. */
export function canAutoTopUp(offer: CheckoutOffer, pack: CreditPack, method: PaymentMethodOffer | null): boolean {
  const { autoTopUp } = offer;
  if (autoTopUp === undefined || autoTopUp.enabled || method === null || !method.canSave) return false;
  return pack.customAmount === undefined && autoTopUp.dailyMax?.currency === pack.price?.currency;
}

/** The choice behind a session's newest payment: with it, the same payment is answered again. Null: nothing was chosen. */
export function choiceOf(session: CheckoutSession, offer: CheckoutOffer, kept: Choice | null): Choice | null {
  const payment = session.payments[session.payments.length - 1];
  if (payment === undefined) return kept;
  const { paymentAccountId: accountId, method } = payment;
  const packId = session.creditPackId;
  if (kept?.packId === packId && kept.accountId === accountId && kept.method === method) return kept;
  // Only packs whose amount can be chosen take one.
  const custom = offer.creditPacks.some((pack) => pack.id === packId && pack.customAmount !== undefined);
  return { packId, amount: custom ? (session.price?.amount ?? "") : "", accountId, method, autoTopUp: false };
}
