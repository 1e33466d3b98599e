/**
 * Payments without a processor, for tests of the API: what is started waits until the test says that it was paid or
 * declined. Credits are moved by nobody; states, rows and refusals are those of the real thing.
 */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { formatCredits } from "../../core/credits.ts";
import { PaymentCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import type { CheckoutDeps, Choice } from "../checkout/deps.ts";
import type { CheckoutEngine } from "../checkout/engine.ts";
import {
  CheckoutState,
  moved,
  PaymentMethod,
  PaymentProcessor,
  PaymentState,
  RefundState,
  requireMove,
} from "../domain/checkout.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { type PaymentAction, type Processor, ProcessorError } from "../payments/payment.ts";
import { createProcessors, type Processors } from "../payments/processors.ts";
import type { Secrets } from "../secrets.ts";
import { type CheckoutSessionRow, lockCheckoutSession, updateCheckoutSession } from "../store/checkout_session.ts";
import { insertPayment, listPayments, lockPayment, updatePayment } from "../store/payment.ts";
import type { RefundRow } from "../store/refund.ts";

function processor(
  number: PaymentProcessor,
  methods: readonly PaymentMethod[],
  currencies: readonly string[],
): Processor {
  return {
    processor: number,
    currencies: () => currencies,
    canSave: (method) => method === PaymentMethod.STRIPE_CHECKOUT || method === PaymentMethod.SANDBOX,
    authorizeUrl: (account, method, returnUrl) =>
      method === PaymentMethod.WECHAT_JSAPI ? `https://wechat.test/${account.id}?to=${returnUrl}` : "",
    checkCredentials(bytes) {
      const { kind } = fromBinary(PaymentCredentialsSchema, bytes);
      const credentials = toBinary(PaymentCredentialsSchema, create(PaymentCredentialsSchema, { kind }));
      if (kind.case === "wechatPay")
        return { credentials, hint: kind.value.merchantNumber, test: false, methods: [...methods] };
      const key = kind.case === "stripe" ? kind.value.secretKey : "";
      const [, test, account] = /^sk_(test|live)_([a-z]+)\d+$/.exec(key) ?? [];
      if (account === undefined) throw invalidField("credentials.stripe.secret_key", "give a key such as sk_live_…");
      return {
        credentials,
        hint: key.slice(-4),
        accountIdentity: account,
        test: test === "test",
        methods: [...methods],
      };
    },
    open: () => {
      throw new ProcessorError("unreachable", "not_there", "tests reach no processor");
    },
  };
}

const STRIPE_METHODS = [PaymentMethod.STRIPE_CHECKOUT, PaymentMethod.STRIPE_SAVED];
const WECHAT_METHODS = [PaymentMethod.WECHAT_NATIVE, PaymentMethod.WECHAT_JSAPI];

export interface TestCheckout {
  readonly processors: Processors;
  readonly engine: CheckoutEngine;
  /** Every choice that a payment was started with. */
  readonly choices: Choice[];
  /** What payers have to do from now on. */
  action: PaymentAction | null;
  /** What the processor answers instead of starting a payment or a refund. */
  failure: DomainError | null;
  /** What the processor will say of a session's payments when it is asked. */
  readonly verdicts: Map<string, "paid" | "declined">;
}

export function openTestCheckout(secrets: Secrets): TestCheckout {
  const refunds = new Map<string, RefundRow>();
  const checkout: TestCheckout = {
    processors: createProcessors(secrets, [
      processor(PaymentProcessor.STRIPE, STRIPE_METHODS, []),
      processor(PaymentProcessor.WECHAT_PAY, WECHAT_METHODS, ["CNY"]),
      processor(PaymentProcessor.SANDBOX, [PaymentMethod.SANDBOX], []),
    ]),
    choices: [],
    action: { kind: "redirect", url: "https://processor.test/pay" },
    failure: null,
    verdicts: new Map(),
    engine: {
      async startPayment(deps, session, choice) {
        checkout.choices.push(choice);
        if (checkout.failure !== null) throw checkout.failure;
        return { ...(await start(deps, session, choice)), action: checkout.action };
      },
      checkSession: (deps, session) => settle(deps, session, checkout.verdicts.get(session.id)),
      cancelSession: (deps, session) =>
        deps.db.tx(async (tx) => {
          const row = await lockCheckoutSession(tx, session.merchant_id, session.id);
          return updateCheckoutSession(tx, row, { state: requireMove(row.state, "cancel") }, new Date(deps.now()));
        }),
      async refundSession(deps, session, { refundId, amountMinor, reason }) {
        const known = refunds.get(refundId);
        if (known !== undefined) return { session, refund: known };
        if (checkout.failure !== null) throw checkout.failure;
        const { row, refund } = await giveBack(deps, session, refundId, amountMinor, reason);
        refunds.set(refundId, refund);
        return { session: row, refund };
      },
    },
  };
  return checkout;
}

async function start(deps: CheckoutDeps, session: CheckoutSessionRow, choice: Choice) {
  return deps.db.tx(async (tx) => {
    const now = new Date(deps.now());
    const row = await lockCheckoutSession(tx, session.merchant_id, session.id);
    const state = requireMove(row.state, "start");
    const id = deps.newId("pmt_");
    const money = { currency: choice.currency, amount_minor: choice.amountMinor };
    const gained = { credits: formatCredits(choice.credits), bonus: formatCredits(choice.bonus) };
    const made = await insertPayment(
      tx,
      {
        id,
        session_id: row.id,
        merchant_id: row.merchant_id,
        ve_id: row.ve_id,
        account_id: choice.account.id,
        processor: choice.account.processor,
        method: choice.method,
        choice: JSON.stringify([choice.packId, String(choice.amountMinor), choice.account.id, choice.method]),
        ...money,
        ...gained,
        auto_top_up: choice.autoTopUp,
        terms: {},
        check_at: null,
      },
      now,
    );
    const changes = { state: PaymentState.PENDING, reference: `ref_${id}` };
    const payment = await updatePayment(tx, made, changes, now);
    const chosen = { state, pack_id: choice.packId, label: choice.label, ...money, ...gained };
    return { session: await updateCheckoutSession(tx, row, chosen, now), payment };
  });
}

async function settle(deps: CheckoutDeps, session: CheckoutSessionRow, verdict: "paid" | "declined" | undefined) {
  return deps.db.tx(async (tx) => {
    const now = new Date(deps.now());
    const row = await lockCheckoutSession(tx, session.merchant_id, session.id);
    const last = (await listPayments(tx, [row.id])).at(-1);
    if (last === undefined || last.state !== PaymentState.PENDING || verdict === undefined) return row;
    const payment = await lockPayment(tx, last.id);
    if (verdict === "declined") {
      const failure = "card_declined";
      await updatePayment(tx, payment, { state: PaymentState.FAILED, failure }, now);
      return updateCheckoutSession(tx, row, { state: requireMove(row.state, "decline"), failure }, now);
    }
    const granted = payment.credits;
    const settled = { state: PaymentState.FULFILLED, granted, settled_reference: `money_${payment.id}` };
    await updatePayment(tx, payment, settled, now);
    const fulfilled = { state: CheckoutState.FULFILLED, granted, paid_at: now, fulfilled_at: now };
    return updateCheckoutSession(tx, row, fulfilled, now);
  });
}

async function giveBack(
  deps: CheckoutDeps,
  session: CheckoutSessionRow,
  id: string,
  amountMinor: bigint | null,
  reason: string,
) {
  return deps.db.tx(async (tx) => {
    const now = new Date(deps.now());
    const locked = await lockCheckoutSession(tx, session.merchant_id, session.id);
    const payment = (await listPayments(tx, [locked.id])).findLast(({ state }) => state === PaymentState.FULFILLED)!;
    const left = payment.amount_minor - locked.refunded_minor;
    const amount = amountMinor ?? left;
    if (amount > left) throw new DomainError("invalid_field", "amount: more than is left", { field: "amount" });
    const refund: RefundRow = {
      id,
      n: 0n,
      session_id: locked.id,
      payment_id: payment.id,
      merchant_id: locked.merchant_id,
      account_id: payment.account_id,
      state: RefundState.SUCCEEDED,
      external: false,
      reference: `re_${id}`,
      amount_minor: amount,
      taken: formatCredits(0n),
      became_debt: formatCredits(0n),
      reason,
      check_at: null,
      checks: 0,
      created_at: now,
      updated_at: now,
    };
    const state = moved(locked.state, amount === left ? "refund_all" : "refund_part")!;
    const refunded = { state, refunded_minor: locked.refunded_minor + amount };
    return { row: await updateCheckoutSession(tx, locked, refunded, now), refund };
  });
}
