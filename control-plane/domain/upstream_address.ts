/** PURE: where a Provider's base URL may point, and what its headers may be. */

import { isIP } from "node:net";
import { addressAllowed } from "../../core/upstream_address.ts";
import { DomainError, invalidField } from "./errors.ts";

/** A host name or address of a URL without the brackets of IPv6. */
export function bareHost(url: URL): string {
  return url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname;
}

/**
 * What can be told of a host before its name is resolved. `what` begins the refusal: `upstreams may not live at`.
 * @throws DomainError address_not_allowed
 */
export function checkHost(url: URL, allowPrivate: boolean, field: string, what: string): void {
  const host = bareHost(url);
  const isLocalName = /^(.*\.)?localhost\.?$/.test(host);
  const isRefused = isLocalName ? !allowPrivate : isIP(host) !== 0 && !addressAllowed(host, allowPrivate);
  if (!isRefused) return;
  throw new DomainError(
    "address_not_allowed",
    `${field}: ${what} this address; private and loopback ones need ALLOW_PRIVATE_UPSTREAMS=true on the deployment, link-local ones are never allowed`,
    { field },
  );
}

/**
 * The base URL as it is stored: without slashes at its end. What a host name resolves to is checked again on every
 * connection.
 * @throws DomainError invalid_field, address_not_allowed
 */
export function checkBaseUrl(text: string, allowPrivate: boolean, field = "base_url"): string {
  const url = URL.parse(text);
  if (url === null) throw invalidField(field, "is not a URL; it must look like https://api.example.com/v1", "url");
  if (url.protocol !== "https:" && url.protocol !== "http:")
    throw invalidField(field, "must begin with https:// or http://", "url");
  if (url.username !== "" || url.password !== "")
    throw invalidField(field, "must not hold credentials; put them into credentials", "url");
  // An empty query or fragment leaves its mark in the text alone.
  if (/[?#]/.test(text)) throw invalidField(field, "must not have a query or a fragment", "url");
  checkHost(url, allowPrivate, field, "upstreams may not live at");
  return url.href.replace(/\/+$/, "");
}

/** Set by TokenBill itself for every upstream call, or belonging to one connection alone. */
const RESERVED_HEADERS: ReadonlySet<string> = new Set([
  "accept-encoding",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "forwarded",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-authenticate",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "via",
  "www-authenticate",
]);

/** Words that mark a header as a credential, whatever stands around them. */
const CREDENTIAL_WORD =
  /(^|[-_.])(auth|authorization|token|secret|password|passwd|credentials?|cookie2?|apikey|api[-_]key|access[-_]key)([-_.]|$)/;

/** @throws DomainError invalid_field */
export function checkHeaders(headers: Readonly<Record<string, string>>, field = "headers"): void {
  const seen = new Set<string>();
  for (const name of Object.keys(headers)) {
    const lower = name.toLowerCase();
    const at = `${field}["${lower}"]`;
    if (seen.has(lower)) throw invalidField(at, "is there twice; names differ by more than case", "unique");
    seen.add(lower);
    if (RESERVED_HEADERS.has(lower)) throw invalidField(at, "is set by TokenBill; leave it out", "reserved_header");
    if (CREDENTIAL_WORD.test(lower)) {
      throw invalidField(
        at,
        "looks like a credential, and headers are readable; put secrets into credentials",
        "credential_header",
      );
    }
  }
}
