/**
 * The sandbox: a processor with books of its own, for trying everything out. No money moves. It decides nothing by itself:
 * the payer does, on its page (sandbox_choices.ts), and what was decided is told by notifications (sandbox_tick.ts).
 * Its calls open transactions: not to be made inside one.
 */

import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { invalidField } from "../domain/errors.ts";
import { anyRealAccount } from "../store/payment_account.ts";
import {
  deleteSandboxMethod,
  deleteSandboxNotifications,
  findSandboxMethod,
  findSandboxRefund,
  insertSandboxNotification,
  insertSandboxPayment,
  insertSandboxRefund,
  lockSandboxPaymentOf,
  type NewSandboxPayment,
  type SandboxMethodRow,
  type SandboxNotificationKind,
  type SandboxPaymentRow,
  type SandboxRefundRow,
  updateSandboxPayment,
} from "../store/sandbox.ts";
import {
  type Details,
  type KnownPayment,
  type OpenAccount,
  type PaymentOrder,
  type PaymentStatus,
  type Processor,
  type ProcessorAccount,
  ProcessorError,
  type RefundOrder,
  type RefundStatus,
  type SavedMethod,
} from "./payment.ts";
import { sandboxAvailable } from "./sandbox_available.ts";
import { readSandboxNotification, SIGNATURE_PURPOSE } from "./sandbox_notification.ts";
import { refundable } from "./sandbox_state.ts";

export type SandboxDeps = Pick<Deps, "db" | "now" | "newId" | "secrets" | "settings" | "log">;

export const TEST_CARD = "Test card 4242";
export const DECLINING_TEST_CARD = "Test card 0341";
/** Why the sandbox declines. */
const DECLINED = "card_declined";

export async function isSandboxAvailable(deps: SandboxDeps, tx: Tx): Promise<boolean> {
  return sandboxAvailable(deps.settings, await anyRealAccount(tx));
}

async function requireAvailable(deps: SandboxDeps, tx: Tx): Promise<void> {
  if (await isSandboxAvailable(deps, tx)) return;
  throw new ProcessorError("refused", "sandbox_unavailable", "the sandbox is switched off here");
}

/** The one way to the payment's page. */
function pageUrl(deps: SandboxDeps, id: string): string {
  return `${deps.settings.publicUrl}/sandbox/pay/${id}`;
}

/** Remembers that something is to be told. */
export async function notify(
  deps: SandboxDeps,
  tx: Tx,
  payment: SandboxPaymentRow,
  kind: SandboxNotificationKind,
  options: { readonly refundId?: string; readonly copies?: number; readonly sendAt?: Date } = {},
): Promise<void> {
  const now = new Date(deps.now());
  const { refundId = null, copies = 1, sendAt = now } = options;
  const id = deps.newId("sbe_");
  await insertSandboxNotification(tx, { id, sandboxPaymentId: payment.id, kind, refundId, copies, sendAt }, now);
}

/**
 * Gives money of a locked payment back, and tells of it. `refundId`: ours; null: it is made at the sandbox.
 * @throws ProcessorError refused: there is not so much
 */
export async function refundPayment(
  deps: SandboxDeps,
  tx: Tx,
  payment: SandboxPaymentRow,
  { refundId, amountMinor }: { readonly refundId: string | null; readonly amountMinor: bigint },
): Promise<SandboxRefundRow> {
  if (amountMinor <= 0n || amountMinor > refundable(payment))
    throw new ProcessorError("refused", "refund_too_large", "that much of the payment cannot be given back any more");
  const refund = {
    id: deps.newId("sbr_"),
    sandbox_payment_id: payment.id,
    refund_id: refundId,
    amount_minor: amountMinor,
  };
  await insertSandboxRefund(tx, refund, new Date(deps.now()));
  await updateSandboxPayment(tx, payment, { refunded_minor: payment.refunded_minor + amountMinor });
  await notify(deps, tx, payment, "refund.succeeded", { refundId: refund.id });
  return refund;
}

function savedMethod({ id, declines }: SandboxMethodRow): SavedMethod {
  return { label: declines ? DECLINING_TEST_CARD : TEST_CARD, credentials: { method: id } };
}

async function statusOf(tx: Tx, payment: SandboxPaymentRow, now: Date): Promise<PaymentStatus> {
  switch (payment.state) {
    case "declined":
      return { state: "failed", failure: DECLINED };
    case "closed":
      return { state: "closed" };
    case "pending":
      // One that was approved in time becomes paid even after it.
      return { state: payment.pay_at === null && payment.expires_at <= now ? "closed" : "pending" };
    case "paid": {
      const method =
        payment.method_id === null ? null : await findSandboxMethod(tx, payment.account_id, payment.method_id);
      return {
        state: "paid",
        currency: payment.currency,
        amountMinor: payment.amount_minor,
        settledReference: payment.charge_id,
        paymentId: payment.payment_id,
        paidAtMs: payment.paid_at!.getTime(),
        details: {},
        savedMethod: method === null ? null : savedMethod(method),
      };
    }
  }
}

