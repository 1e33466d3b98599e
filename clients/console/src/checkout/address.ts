/** PURE: what the page's address says. */

import { basePath } from "../shared/base_path.ts";

/** Where a session comes from: enough to open another one like it. */
export interface Origin {
  readonly veId: string;
  /** The link's signature; empty: none. */
  readonly link: string;
  readonly returnUrl: string;
}

/**
 * `new`: from a link: a session is to be opened. `session`: of a session that exists; the secret only if the address holds
 * it, the code only where WeChat has sent the payer back. `none`: neither.
 */
export type Address =
  | { readonly kind: "new"; readonly origin: Origin }
  | {
      readonly kind: "session";
      readonly id: string;
      readonly secret: string | null;
      readonly wechatCode: string | null;
    }
  | { readonly kind: "none" };

/** Below the base path. */
const PATH = /^\/checkout(?:\/([A-Za-z0-9_-]{1,64}))?\/?$/;
const SECRET = /^#(tbc_[A-Za-z0-9_-]{1,256})$/;
const WECHAT_CODE_CHARS_MAX = 256;

export function parseAddress(url: Pick<URL, "pathname" | "search" | "hash">): Address {
  const path = PATH.exec(url.pathname.slice(basePath(url.pathname).length));
  if (path === null) return { kind: "none" };
  const query = new URLSearchParams(url.search);
  const id = path[1];
  if (id !== undefined) {
    const code = query.get("code") ?? "";
    return {
      kind: "session",
      id,
      secret: SECRET.exec(url.hash)?.[1] ?? null,
      wechatCode: code === "" || code.length > WECHAT_CODE_CHARS_MAX ? null : code,
    };
  }
  const veId = query.get("ve_id") ?? "";
  if (veId === "" || veId.length > 64) return { kind: "none" };
  return {
    kind: "new",
    origin: { veId, link: query.get("link") ?? "", returnUrl: query.get("return_url") ?? "" },
  };
}

/** The path of a session's page, beside the page that is at `pathname`. */
export function sessionPath(pathname: string, id: string): string {
  return `${basePath(pathname)}/checkout/${encodeURIComponent(id)}`;
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/**
 * Where the page may send the payer: over https, on its own origin, or to this machine, as in trials. Null: anywhere else,
 * `javascript:` above all.
 */
export function safeDestination(text: string, pageUrl: string): URL | null {
  let url: URL;
  try {
    url = new URL(text, pageUrl);
  } catch {
    return null;
  }
  if (url.username !== "" || url.password !== "") return null;
  if (url.protocol === "https:") return url;
  if (url.protocol !== "http:") return null;
  return url.origin === new URL(pageUrl).origin || LOOPBACK.test(url.hostname) ? url : null;
}
