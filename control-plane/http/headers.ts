/** PURE: the headers that keep what is served from being framed, sniffed, indexed, or fed with foreign scripts. */

/** Everything comes from here, nothing runs inline, nobody frames it, and forms go nowhere else. */
export const PAGE_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "object-src 'none'",
].join("; ");

const UNUSED_FEATURES = ["accelerometer", "camera", "display-capture", "geolocation", "gyroscope", "microphone", "midi"]
  .concat(["payment", "publickey-credentials-get", "usb"])
  .map((feature) => `${feature}=()`)
  .join(", ");

const TRANSPORT_SECURITY_S = 31_536_000;

/** For every answer. A browser that came by https is told to stay with it. */
export function securityHeaders(publicUrl: string): Record<string, string> {
  return {
    "content-security-policy": PAGE_POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": UNUSED_FEATURES,
    "x-robots-tag": "noindex, nofollow",
    ...(publicUrl.startsWith("https:") ? { "strict-transport-security": `max-age=${TRANSPORT_SECURITY_S}` } : {}),
  };
}
