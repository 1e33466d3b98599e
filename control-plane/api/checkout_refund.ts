/** RefundCheckoutSession. */

import { create } from "@bufbuild/protobuf";
import {
  type RefundCheckoutSessionRequest,
  RefundCheckoutSessionRequestSchema,
  type RefundCheckoutSessionResponse,
  RefundCheckoutSessionResponseSchema,
} from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import type { CheckoutEngine } from "../checkout/engine.ts";
import { stateName } from "../domain/checkout.ts";
import { DomainError } from "../domain/errors.ts";
import { type CheckoutSessionRow, readCheckoutSession } from "../store/checkout_session.ts";
import { listPayments } from "../store/payment.ts";
import { readSession, toRefund } from "./checkout_wire.ts";
import { once, requestBytes } from "./idempotency.ts";
import { readAmount } from "./money_fields.ts";

/**
 * The id of the refund, the same whenever the request is repeated: it is remembered before the processor is asked, which
 * takes too long to hold a transaction. What has this id is refunded once.
 */
async function refundIdOf(deps: CheckoutDeps, merchantId: string, request: RefundCheckoutSessionRequest) {
  const bytes = requestBytes(RefundCheckoutSessionRequestSchema, request);
  const schema = RefundCheckoutSessionResponseSchema;
  const remembered = await deps.db.tx((tx) =>
    once(tx, deps, merchantId, "RefundCheckoutSession", request.requestId, bytes, schema, async () =>
      create(schema, { refund: { id: deps.newId("rfd_") } }),
    ),
  );
  return remembered.refund!.id;
}

/** Null: all that is left. @throws DomainError wrong_state, invalid_field */
function refundAmount(session: CheckoutSessionRow, text: string): bigint | null {
  if (session.currency !== null && session.paid_at !== null)
    return text === "" ? null : readAmount(session.currency, text, "amount");
  throw new DomainError("wrong_state", "the Checkout Session was never paid, so that there is nothing to refund", {
    metadata: { state: stateName(session.state) },
  });
}

/** @throws DomainError not_found, wrong_state, invalid_field, request_id_reused, payment_refused, unavailable */
export async function refund(
  deps: CheckoutDeps,
  engine: CheckoutEngine,
  merchantId: string,
  request: RefundCheckoutSessionRequest,
): Promise<RefundCheckoutSessionResponse> {
  const session = await readCheckoutSession(deps.db, merchantId, request.id);
  const amountMinor = refundAmount(session, request.amount);
  const refundId = await refundIdOf(deps, merchantId, request);
  const made = await engine.refundSession(deps, session, {
    refundId,
    amountMinor,
    reason: request.reason,
    paymentId: request.paymentId,
  });
  const payments = await listPayments(deps.db, [session.id]);
  const payment = payments.find(({ id }) => id === made.refund.payment_id)!;
  return create(RefundCheckoutSessionResponseSchema, {
    checkoutSession: await readSession(deps.db, made.session, "merchant"),
    refund: toRefund(made.refund, payment.currency, "merchant"),
  });
}
