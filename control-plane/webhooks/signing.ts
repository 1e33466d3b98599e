/**
 * PURE: secrets and signatures as Standard Webhooks describes them (the "symmetric" scheme of
 * standard-webhooks/standard-webhooks spec/standard-webhooks.md).
 */

import { createHmac } from "node:crypto";

const SECRET_PREFIX = "whsec_";

/** 32 random bytes as merchants see them. */
export function secretText(secret: Uint8Array): string {
  return SECRET_PREFIX + Buffer.from(secret).toString("base64");
}

export interface Signed {
  /** The event's, the same in every delivery of it. */
  readonly id: string;
  /** Seconds since 1970, of this attempt. */
  readonly timestampS: number;
  readonly body: string;
}

function signature(secret: Uint8Array, { id, timestampS, body }: Signed): string {
  return `v1,${createHmac("sha256", secret).update(`${id}.${timestampS}.${body}`, "utf8").digest("base64")}`;
}

/** The headers that a receiver verifies; one signature for each secret. */
export function signatureHeaders(signed: Signed, secrets: readonly Uint8Array[]): Record<string, string> {
  return {
    "webhook-id": signed.id,
    "webhook-timestamp": String(signed.timestampS),
    "webhook-signature": secrets.map((secret) => signature(secret, signed)).join(" "),
  };
}
