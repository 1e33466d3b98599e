/** What a payer chose, held against what is offered. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import type { StartPaymentRequest } from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import type { CheckoutDeps, Choice } from "../checkout/deps.ts";
import { unfit } from "../domain/auto_top_up.ts";
import { PaymentMethod, PaymentProcessor, requireMove } from "../domain/checkout.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { proportion } from "../domain/money.ts";
import { offeredTerms } from "../store/checkout_settings.ts";
import type { CheckoutSessionRow } from "../store/checkout_session.ts";
import { type CheckoutVeRow, findCheckoutVe } from "../store/checkout_ve.ts";
import { type PaymentAccountRow, sandboxAccount } from "../store/payment_account.ts";
import {
  closedBecause,
  EXAMPLE_PACKS,
  loadOffered,
  type Offered,
  type OfferedMethod,
  sellerOf,
} from "./checkout_offer.ts";
import type { SoldPack } from "./credit_pack_wire.ts";
import { checkBounds, readAmount } from "./money_fields.ts";

const NEEDS_CODE: readonly PaymentMethod[] = [
  PaymentMethod.WECHAT_JSAPI,
  PaymentMethod.WECHAT_MINI_PROGRAM,
  PaymentMethod.WECHAT_VIRTUAL,
];

function wrongState(state: string, message: string): DomainError {
  return new DomainError("wrong_state", message, { metadata: { state } });
}

/** Whether a session can still be paid. @throws DomainError wrong_state */
export function checkPayable(session: CheckoutSessionRow, nowMs: number): void {
  requireMove(session.state, "start");
  if (session.expires_at.getTime() <= nowMs)
    throw wrongState("EXPIRED", "the Checkout Session is EXPIRED: create another one");
  if (session.automatic)
    throw wrongState("AUTOMATIC", "the Checkout Session was made by an automatic top-up, which pays it by itself");
}

/** The VE if something can be bought for it. @throws DomainError wrong_state */
function requireOpen(ve: CheckoutVeRow | null): CheckoutVeRow {
  const closed = closedBecause(ve);
  if (ve !== null && closed === null) return ve;
  throw wrongState(closed ?? "deleted", `the VE cannot be topped up now: it is ${closed}`);
}

interface Bought {
  readonly amountMinor: bigint;
  readonly credits: Credits;
  readonly bonus: Credits;
}

/** @throws DomainError invalid_field */
function buy(pack: SoldPack, amount: string): Bought {
  const [credits, bonus] = [parseCredits(pack.credits), parseCredits(pack.bonus)];
  const { currency, amount_minor: price, min_minor: min, max_minor: max } = pack;
  if (min === null || max === null) {
    if (amount === "" || readAmount(currency, amount, "amount") === price)
      return { amountMinor: price, credits, bonus };
    throw invalidField("amount", "this CreditPack has a fixed price: leave it empty", "fixed_price");
  }
  if (amount === "") throw invalidField("amount", "say how much: this CreditPack leaves it to the payer", "required");
  const amountMinor = readAmount(currency, amount, "amount");
  checkBounds(currency, amountMinor, min, max, "amount");
  return {
    amountMinor,
    credits: proportion(credits, amountMinor, price),
    bonus: proportion(bonus, amountMinor, price),
  };
}

/** @throws DomainError invalid_field */
function chooseMethod({ methods }: Offered, request: StartPaymentRequest, pack: SoldPack): OfferedMethod {
  const ofAccount = methods.filter(
    ({ accountId, account }) => accountId === request.paymentAccountId || account?.id === request.paymentAccountId,
  );
  if (ofAccount.length === 0)
    throw invalidField("payment_account_id", "is not among the payment methods that are offered", "not_offered");
  const chosen = ofAccount.find(({ method }) => method === Number(request.method));
  if (chosen === undefined) throw invalidField("method", "is not offered with this account", "not_offered");
  if (chosen.currencies.length > 0 && !chosen.currencies.includes(pack.currency))
    throw invalidField("method", `does not take ${pack.currency}: choose another way to pay`, "currency");
  if (NEEDS_CODE.includes(chosen.method) && request.wechatCode === "")
    throw invalidField("wechat_code", "WeChat's code is required for this way to pay", "required");
  return chosen;
}

/** @throws DomainError invalid_field */
function checkAutoTopUp(ve: CheckoutVeRow, session: CheckoutSessionRow, pack: SoldPack, method: OfferedMethod): void {
  const refuse = (text: string, rule: string): DomainError => invalidField("auto_top_up", text, rule);
  if (!ve.auto_top_up_offered || !session.linked) throw refuse("automatic top-ups are not offered here", "not_offered");
  if (!method.canSave) throw refuse("this way to pay cannot be saved: choose another one", "cannot_save");
  const isFixed = pack.min_minor === null && !EXAMPLE_PACKS.includes(pack);
  const why = unfit(isFixed ? { currency: pack.currency, minor: pack.amount_minor } : null, offeredTerms(ve));
  if (why === "custom_amount")
    throw refuse("they need a CreditPack with a fixed price, made by the merchant", "fixed_price");
  if (why !== null) throw refuse("this CreditPack costs more than the most that may be charged in a day", "daily_max");
}

/** The sandbox's account is made when it is first used. */
async function accountOf(
  deps: CheckoutDeps,
  merchantId: string,
  { account }: OfferedMethod,
): Promise<PaymentAccountRow> {
  return account ?? sandboxAccount(deps.db, merchantId, deps.newId("pay_"), new Date(deps.now()));
}

/**
 * `clientAddress`: the payer's; empty: not known.
 * @throws DomainError wrong_state, invalid_field that names the field at fault
 */
export async function choose(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  request: StartPaymentRequest,
  clientAddress: string,
): Promise<Choice> {
  const ve = requireOpen(await findCheckoutVe(deps.db, session.ve_id));
  const offered = await loadOffered(deps, deps.db, ve);
  const pack = offered.packs.find(({ id }) => id === request.creditPackId);
  if (pack === undefined) throw invalidField("credit_pack_id", "is not offered for this VE", "not_offered");
  const bought = buy(pack, request.amount);
  const method = chooseMethod(offered, request, pack);
  if (EXAMPLE_PACKS.includes(pack) && method.processor !== PaymentProcessor.SANDBOX)
    throw invalidField("credit_pack_id", "an example is sold for no real money", "not_offered");
  if (request.autoTopUp) checkAutoTopUp(ve, session, pack, method);
  return {
    packId: pack.id,
    label: pack.label,
    currency: pack.currency,
    ...bought,
    account: await accountOf(deps, ve.merchant_id, method),
    method: method.method,
    wechatCode: NEEDS_CODE.includes(method.method) ? request.wechatCode : "",
    autoTopUp: request.autoTopUp,
    language: request.language === "zh" ? "zh" : "en",
    clientAddress,
    merchantName: sellerOf(ve),
  };
}
