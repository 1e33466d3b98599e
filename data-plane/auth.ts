/** Whom a request is from and what it wants: the access key, the VE it was addressed to, and the API path. */

import { hash } from "node:crypto";
import type { RouteTable } from "./route_table.ts";
import type { RouteKey } from "./route_types.ts";
import type { Exchange } from "./transport.ts";

/** Longer secrets are not ours. */
const SECRET_CHARS_MAX = 512;

/** The secret as sent: `Authorization: Bearer`, `api-key` or `x-api-key`; "" if there is none. */
function secretOf(exchange: Pick<Exchange, "header">): string {
  const authorization = exchange.header("authorization");
  if (authorization.length > 7 && authorization.slice(0, 7).toLowerCase() === "bearer ")
    return authorization.slice(7).trim();
  return exchange.header("api-key") || exchange.header("x-api-key");
}

/** A VE id from a host label or a path segment: `ve_x` and `ve-x`, in any case. "" if it is none. */
export function veIdOf(label: string): string {
  const lower = label.toLowerCase();
  return lower.startsWith("ve_") || lower.startsWith("ve-") ? `ve_${lower.slice(3)}` : "";
}

/**
 * The VE that the host names. Null: the host names none (VE_DOMAIN is off, or the host is another one or the domain
 * itself). "": it stands in the domain but is no VE.
 */
export function veOfHost(host: string, veDomain: string): string | null {
  if (veDomain === "" || host.length <= veDomain.length) return null;
  const colon = host.lastIndexOf(":");
  const name = (colon > 0 && !host.endsWith("]") ? host.slice(0, colon) : host).toLowerCase().replace(/\.$/, "");
  const suffix = `.${veDomain}`;
  return name.endsWith(suffix) ? veIdOf(name.slice(0, -suffix.length)) : null;
}

/** A request target, taken apart. */
export interface Target {
  /** The VE in the path: null if it names none, "" if what stands there is no VE. */
  readonly ve: string | null;
  /** The path from `/v1` on, without query. */
  readonly path: string;
  /** The authority of an absolute target, which counts instead of the Host header; "" if there is none. */
  readonly authority: string;
}

const VE_PREFIX = "/ve/";

export function parseTarget(target: string): Target {
  let path = target;
  let authority = "";
  if (!path.startsWith("/")) {
    authority = /^https?:\/\/([^/?#]*)/i.exec(path)?.[1] ?? "";
    path = path.replace(/^https?:\/\/[^/?#]*/i, "") || "/";
  }
  const query = path.search(/[?#]/);
  if (query >= 0) path = path.slice(0, query);
  if (!path.startsWith(VE_PREFIX)) return { ve: null, path, authority };
  const slash = path.indexOf("/", VE_PREFIX.length);
  const end = slash === -1 ? path.length : slash;
  return { ve: veIdOf(path.slice(VE_PREFIX.length, end)), path: path.slice(end) || "/", authority };
}

/**
 * The key that may be used for this request; null whatever is wrong: no key, not known, of another VE than the one
 * addressed, or of a disabled one.
 */
export function authenticate(
  table: RouteTable,
  exchange: Pick<Exchange, "header">,
  target: Target,
  veDomain: string,
): RouteKey | null {
  const secret = secretOf(exchange);
  if (secret === "" || secret.length > SECRET_CHARS_MAX) return null;
  // The table is searched by digest: how long that takes says nothing about the secrets in it.
  const key = table.key(hash("sha256", secret, "base64"));
  if (key === undefined || key.ve.disabled) return null;
  const host = veDomain === "" ? null : veOfHost(target.authority || exchange.header("host"), veDomain);
  if (host !== null && host !== key.ve.id) return null;
  if (target.ve !== null && target.ve !== key.ve.id) return null;
  return key;
}
