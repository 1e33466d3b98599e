/**
 * Which calls are open to whom, besides merchants and the operator. What is not named here is closed to payers and
 * strangers, whatever its handler does.
 */

/** To the secret of a Checkout Session, which opens that session alone. */
export const PAYER_CALLS: ReadonlySet<string> = new Set([
  "tokenbill.v1.CheckoutService/GetCheckoutSession",
  "tokenbill.v1.CheckoutService/StartPayment",
  "tokenbill.v1.CheckoutService/CheckPayment",
  "tokenbill.v1.CheckoutService/CancelCheckoutSession",
  "tokenbill.v1.AutoTopUpService/DeleteAutoTopUp",
]);

/** To anybody who sends no credentials at all. */
export const STRANGER_CALLS: ReadonlySet<string> = new Set(["tokenbill.v1.CheckoutService/CreateCheckoutSession"]);

/** What the secret of a Checkout Session begins with. */
export const PAYER_SECRET_PREFIX = "tbc_";

/** How long after a session expired its secret still opens it, so that payers can see what became of their money. */
export const PAYER_SECRET_KEEP_MS = 30 * 24 * 60 * 60 * 1000;
