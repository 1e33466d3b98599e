/** PURE: where webhooks may go, who wants which, and when they are tried again. */

import { invalidField } from "./errors.ts";
import { checkHost } from "./upstream_address.ts";

export const WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX = 20;
/** Replays included. */
export const DELIVERIES_PER_EVENT_MAX = 1000;
/** How long deliveries are signed with the old secret too. */
export const OLD_SECRET_KEEP_MS = 86_400_000;

/** Numbers equal `tokenbill.v1.WebhookDeliveryState`. */
export const DeliveryState = { PENDING: 1, DELIVERED: 2, FAILED: 3 } as const;
export type DeliveryState = (typeof DeliveryState)[keyof typeof DeliveryState];

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

/** The pause after each attempt that failed; about three days in all. After the last there is no other. */
export const RETRY_DELAYS_MS: readonly number[] = [
  5 * SECOND_MS,
  30 * SECOND_MS,
  2 * MINUTE_MS,
  10 * MINUTE_MS,
  30 * MINUTE_MS,
  HOUR_MS,
  3 * HOUR_MS,
  6 * HOUR_MS,
  12 * HOUR_MS,
  24 * HOUR_MS,
  24 * HOUR_MS,
];
/** A pause is up to this part longer or shorter, so that what failed together does not come back together. */
const RETRY_JITTER = 0.1;

const GONE = 410;

/** `retry`: how long to wait. `gone`: the endpoint wants nothing any more. */
export type AttemptVerdict =
  | { readonly kind: "delivered" }
  | { readonly kind: "retry"; readonly delayMs: number }
  | { readonly kind: "failed" }
  | { readonly kind: "gone" };

/**
 * What becomes of a delivery after an attempt. `status` is the answer's, 0: there was none; `attempts` counts this one;
 * `random` is from 0 to 1.
 */
export function judgeAttempt(status: number, attempts: number, random: number): AttemptVerdict {
  if (status >= 200 && status < 300) return { kind: "delivered" };
  if (status === GONE) return { kind: "gone" };
  const delayMs = RETRY_DELAYS_MS[attempts - 1];
  if (delayMs === undefined) return { kind: "failed" };
  return { kind: "retry", delayMs: Math.round(delayMs * (1 - RETRY_JITTER + 2 * RETRY_JITTER * random)) };
}

/** Whether an endpoint with these types (none: all; `wallet.*`: all of a kind) wants this one. */
export function wantsEvent(types: readonly string[], type: string): boolean {
  if (types.length === 0) return true;
  return types.includes(type) || types.includes(`${type.slice(0, type.indexOf("."))}.*`);
}

/** @throws DomainError invalid_field, listing the types that there are */
export function checkEventTypes(types: readonly string[], known: readonly string[], field = "event_types"): void {
  const kinds = new Set(known.map((type) => `${type.slice(0, type.indexOf("."))}.*`));
  for (const [i, type] of types.entries()) {
    if (known.includes(type) || kinds.has(type)) continue;
    throw invalidField(
      `${field}[${i}]`,
      `there is no event of this type; there are ${[...known, ...kinds].join(", ")}`,
      "event_type",
    );
  }
}

/**
 * The URL as it is stored. What a host name resolves to is checked on every connection.
 * @throws DomainError invalid_field, address_not_allowed
 */
export function checkWebhookUrl(text: string, allowPrivate: boolean, field = "url"): string {
  const url = URL.parse(text);
  if (url === null) throw invalidField(field, "is not a URL; it must look like https://shop.example.com/hooks", "url");
  if (url.protocol !== "https:" && !(url.protocol === "http:" && allowPrivate))
    throw invalidField(field, "must begin with https://", "url");
  if (url.username !== "" || url.password !== "")
    throw invalidField(field, "must not hold credentials; check the signature instead", "url");
  if (text.includes("#")) throw invalidField(field, "must not have a fragment", "url");
  checkHost(url, allowPrivate, field, "webhooks may not go to");
  return url.href;
}