function bookOf(deps: SandboxDeps, account: OpenAccount, order: PaymentOrder): NewSandboxPayment {
  return {
    id: deps.newId("sbp_"),
    account_id: account.id,
    payment_id: order.paymentId,
    charge_id: deps.newId("sbc_"),
    state: "pending",
    currency: order.currency,
    amount_minor: order.amountMinor,
    merchant_name: order.merchantName,
    description: order.description,
    return_url: order.returnUrl,
    save_method: order.saveMethod,
    expires_at: new Date(order.expiresAtMs),
  };
}

/** The payment of this account that was made for `order`. */
async function booked(deps: SandboxDeps, tx: Tx, account: OpenAccount, paymentId: string): Promise<SandboxPaymentRow> {
  const row = await lockSandboxPaymentOf(tx, account.id, paymentId, new Date(deps.now()));
  if (row === null) throw new ProcessorError("refused", "other_account", "the payment is another account's");
  return row;
}

async function charge(
  deps: SandboxDeps,
  tx: Tx,
  account: OpenAccount,
  order: PaymentOrder,
  saved: Details,
): Promise<SandboxPaymentRow> {
  await requireAvailable(deps, tx);
  const method = await findSandboxMethod(tx, account.id, saved["method"] ?? "");
  if (method === null) throw new ProcessorError("refused", "no_such_method", "the saved method is gone");
  const state = method.declines ? "declined" : "paid";
  const row = { ...bookOf(deps, account, order), state, save_method: false } as const;
  const isNew = await insertSandboxPayment(tx, row, new Date(deps.now()));
  const payment = await booked(deps, tx, account, order.paymentId);
  if (isNew) await notify(deps, tx, payment, state === "paid" ? "payment.paid" : "payment.declined");
  return payment;
}

async function close(deps: SandboxDeps, tx: Tx, accountId: string, payment: KnownPayment): Promise<PaymentStatus> {
  const now = new Date(deps.now());
  const row = await lockSandboxPaymentOf(tx, accountId, payment.paymentId, now);
  if (row === null) return { state: "unknown" };
  if (row.state !== "pending") return statusOf(tx, row, now);
  await deleteSandboxNotifications(tx, row.id);
  return statusOf(tx, await updateSandboxPayment(tx, row, { state: "closed", pay_at: null }), now);
}

async function refund(deps: SandboxDeps, tx: Tx, account: OpenAccount, order: RefundOrder): Promise<RefundStatus> {
  const payment = await booked(deps, tx, account, order.payment.paymentId);
  const known = await findSandboxRefund(tx, payment.id, order.refundId);
  const { id } = known ?? (await refundPayment(deps, tx, payment, order));
  return { state: "succeeded", reference: id, failure: "" };
}

/** Runs in one transaction. What goes wrong in the database may have been done, or not. */
async function inBooks<T>(deps: SandboxDeps, work: (tx: Tx) => Promise<T>): Promise<T> {
  try {
    return await deps.db.tx(work);
  } catch (error) {
    if (error instanceof ProcessorError) throw error;
    deps.log.error({ reason: (error as Error).message }, "the sandbox's books cannot be used");
    throw new ProcessorError("unreachable", "database", "the sandbox does not answer");
  }
}

function openAccount(deps: SandboxDeps, account: OpenAccount): ProcessorAccount {
  const now = (): Date => new Date(deps.now());
  return {
    start: (order) =>
      inBooks(deps, async (tx) => {
        await requireAvailable(deps, tx);
        await insertSandboxPayment(tx, bookOf(deps, account, order), now());
        const { id } = await booked(deps, tx, account, order.paymentId);
        return { reference: id, action: { kind: "redirect", url: pageUrl(deps, id) }, details: {} };
      }),
    find: ({ paymentId }) =>
      inBooks(deps, async (tx) => {
        const row = await lockSandboxPaymentOf(tx, account.id, paymentId, now());
        return row === null ? { state: "unknown" } : statusOf(tx, row, now());
      }),
    close: (payment) => inBooks(deps, (tx) => close(deps, tx, account.id, payment)),
    refund: (order) => inBooks(deps, (tx) => refund(deps, tx, account, order)),
    findRefund: (order) => inBooks(deps, (tx) => refund(deps, tx, account, order)),
    chargeSaved: (order, saved) =>
      inBooks(deps, async (tx) => {
        const row = await charge(deps, tx, account, order, saved);
        return { reference: row.id, details: {}, status: await statusOf(tx, row, now()) };
      }),
    forgetSaved: (saved) => inBooks(deps, (tx) => deleteSandboxMethod(tx, account.id, saved["method"] ?? "")),
    async readNotification(raw) {
      return readSandboxNotification(raw, account.id, deps.secrets.derive(SIGNATURE_PURPOSE, account.id));
    },
    answerNotification: (_raw, problem) => ({ status: problem === null ? 200 : 400, type: "text/plain", body: "" }),
  };
}

export function sandboxProcessor(deps: SandboxDeps): Processor {
  return {
    processor: PaymentProcessor.SANDBOX,
    currencies: () => [],
    canSave: (method) => method === PaymentMethod.SANDBOX,
    authorizeUrl: () => "",
    checkCredentials(credentials) {
      if (credentials.length > 0) throw invalidField("credentials", "the sandbox takes none");
      return { credentials, hint: "sandbox", test: true, methods: [PaymentMethod.SANDBOX] };
    },
    open: (account) => openAccount(deps, account),
  };
}
