/**
 * The signature in a checkout link: whoever shows it was given the link by the gateway, and so may see the wallet. Nodes
 * sign links in the same way. It is the text `<unix seconds until which it is good>.<22 characters of base64url>`: the
 * first 16 bytes of HMAC-SHA256 over `tokenbill checkout link\0<VE id>\0<those seconds>`, with the VE's pin secret as key.
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import { pinSecret } from "./pin_secret.ts";
import type { Secrets } from "./secrets.ts";

export const CHECKOUT_LINK_LIFE_S = 3600;
/** The clock of the node that signed may be wrong by this much, either way. */
export const CHECKOUT_LINK_SKEW_S = 300;

const SIGNATURE_BYTES = 16;

function signature(secrets: Pick<Secrets, "derive">, veId: string, expiresAtS: string): string {
  const text = `tokenbill checkout link\0${veId}\0${expiresAtS}`;
  const whole = createHmac("sha256", pinSecret(secrets, veId)).update(text, "utf8").digest();
  return whole.subarray(0, SIGNATURE_BYTES).toString("base64url");
}

/** `nowMs`: milliseconds since 1970. */
export function signCheckoutLink(secrets: Pick<Secrets, "derive">, veId: string, nowMs: number): string {
  const expiresAtS = String(Math.floor(nowMs / 1000) + CHECKOUT_LINK_LIFE_S);
  return `${expiresAtS}.${signature(secrets, veId, expiresAtS)}`;
}

/** Whether the link was signed for this VE, and is neither too old nor from a future that no clock here can have. */
export function verifyCheckoutLink(
  secrets: Pick<Secrets, "derive">,
  veId: string,
  link: string,
  nowMs: number,
): boolean {
  const match = /^([1-9]\d{0,11})\.([A-Za-z0-9_-]{22})$/.exec(link);
  if (match === null) return false;
  const [, expiresAtS, given] = match;
  const leftS = Number(expiresAtS) - nowMs / 1000;
  if (leftS <= -CHECKOUT_LINK_SKEW_S || leftS > CHECKOUT_LINK_LIFE_S + CHECKOUT_LINK_SKEW_S) return false;
  return timingSafeEqual(Buffer.from(signature(secrets, veId, expiresAtS!)), Buffer.from(given!));
}
