/** CheckoutService: wallets topped up against money. Whoever calls is a merchant, or a payer with the secret of one session. */

import { create } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  CancelCheckoutSessionResponseSchema,
  CheckPaymentResponseSchema,
  type CheckoutService,
  GetCheckoutSessionResponseSchema,
  ListCheckoutSessionsResponseSchema,
  StartPaymentResponseSchema,
} from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import type { CheckoutEngine } from "../checkout/engine.ts";
import {
  checkDeclines,
  CHECKS_BY_SESSION,
  DECLINES_MAX,
  DECLINES_PAUSE_MS,
  DECLINES_WINDOW_MS,
  PAYMENTS_BY_ADDRESS,
  PAYMENTS_BY_SESSION,
  PAYMENTS_BY_VE,
  type Throttle,
  veSubject,
} from "../checkout/throttle.ts";
import { addressGroup } from "../domain/client_address.ts";
import { notFound } from "../domain/errors.ts";
import { canonicalVeId } from "../domain/ve_id.ts";
import {
  type CheckoutCause,
  type CheckoutSessionRow,
  listCheckoutSessions,
  readCheckoutSession,
} from "../store/checkout_session.ts";
import { findCheckoutVe } from "../store/checkout_ve.ts";
import { listDeclines } from "../store/payment.ts";
import { checkPayable, choose } from "./checkout_choice.ts";
import { createForMerchant, createForStranger } from "./checkout_create.ts";
import { loadOffer } from "./checkout_offer.ts";
import { refund } from "./checkout_refund.ts";
import { type Audience, readSession, readSessions, readStory, toAction } from "./checkout_wire.ts";
import { clientAddressOf, principal, requireMerchant } from "./context.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";

const LIST = "checkout_sessions";

type Values = Pick<HandlerContext, "values">;

interface Caller {
  readonly merchantId: string;
  readonly audience: Audience;
  readonly cause: CheckoutCause;
  /** Of the payer; empty: a merchant's server calls, which is not where the payer is. */
  readonly address: string;
}

/** Who calls about a session. A payer knows of no other than their own. @throws DomainError not_found, wrong_scope */
function callerOf(ctx: Values, sessionId: string): Caller {
  const who = principal(ctx);
  if (who.kind !== "payer") {
    return { merchantId: requireMerchant(ctx), audience: "merchant", cause: "api", address: "" };
  }
  if (who.sessionId !== sessionId) throw notFound("Checkout Session");
  return { merchantId: who.merchantId, audience: "payer", cause: "page", address: clientAddressOf(ctx) };
}

/** @throws DomainError limit_reached */
async function throttlePayment(
  deps: CheckoutDeps,
  throttle: Throttle,
  session: CheckoutSessionRow,
  address: string,
): Promise<void> {
  const since = new Date(deps.now() - DECLINES_WINDOW_MS - DECLINES_PAUSE_MS);
  const { ve_id: veId, linked } = session;
  checkDeclines(await listDeclines(deps.db, veId, linked, since, DECLINES_MAX), deps.now());
  const counts = [
    [PAYMENTS_BY_SESSION, session.id],
    [PAYMENTS_BY_VE, veSubject(veId, linked)],
  ] as const;
  if (address === "") return throttle.take(...counts);
  return throttle.take(...counts, [PAYMENTS_BY_ADDRESS, addressGroup(address)]);
}

type Reads = Pick<ServiceImpl<typeof CheckoutService>, "getCheckoutSession" | "listCheckoutSessions">;

function reads(deps: CheckoutDeps): Reads {
  return {
    async getCheckoutSession(request, ctx) {
      const { merchantId, audience } = callerOf(ctx, request.id);
      const row = await readCheckoutSession(deps.db, merchantId, request.id);
      const session = await readSession(deps.db, row, audience);
      if (audience === "merchant") session.events = await readStory(deps.db, row.id);
      const ve = await findCheckoutVe(deps.db, row.ve_id);
      const offer = await loadOffer(deps, deps.db, row, ve, audience === "merchant" || row.linked);
      return create(GetCheckoutSessionResponseSchema, { checkoutSession: session, offer });
    },

    async listCheckoutSessions(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const filter = { veId: canonicalVeId(request.veId), state: request.state };
      const filterKey = JSON.stringify([merchantId, filter.veId, filter.state]);
      const size = pageSize(request.pageSize);
      const before = decodeRowPosition(LIST, filterKey, request.pageToken);
      const rows = await listCheckoutSessions(deps.db, merchantId, filter, before, size + 1);
      const page = toPage(rows, size, LIST, filterKey);
      return create(ListCheckoutSessionsResponseSchema, {
        checkoutSessions: await readSessions(deps.db, page.items, "merchant"),
        nextPageToken: page.nextPageToken,
      });
    },
  };
}

export function checkoutService(
  deps: CheckoutDeps,
  engine: CheckoutEngine,
  throttle: Throttle,
): ServiceImpl<typeof CheckoutService> {
  return {
    async createCheckoutSession(request, ctx) {
      if (principal(ctx).kind === "stranger") return createForStranger(deps, throttle, clientAddressOf(ctx), request);
      return createForMerchant(deps, requireMerchant(ctx), request);
    },

    async startPayment(request, ctx) {
      const { merchantId, audience, cause, address } = callerOf(ctx, request.id);
      const row = await readCheckoutSession(deps.db, merchantId, request.id);
      checkPayable(row, deps.now());
      await throttlePayment(deps, throttle, row, address);
      const choice = await choose(deps, row, request, address);
      const { session, payment, action } = await engine.startPayment(deps, row, choice, cause);
      return create(StartPaymentResponseSchema, {
        checkoutSession: await readSession(deps.db, session, audience),
        paymentId: payment.id,
        action: toAction(action),
      });
    },

    async checkPayment(request, ctx) {
      const { merchantId, audience, cause } = callerOf(ctx, request.id);
      const row = await readCheckoutSession(deps.db, merchantId, request.id);
      await throttle.take([CHECKS_BY_SESSION, row.id]);
      const session = await engine.checkSession(deps, row, cause);
      return create(CheckPaymentResponseSchema, { checkoutSession: await readSession(deps.db, session, audience) });
    },

    async cancelCheckoutSession(request, ctx) {
      const { merchantId, audience, cause } = callerOf(ctx, request.id);
      const row = await readCheckoutSession(deps.db, merchantId, request.id);
      const session = await engine.cancelSession(deps, row, cause);
      return create(CancelCheckoutSessionResponseSchema, {
        checkoutSession: await readSession(deps.db, session, audience),
      });
    },

    async refundCheckoutSession(request, ctx) {
      return refund(deps, engine, requireMerchant(ctx), request);
    },

    ...reads(deps),
  };
}
