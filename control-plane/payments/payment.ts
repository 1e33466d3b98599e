/**
 * What every payment processor is to the rest: one adapter for each in this folder, and nothing of it elsewhere. Adapters
 * know no database (but the sandbox, which is a processor itself) and move no Credits. What they say about a payment is
 * what the processor answers when asked; notifications only say whom to ask about.
 */

import type { Logger } from "pino";
import type { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";

/** A merchant's account, opened. `credentials` are the decrypted `tokenbill.v1.PaymentCredentials`, serialized; empty for the sandbox. */
export interface OpenAccount {
  readonly id: string;
  readonly merchantId: string;
  readonly credentials: Uint8Array;
  readonly test: boolean;
}

/** Only strings: it is stored as JSON, and read again by the same adapter. */
export type Details = Readonly<Record<string, string>>;

/** What the payer has to do; stored as JSON. `wechat_pay` and `wechat_virtual` have the fields of the schema's messages. */
export type PaymentAction =
  | { readonly kind: "redirect"; readonly url: string }
  | { readonly kind: "qr_code"; readonly text: string }
  | {
      readonly kind: "wechat_pay";
      readonly appId: string;
      readonly timeStamp: string;
      readonly nonceStr: string;
      readonly packageValue: string;
      readonly signType: string;
      readonly paySign: string;
    }
  | {
      readonly kind: "wechat_virtual";
      readonly mode: string;
      readonly signData: string;
      readonly paySig: string;
      readonly signature: string;
    };

/** What is to be paid. */
export interface PaymentOrder {
  /** Ours (`pmt_…`), unique: the processor's idempotency key and order number are made from it. */
  readonly paymentId: string;
  readonly sessionId: string;
  readonly veId: string;
  readonly method: PaymentMethod;
  readonly currency: string;
  readonly amountMinor: bigint;
  /** For the payer: `5,000,000 Credits`. */
  readonly description: string;
  /** Who sells. */
  readonly merchantName: string;
  /** Milliseconds since 1970: the processor takes no payment after it, where it can. */
  readonly expiresAtMs: number;
  /** Where the payer comes back to, whatever happened: our page of the session. */
  readonly returnUrl: string;
  /** Where the processor sends notifications. */
  readonly notificationUrl: string;
  readonly language: "en" | "zh";
  /** The payment method is to be saved for automatic top-ups. */
  readonly saveMethod: boolean;
  /** Of WeChat's authorization or `wx.login`; empty for other methods. */
  readonly wechatCode: string;
  /** The payer's address, for processors that want it; empty: not known. */
  readonly clientAddress: string;
}

export interface StartedPayment {
  /** The processor's name for the payment, unique in the account. */
  readonly reference: string;
  readonly action: PaymentAction;
  readonly details: Details;
}

/** A payment as we remember it. */
export interface KnownPayment {
  readonly paymentId: string;
  readonly method: PaymentMethod;
  /** Null: the answer to `start` was never seen; the adapter finds the payment by `paymentId`. */
  readonly reference: string | null;
  readonly details: Details;
  readonly currency: string;
  readonly amountMinor: bigint;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
}

/** A saved payment method. */
export interface SavedMethod {
  /** For the payer: `Visa 4242`. */
  readonly label: string;
  /** The processor's names for it; sealed at rest. */
  readonly credentials: Details;
}

export interface PaidPayment {
  readonly state: "paid";
  /** What the payer paid, as the processor says. */
  readonly currency: string;
  readonly amountMinor: bigint;
  /** The processor's name for the money, unique in the account and stable: a PaymentIntent, a transaction. */
  readonly settledReference: string;
  /** What the payment says it is for: our payment id as the processor gives it back. */
  readonly paymentId: string;
  /** Milliseconds since 1970. */
  readonly paidAtMs: number;
  /** Added to the details that are stored. */
  readonly details: Details;
  /** Only if it was asked for and worked. */
  readonly savedMethod: SavedMethod | null;
}

/**
 * How a payment stands. `pending`: the payer may still pay. `failed`: declined, and this payment cannot be paid any more.
 * `closed`: nobody paid, and nobody can. `unknown`: the processor has no such payment.
 */
export type PaymentStatus =
  | PaidPayment
  | { readonly state: "pending" }
  | { readonly state: "failed"; readonly failure: string }
  | { readonly state: "closed" }
  | { readonly state: "unknown" };

export interface RefundOrder {
  /** Ours (`rfd_…`), unique: idempotency key and refund number are made from it. */
  readonly refundId: string;
  readonly payment: KnownPayment;
  readonly settledReference: string;
  readonly amountMinor: bigint;
  readonly reason: string;
  readonly notificationUrl: string;
  /** The processor's name for the refund, once it was seen. */
  readonly reference: string | null;
}

export interface RefundStatus {
  readonly state: "pending" | "succeeded" | "failed";
  readonly reference: string;
  readonly failure: string;
}

/** A refund that was made at the processor, by the merchant there or for whatever reason. */
export interface ExternalRefund {
  readonly reference: string;
  readonly amountMinor: bigint;
  readonly currency: string;
  readonly reason: string;
  readonly state: "pending" | "succeeded" | "failed";
}

export type DisputeState = "open" | "won" | "lost";

/**
 * What a notification is about. The payment is found by our id (`paymentId`) where the notification carries it, else by one
 * of `references`: the processor's names for the payment or for its money.
 */
export interface Notification {
  /** The processor's id of it, the same for every repetition; empty: it has none. */
  readonly eventId: string;
  /** In the processor's words, for the log: `checkout.session.completed`. */
  readonly kind: string;
  readonly about:
    | { readonly kind: "payment"; readonly paymentId: string | null; readonly references: readonly string[] }
    | {
        readonly kind: "refund";
        readonly paymentId: string | null;
        readonly references: readonly string[];
        /** Ours, where it carries it. */
        readonly refundId: string | null;
        readonly refund: ExternalRefund;
      }
    | {
        readonly kind: "dispute";
        readonly paymentId: string | null;
        readonly references: readonly string[];
        readonly reference: string;
        readonly state: DisputeState;
        readonly amountMinor: bigint;
        readonly reason: string;
      }
    /** Nothing that concerns us; it is acknowledged. */
    | { readonly kind: "nothing" };
}

export interface RawNotification {
  readonly method: "GET" | "POST";
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly body: Uint8Array;
  /** Milliseconds since 1970: what is too old, or from the future, is refused. */
  readonly nowMs: number;
}

export interface NotificationAnswer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * Why a processor did not do what was asked. `unreachable`: it may have, or not: ask again. `refused`: it has not, and will
 * not. `misconfigured`: the merchant's account or credentials are not right. The message never holds credentials.
 */
export class ProcessorError extends Error {
  readonly code: "unreachable" | "refused" | "misconfigured";
  /** In a word, for programs: `card_declined`. */
  readonly failure: string;
  constructor(code: ProcessorError["code"], failure: string, message: string) {
    super(message);
    this.name = "ProcessorError";
    this.code = code;
    this.failure = failure;
  }
}

/** A notification that is not to be believed. `reason` is for the log: `bad_signature`, `stale`, `other_account`, `malformed`. */
export class NotificationRefused extends Error {
  readonly reason: string;
  constructor(reason: string, message: string = reason) {
    super(message);
    this.name = "NotificationRefused";
    this.reason = reason;
  }
}

/** One account at one processor. Every call ends by itself: with an answer, or with a ProcessorError. */
export interface ProcessorAccount {
  /** Makes a payment. Safe to repeat with the same order: it makes one only. */
  start(order: PaymentOrder): Promise<StartedPayment>;
  find(payment: KnownPayment): Promise<PaymentStatus>;
  /** Sees to it that it cannot be paid any more, and says how it stands then: `paid` if it was too late. */
  close(payment: KnownPayment): Promise<PaymentStatus>;
  /** Gives money back. Safe to repeat with the same order. */
  refund(order: RefundOrder): Promise<RefundStatus>;
  /** How a refund stands that was asked for; asks for it again if the processor never heard of it. */
  findRefund(order: RefundOrder): Promise<RefundStatus>;
  /** Charges a saved method without the payer. Absent: the processor cannot. The answer may be pending. */
  readonly chargeSaved?: (
    order: PaymentOrder,
    saved: Details,
  ) => Promise<{ readonly reference: string; readonly details: Details; readonly status: PaymentStatus }>;
  /** Forgets a saved method; one that is gone already is no error. */
  readonly forgetSaved?: (saved: Details) => Promise<void>;
  /** @throws NotificationRefused */
  readNotification(raw: RawNotification): Promise<Notification>;
  /** What the processor wants to hear: null when all went well, else what went wrong; it repeats the notification then. */
  answerNotification(raw: RawNotification, problem: NotificationRefused | null): NotificationAnswer;
}

export interface CheckedCredentials {
  /** Serialized `tokenbill.v1.PaymentCredentials`, normalized. */
  readonly credentials: Uint8Array;
  /** Tells the account from others without being secret: the merchant number, the end of a key. */
  readonly hint: string;
  /**
   * What stays equal when credentials are replaced by others of the same account. Absent: the hint does. Null: nothing in them
   * does, so nothing can be compared (Stripe).
   */
  readonly accountIdentity?: string | null;
  readonly test: boolean;
  /** What these credentials allow. */
  readonly methods: readonly PaymentMethod[];
}

/** What adapters are made with. */
export interface ProcessorDeps {
  /** Milliseconds since 1970. */
  now(): number;
  random(count: number): Uint8Array;
  /** Where processors are reached: without a slash at the end. */
  readonly urls: { readonly stripe: string; readonly wechatPay: string; readonly wechat: string };
  readonly log: Logger;
}

/** A processor as such. */
export interface Processor {
  readonly processor: PaymentProcessor;
  /** The currencies it takes by this method; empty: all. */
  currencies(method: PaymentMethod): readonly string[];
  canSave(method: PaymentMethod): boolean;
  /** Where WeChat's browser gets the code for JSAPI, given where it comes back to; empty for all others. */
  authorizeUrl(account: OpenAccount, method: PaymentMethod, returnUrl: string): string;
  /**
   * Reads credentials as they were sent, without asking anybody.
   * @throws DomainError invalid_field that names the field below `credentials`
   */
  checkCredentials(credentials: Uint8Array): CheckedCredentials;
  open(account: OpenAccount): ProcessorAccount;
}
