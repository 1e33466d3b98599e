/** For tests: who WeChat's codes belong to, and its access tokens. */

import { randomBytes } from "node:crypto";
import type { Received } from "./testing_http.ts";
import { MERCHANT } from "./testing_keys.ts";

interface Code {
  readonly appId: string;
  readonly openid: string;
  readonly sessionKey: string;
  used: boolean;
}

export interface Sessions {
  /** A payer's code. */
  newCode(appId: string, payer?: string): string;
  /** Of the newest code; empty: there is none. */
  sessionKeyOf(openid: string): string;
  isToken(token: string | null): boolean;
  /** How often an access token was made. */
  tokensMade(): number;
  /** The token that is out is good for nothing from now on, and yet it is the one that is given out. */
  spoilToken(): void;
  /** Null: another path. */
  answer(received: Received): object | null;
}

const SECRETS: Readonly<Record<string, string>> = {
  [MERCHANT.appId]: MERCHANT.appSecret,
  [MERCHANT.miniProgramAppId]: MERCHANT.miniProgramAppSecret,
};

export function createSessions(): Sessions {
  const codes = new Map<string, Code>();
  const sessions = new Map<string, string>();
  let made = 0;
  let token = "";
  let spoiled = "";

  function exchange(query: URLSearchParams, name: string): object {
    const appId = query.get("appid") ?? "";
    const code = codes.get(query.get(name) ?? "");
    if (SECRETS[appId] === undefined) return { errcode: 40013, errmsg: "invalid appid" };
    if (SECRETS[appId] !== query.get("secret")) return { errcode: 40125, errmsg: "invalid appsecret" };
    if (code?.appId !== appId) return { errcode: 40029, errmsg: "invalid code" };
    if (code.used) return { errcode: 40163, errmsg: "code been used" };
    code.used = true;
    return { openid: code.openid, session_key: code.sessionKey, access_token: "page-token", expires_in: 7200 };
  }

  function accessToken(text: string): object {
    const body = JSON.parse(text) as { appid: string; secret: string; force_refresh: boolean };
    if (SECRETS[body.appid] !== body.secret) return { errcode: 40125, errmsg: "invalid appsecret" };
    if (token === "" || body.force_refresh) token = `token-${++made}`;
    return { access_token: token, expires_in: 7200 };
  }

  return {
    newCode(appId, payer = "payer") {
      const code = `code-${randomBytes(12).toString("hex")}`;
      const openid = `o-${appId}-${payer}`;
      const sessionKey = randomBytes(16).toString("base64");
      sessions.set(openid, sessionKey);
      codes.set(code, { appId, openid, sessionKey, used: false });
      return code;
    },
    sessionKeyOf: (openid) => sessions.get(openid) ?? "",
    isToken: (given) => given === token && token !== spoiled,
    tokensMade: () => made,
    spoilToken: () => void (spoiled = token),
    answer({ url, body }) {
      if (url.pathname === "/sns/oauth2/access_token") return exchange(url.searchParams, "code");
      if (url.pathname === "/sns/jscode2session") return exchange(url.searchParams, "js_code");
      return url.pathname === "/cgi-bin/stable_token" ? accessToken(body.toString()) : null;
    },
  };
}
