/** PURE: the sandbox's notifications, signed as real processors sign theirs: a time, and an HMAC over it and the body. */

import { createHmac, timingSafeEqual } from "node:crypto";
import type { DueSandboxNotification, SandboxDisputeState } from "../store/sandbox.ts";
import { SANDBOX_NOTIFICATIONS } from "../store/sandbox.ts";
import { type Notification, NotificationRefused, type RawNotification } from "./payment.ts";

export const SIGNATURE_HEADER = "tokenbill-sandbox-signature";
/** The purpose of an account's secret. */
export const SIGNATURE_PURPOSE = "tokenbill sandbox notification";
/** What is older, or as far in the future, is not believed. */
export const NOTIFICATION_AGE_S_MAX = 300;

const DISPUTE_STATES: Readonly<Record<string, SandboxDisputeState>> = {
  "dispute.opened": "open",
  "dispute.won": "won",
  "dispute.lost": "lost",
};

/** The JSON of a notification; amounts are texts. */
interface Body {
  readonly id: string;
  readonly type: string;
  readonly account: string;
  readonly payment: {
    readonly id: string;
    readonly charge: string;
    readonly payment_id: string;
    readonly currency: string;
  };
  readonly refund?: { readonly id: string; readonly refund_id: string | null; readonly amount_minor: string };
  readonly dispute?: { readonly id: string; readonly amount_minor: string };
}

function sign(secret: Uint8Array, time: string, body: Uint8Array): Buffer {
  return createHmac("sha256", secret).update(`${time}.`, "utf8").update(body).digest();
}

function bodyOf(row: DueSandboxNotification): Body {
  return {
    id: row.id,
    type: row.kind,
    account: row.account_id,
    payment: {
      id: row.sandbox_payment_id,
      charge: row.charge_id,
      payment_id: row.payment_id,
      currency: row.currency,
    },
    ...(row.refund_reference === null
      ? {}
      : { refund: { id: row.refund_reference, refund_id: row.refund_id, amount_minor: String(row.refund_minor) } }),
    ...(DISPUTE_STATES[row.kind] === undefined
      ? {}
      : { dispute: { id: row.dispute_id!, amount_minor: String(row.amount_minor - row.refunded_minor) } }),
  };
}

/** As it is sent at `nowMs`. `secret` is the account's. */
export function writeSandboxNotification(
  row: DueSandboxNotification,
  secret: Uint8Array,
  nowMs: number,
): RawNotification {
  const body = new Uint8Array(Buffer.from(JSON.stringify(bodyOf(row)), "utf8"));
  const time = String(Math.floor(nowMs / 1000));
  return {
    method: "POST",
    headers: {
      "content-type": "application/json",
      [SIGNATURE_HEADER]: `t=${time},v1=${sign(secret, time, body).toString("hex")}`,
    },
    query: new URLSearchParams(),
    body,
    nowMs,
  };
}

function verify(raw: RawNotification, secret: Uint8Array): void {
  const match = /^t=(\d{1,12}),v1=([0-9a-f]{64})$/.exec(raw.headers[SIGNATURE_HEADER] ?? "");
  if (raw.method !== "POST" || match === null) throw new NotificationRefused("bad_signature");
  const [, time, signature] = match;
  if (!timingSafeEqual(sign(secret, time!, raw.body), Buffer.from(signature!, "hex")))
    throw new NotificationRefused("bad_signature");
  if (Math.abs(raw.nowMs / 1000 - Number(time)) > NOTIFICATION_AGE_S_MAX) throw new NotificationRefused("stale");
}

function parse(bytes: Uint8Array): Body {
  let body: Partial<Body> | null;
  try {
    body = JSON.parse(Buffer.from(bytes).toString("utf8")) as Partial<Body> | null;
  } catch {
    throw new NotificationRefused("malformed");
  }
  const whole =
    typeof body?.id === "string" &&
    typeof body.payment?.id === "string" &&
    SANDBOX_NOTIFICATIONS.some((kind) => kind === body.type) &&
    (body.type === "refund.succeeded") === (body.refund !== undefined) &&
    (body.type?.startsWith("dispute.") === true) === (body.dispute !== undefined);
  if (!whole) throw new NotificationRefused("malformed");
  return body as Body;
}

function aboutOf({ type, payment, refund, dispute }: Body): Notification["about"] {
  const subject = { paymentId: payment.payment_id, references: [payment.id, payment.charge] };
  if (refund !== undefined) {
    const amountMinor = BigInt(refund.amount_minor);
    const { currency } = payment;
    const external = { reference: refund.id, amountMinor, currency, reason: "", state: "succeeded" } as const;
    return { kind: "refund", ...subject, refundId: refund.refund_id, refund: external };
  }
  if (dispute === undefined) return { kind: "payment", ...subject };
  const amountMinor = BigInt(dispute.amount_minor);
  return {
    kind: "dispute",
    ...subject,
    reference: dispute.id,
    state: DISPUTE_STATES[type]!,
    amountMinor,
    reason: "test",
  };
}

/** @throws NotificationRefused bad_signature, stale, malformed or other_account */
export function readSandboxNotification(raw: RawNotification, accountId: string, secret: Uint8Array): Notification {
  verify(raw, secret);
  const body = parse(raw.body);
  if (body.account !== accountId) throw new NotificationRefused("other_account");
  return { eventId: body.id, kind: body.type, about: aboutOf(body) };
}
