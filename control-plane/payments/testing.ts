/**
 * A payment processor for tests, in memory: it keeps books as a real one does, and does what a script says besides. Its
 * notifications are JSON with the word of who sent them for a signature.
 */

import {
  type DisputeState,
  type ExternalRefund,
  type KnownPayment,
  type Notification,
  NotificationRefused,
  type OpenAccount,
  type PaymentOrder,
  type PaymentStatus,
  type Processor,
  type ProcessorAccount,
  ProcessorError,
  type RawNotification,
  type RefundOrder,
  type RefundStatus,
  type SavedMethod,
} from "./payment.ts";
import { PaymentProcessor } from "../domain/checkout.ts";

/** What can be asked of it. */
export type ScriptedCall = "start" | "find" | "close" | "refund" | "findRefund" | "chargeSaved";

/** What it knows of a payment. */
export interface ScriptedPayment {
  readonly order: PaymentOrder;
  readonly accountId: string;
  readonly reference: string;
  state: "pending" | "paid" | "failed" | "closed";
  failure: string;
  currency: string;
  amountMinor: bigint;
  /** What it says that it is for. */
  paidFor: string;
  settledReference: string;
  refundedMinor: bigint;
  savedMethod: SavedMethod | null;
}

export interface ScriptedRefund {
  readonly order: RefundOrder;
  readonly reference: string;
  state: RefundStatus["state"];
  failure: string;
}

/** Throws to fail a call. `before`: nothing has happened; `after`: it has, and the answer is lost. */
export type Hook = (call: ScriptedCall, id: string) => void | Promise<void>;

export interface Paid {
  readonly currency?: string;
  readonly amountMinor?: bigint;
  readonly paidFor?: string;
  readonly settledReference?: string;
  readonly savedMethod?: SavedMethod;
}

/** The word that signs notifications. */
export const SCRIPTED_SIGNATURE = "signed by the processor";

function json(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? { bigint: String(item) } : item));
}

function parse(text: string): unknown {
  return JSON.parse(text, (_key, item: unknown) => {
    const big = typeof item === "object" && item !== null ? (item as { bigint?: unknown }).bigint : undefined;
    return typeof big === "string" ? BigInt(big) : item;
  });
}

export class ScriptedProcessor implements Processor {
  readonly processor = PaymentProcessor.STRIPE;
  /** By our id of the payment. */
  readonly payments = new Map<string, ScriptedPayment>();
  /** By our id of the refund. */
  readonly refunds = new Map<string, ScriptedRefund>();
  /** Every call that came, in order. */
  readonly calls: { readonly call: ScriptedCall; readonly id: string }[] = [];
  before: Hook = () => {};
  after: Hook = () => {};
  /** What becomes of new refunds. */
  refundState: RefundStatus["state"] = "succeeded";
  /** What becomes of charges of saved methods. */
  chargeState: "paid" | "pending" | "failed" = "paid";
  /** Payments that cannot be closed: the processor is working on them. */
  readonly unclosable = new Set<string>();
  #events = 0;

  count(call: ScriptedCall): number {
    return this.calls.filter((each) => each.call === call).length;
  }

  currencies(): readonly string[] {
    return [];
  }
  canSave(): boolean {
    return true;
  }
  authorizeUrl(): string {
    return "";
  }
  checkCredentials(): never {
    throw new Error("not of this test");
  }

  /** The payer pays. */
  pay(paymentId: string, paid: Paid = {}): void {
    const payment = this.payments.get(paymentId);
    if (payment === undefined || payment.state !== "pending") throw new Error(`${paymentId} cannot be paid`);
    Object.assign(payment, paid, { state: "paid" });
  }

  decline(paymentId: string, failure = "card_declined"): void {
    Object.assign(this.payments.get(paymentId)!, { state: "failed", failure });
  }

  /** Somebody refunds it at the processor itself. */
  refundOutside(paymentId: string, amountMinor: bigint): ExternalRefund {
    const payment = this.payments.get(paymentId)!;
    payment.refundedMinor += amountMinor;
    const reference = `outside_${(this.#events += 1)}`;
    return { reference, amountMinor, currency: payment.currency, reason: "", state: "succeeded" };
  }

