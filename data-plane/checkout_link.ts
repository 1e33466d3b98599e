/**
 * PURE. The signature of a checkout link: whoever holds one was shown it by a node a short while ago, to somebody with a
 * key of the VE, and may see its wallet. The control plane recomputes it (control-plane/checkout_link.ts); a contract test
 * keeps the two equal.
 *
 * Its text is `<exp>.<mac>`: when it ends, in seconds since 1970, and the first 16 bytes, as base64url, of HMAC-SHA256 over
 * `tokenbill checkout link\0<VE id>\0<exp>` with the VE's pin secret.
 */

import { createHmac } from "node:crypto";
import type { RouteVe } from "./route_types.ts";

/** At least this long; at most EXPIRY_STEP_S longer. */
export const CHECKOUT_LINK_LIFE_S = 3600;
/** Links end with a full minute, so that those of one minute are equal. */
export const EXPIRY_STEP_S = 60;

const LABEL = "tokenbill checkout link";
const MAC_BYTES = 16;

/**
 * @param secret the VE's `pinSecret`, latin1, not empty
 * @param nowMs milliseconds since 1970 by the wall clock
 */
export function checkoutLink(secret: string, veId: string, nowMs: number): string {
  const expiry = Math.ceil((Math.floor(nowMs / 1000) + CHECKOUT_LINK_LIFE_S) / EXPIRY_STEP_S) * EXPIRY_STEP_S;
  const mac = createHmac("sha256", Buffer.from(secret, "latin1")).update(`${LABEL}\0${veId}\0${expiry}`).digest();
  return `${expiry}.${mac.toString("base64url", 0, MAC_BYTES)}`;
}

/**
 * Where a payer can top the VE up, signed if the node knows the VE's secret: an older control plane sent none.
 * @param nowMs milliseconds since 1970 by the wall clock: the control plane looks at its own
 */
export function checkoutUrl(ve: RouteVe, nowMs: number): string {
  const url = ve.checkoutEndsWithId ? ve.checkoutPrefix + ve.id : ve.checkoutPrefix;
  if (ve.pinSecret === "" || url === "") return url;
  return `${url}${url.includes("?") ? "&" : "?"}link=${checkoutLink(ve.pinSecret, ve.id, nowMs)}`;
}
