// Verifies webhooks as Standard Webhooks (www.standardwebhooks.com) describes them. Its libraries do the same.

import { createHmac, timingSafeEqual } from "node:crypto";

/** Older or newer ones may be somebody's recording. */
const TOLERANCE_S = 300;

/**
 * @param {string} secret `whsec_…`, as CreateWebhookEndpoint answered it
 * @param {import("node:http").IncomingHttpHeaders} headers
 * @param {string} body as it came, byte for byte: JSON that was parsed and written again has another signature
 * @param {number} nowMs
 * @returns {{ id: string, type: string, data: any } | null} null: not to be believed
 */
export function verifyWebhook(secret, headers, body, nowMs) {
  const id = String(headers["webhook-id"] ?? "");
  const timestamp = String(headers["webhook-timestamp"] ?? "");
  const signatures = String(headers["webhook-signature"] ?? "");
  if (id === "" || !/^\d{1,12}$/.test(timestamp)) return null;
  if (Math.abs(nowMs / 1000 - Number(timestamp)) > TOLERANCE_S) return null;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest();
  // There are several while a secret is being replaced; one that fits is enough.
  const fits = signatures.split(" ").some((signature) => {
    const [version, value = ""] = signature.split(",");
    const given = Buffer.from(value, "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
  if (!fits) return null;
  const { type, data } = JSON.parse(body);
  return { id, type, data };
}
