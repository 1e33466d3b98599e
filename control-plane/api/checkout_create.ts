/** CreateCheckoutSession, for merchants and for payers who are strangers still. */

import { create } from "@bufbuild/protobuf";
import {
  type CreateCheckoutSessionRequest,
  CreateCheckoutSessionRequestSchema,
  type CreateCheckoutSessionResponse,
  CreateCheckoutSessionResponseSchema,
} from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import { verifyCheckoutLink } from "../checkout_link.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import { SESSIONS_BY_ADDRESS, SESSIONS_BY_VE, type Throttle, veSubject } from "../checkout/throttle.ts";
import type { Tx } from "../db/database.ts";
import { CheckoutState } from "../domain/checkout.ts";
import { addressGroup } from "../domain/client_address.ts";
import { DomainError, invalidField, notFound } from "../domain/errors.ts";
import { allowedReturnUrl } from "../domain/return_url.ts";
import { canonicalVeId } from "../domain/ve_id.ts";
import { digest } from "../secrets.ts";
import { addCheckoutEvent, type CheckoutCause, insertCheckoutSession } from "../store/checkout_session.ts";
import { type CheckoutVeRow, findCheckoutVe } from "../store/checkout_ve.ts";
import { PAYER_SECRET_PREFIX } from "./access.ts";
import { closedBecause } from "./checkout_offer.ts";
import { type Audience, readSession } from "./checkout_wire.ts";
import { once, requestBytes } from "./idempotency.ts";

export const SESSION_LIFE_S_DEFAULT = 3600;
const SESSION_LIFE_S_MIN = 300;

/** @throws DomainError invalid_field */
function lifeMs(expireAfterS: number): number {
  if (expireAfterS === 0) return SESSION_LIFE_S_DEFAULT * 1000;
  if (expireAfterS >= SESSION_LIFE_S_MIN) return expireAfterS * 1000;
  throw invalidField("expire_after_s", `give at least ${SESSION_LIFE_S_MIN}, or 0 for an hour`, "int32.gte");
}

/** @throws DomainError invalid_field */
function readReturnUrl(ve: CheckoutVeRow, text: string): string {
  if (text === "") return "";
  const url = allowedReturnUrl(text, ve.return_url_prefixes);
  if (url !== null) return url;
  throw invalidField(
    "return_url",
    "does not begin with one of the merchant's return_url_prefixes: they are set with UpdateCheckoutSettings",
    "not_allowed",
  );
}

interface NewSession {
  readonly linked: boolean;
  readonly lifeMs: number;
  readonly audience: Audience;
  readonly cause: CheckoutCause;
}

async function insert(
  deps: CheckoutDeps,
  tx: Tx,
  ve: CheckoutVeRow,
  request: CreateCheckoutSessionRequest,
  { linked, lifeMs: life, audience, cause }: NewSession,
): Promise<CreateCheckoutSessionResponse> {
  const returnUrl = readReturnUrl(ve, request.returnUrl);
  const now = new Date(deps.now());
  const secret = deps.secrets.newSecret(PAYER_SECRET_PREFIX);
  const row = await insertCheckoutSession(tx, {
    id: deps.newId("cs_"),
    merchantId: ve.merchant_id,
    veId: ve.id,
    secretDigest: digest(secret),
    linked,
    automatic: false,
    metadata: request.metadata,
    returnUrl,
    now,
    expiresAt: new Date(now.getTime() + life),
  });
  const { OPEN } = CheckoutState;
  await addCheckoutEvent(tx, row.id, { at: now, from_state: OPEN, to_state: OPEN, cause, detail: "created" });
  return create(CreateCheckoutSessionResponseSchema, {
    checkoutSession: await readSession(tx, row, audience),
    secret,
    checkoutUrl: `${deps.settings.publicUrl}/checkout/${row.id}#${secret}`,
  });
}

/** @throws DomainError not_found, wrong_state, invalid_field, request_id_reused */
export async function createForMerchant(
  deps: CheckoutDeps,
  merchantId: string,
  request: CreateCheckoutSessionRequest,
): Promise<CreateCheckoutSessionResponse> {
  const session: NewSession = {
    linked: request.showWallet ?? true,
    lifeMs: lifeMs(request.expireAfterS),
    audience: "merchant",
    cause: "api",
  };
  const bytes = requestBytes(CreateCheckoutSessionRequestSchema, request);
  const method = "CreateCheckoutSession";
  return deps.db.tx((tx) =>
    once(tx, deps, merchantId, method, request.requestId, bytes, CreateCheckoutSessionResponseSchema, async () => {
      const ve = await findCheckoutVe(tx, canonicalVeId(request.veId));
      if (ve === null || ve.merchant_id !== merchantId || ve.template) throw notFound("VE");
      const closed = closedBecause(ve);
      if (closed !== null) {
        throw new DomainError("wrong_state", `the VE is ${closed}, so that it cannot be topped up`, {
          metadata: { state: closed },
        });
      }
      return insert(deps, tx, ve, request, session);
    }),
  );
}

/** @throws DomainError invalid_field */
function checkStranger(request: CreateCheckoutSessionRequest): void {
  const given: readonly (readonly [field: string, isGiven: boolean])[] = [
    ["request_id", request.requestId !== ""],
    ["metadata", Object.keys(request.metadata).length > 0],
    ["show_wallet", request.showWallet !== undefined],
    ["expire_after_s", request.expireAfterS !== 0],
  ];
  const [first] = given.find(([, isGiven]) => isGiven) ?? [];
  if (first !== undefined)
    throw invalidField(first, "only merchants can set it, with their API token", "merchants_only");
}

/**
 * A VE that cannot be topped up, for whatever reason, answers like one that never was.
 * @throws DomainError not_found, invalid_field, limit_reached
 */
export async function createForStranger(
  deps: CheckoutDeps,
  throttle: Throttle,
  clientAddress: string,
  request: CreateCheckoutSessionRequest,
): Promise<CreateCheckoutSessionResponse> {
  checkStranger(request);
  await throttle.take([SESSIONS_BY_ADDRESS, addressGroup(clientAddress)]);
  const ve = await findCheckoutVe(deps.db, canonicalVeId(request.veId));
  if (ve === null || closedBecause(ve) !== null) throw notFound("VE");
  const linked = verifyCheckoutLink(deps.secrets, ve.id, request.link, deps.now());
  // Only a VE that is open is counted: others must answer alike however often they are asked for.
  await throttle.take([SESSIONS_BY_VE, veSubject(ve.id, linked)]);
  const life = SESSION_LIFE_S_DEFAULT * 1000;
  return deps.db.tx((tx) => insert(deps, tx, ve, request, { linked, lifeMs: life, audience: "payer", cause: "page" }));
}