  async #call<T>(call: ScriptedCall, id: string, effect: () => T): Promise<T> {
    this.calls.push({ call, id });
    await this.before(call, id);
    const result = effect();
    await this.after(call, id);
    return result;
  }

  #make(accountId: string, order: PaymentOrder): ScriptedPayment {
    const known = this.payments.get(order.paymentId);
    if (known !== undefined) {
      // A processor refuses a repetition that is not one.
      const code = json({ ...known.order, wechatCode: "" }) === json({ ...order, wechatCode: "" });
      if (!code) throw new ProcessorError("refused", "idempotency_mismatch", "another order with this id");
      return known;
    }
    const payment: ScriptedPayment = {
      order,
      accountId,
      reference: `ref_${order.paymentId}`,
      state: "pending",
      failure: "",
      currency: order.currency,
      amountMinor: order.amountMinor,
      paidFor: order.paymentId,
      settledReference: `money_${order.paymentId}`,
      refundedMinor: 0n,
      savedMethod: null,
    };
    this.payments.set(order.paymentId, payment);
    return payment;
  }

  statusOf(payment: ScriptedPayment | undefined): PaymentStatus {
    if (payment === undefined) return { state: "unknown" };
    if (payment.state === "failed") return { state: "failed", failure: payment.failure };
    if (payment.state !== "paid") return { state: payment.state };
    const { currency, amountMinor, settledReference, paidFor: paymentId, savedMethod } = payment;
    const paidAtMs = Date.UTC(2026, 10, 23);
    return { state: "paid", currency, amountMinor, settledReference, paymentId, paidAtMs, details: {}, savedMethod };
  }

  #refund(order: RefundOrder): RefundStatus {
    let refund = this.refunds.get(order.refundId);
    if (refund === undefined) {
      const payment = this.payments.get(order.payment.paymentId);
      if (payment?.state !== "paid" || payment.refundedMinor + order.amountMinor > payment.amountMinor) {
        throw new ProcessorError("refused", "not_refundable", "there is not so much to refund");
      }
      refund = { order, reference: `back_${order.refundId}`, state: this.refundState, failure: "" };
      if (refund.state !== "failed") payment.refundedMinor += order.amountMinor;
      this.refunds.set(order.refundId, refund);
    }
    return { state: refund.state, reference: refund.reference, failure: refund.failure };
  }

  open({ id: accountId }: OpenAccount): ProcessorAccount {
    const find = ({ paymentId }: KnownPayment): ScriptedPayment | undefined => {
      const payment = this.payments.get(paymentId);
      return payment?.accountId === accountId ? payment : undefined;
    };
    return {
      start: (order) =>
        this.#call("start", order.paymentId, () => {
          const { reference } = this.#make(accountId, order);
          return { reference, action: { kind: "redirect", url: `https://pay.test/${reference}` }, details: {} };
        }),
      find: (known) => this.#call("find", known.paymentId, () => this.statusOf(find(known))),
      close: (known) =>
        this.#call("close", known.paymentId, () => {
          const payment = find(known);
          if (payment?.state === "pending" && !this.unclosable.has(known.paymentId)) payment.state = "closed";
          return this.statusOf(payment);
        }),
      refund: (order) => this.#call("refund", order.refundId, () => this.#refund(order)),
      findRefund: (order) => this.#call("findRefund", order.refundId, () => this.#refund(order)),
      chargeSaved: (order) =>
        this.#call("chargeSaved", order.paymentId, () => {
          const payment = this.#make(accountId, order);
          if (payment.state === "pending") payment.state = this.chargeState;
          if (payment.state === "failed") payment.failure = "card_declined";
          return { reference: payment.reference, details: {}, status: this.statusOf(payment) };
        }),
      readNotification: async ({ headers, body }) => {
        if (headers["signature"] !== SCRIPTED_SIGNATURE) throw new NotificationRefused("bad_signature");
        return parse(Buffer.from(body).toString("utf8")) as Notification;
      },
      answerNotification: (_raw, problem) => ({
        status: problem === null ? 200 : 400,
        type: "text/plain",
        body: problem?.reason ?? "ok",
      }),
    };
  }

  /** A notification as the processor sends it; each one is another event. */
  notification(about: Notification["about"], more: Partial<Notification> = {}): RawNotification {
    const eventId = `event_${(this.#events += 1)}`;
    return {
      method: "POST",
      headers: { signature: SCRIPTED_SIGNATURE },
      query: new URLSearchParams(),
      body: Buffer.from(json({ eventId, kind: about.kind, about, ...more }), "utf8"),
      nowMs: 0,
    };
  }

  paymentNotification(paymentId: string): RawNotification {
    return this.notification({ kind: "payment", paymentId, references: [] });
  }

  refundNotification(paymentId: string, refund: ExternalRefund, refundId: string | null = null): RawNotification {
    const { settledReference } = this.payments.get(paymentId)!;
    return this.notification({ kind: "refund", paymentId: null, references: [settledReference], refundId, refund });
  }

  disputeNotification(paymentId: string, reference: string, state: DisputeState, amountMinor: bigint): RawNotification {
    const references = [this.payments.get(paymentId)!.settledReference];
    const what = { reference, state, amountMinor, reason: "fraudulent" };
    return this.notification({ kind: "dispute", paymentId: null, references, ...what });
  }
}
