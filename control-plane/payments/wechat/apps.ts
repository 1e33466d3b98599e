/**
 * Calls to WeChat's open platform, api.weixin.qq.com: who a code belongs to, access tokens, and Virtual Payment (`/xpay/…`).
 * It answers 200 with `errcode`. Secrets are in its queries, so no URL of it is in any error.
 */

import { createHash } from "node:crypto";
import { ProcessorError, type ProcessorDeps } from "../payment.ts";
import type { WechatCredentials } from "./credentials.ts";
import type { Http } from "./http.ts";
import { integerOf, type Json, parseObject, textOf } from "./json.ts";
import { virtualPaySig } from "./signing.ts";

/** An access token is valid for at least so long after its successor was made. */
const TOKEN_MARGIN_MS = 300_000;
const TOKEN_MS_MIN = 30_000;
const CODE_CHARS_MAX = 256;
/** A code is good for one exchange, and an order whose answer was lost is sent again with the same code. */
const KNOWN_CODE_MS = 300_000;
const KNOWN_CODES_MAX = 1_000;

export interface MiniProgramSession {
  readonly openId: string;
  /** Only to sign with, at once: never stored, logged or answered. */
  readonly sessionKey: string;
}

export interface XpayAnswer {
  /** 0: it went well. */
  readonly errcode: number;
  readonly body: Json;
}

export interface Apps {
  /** Of the official account, from the code that `authorizeUrl` leads to. @throws ProcessorError */
  openIdOfPage(code: string): Promise<string>;
  /** Of the Mini Program, from the code of `wx.login`. @throws ProcessorError */
  openIdOfLogin(code: string): Promise<string>;
  session(code: string): Promise<MiniProgramSession>;
  /** Virtual Payment, signed. @throws ProcessorError when there is no answer, or when our credentials are refused */
  xpay(uri: string, body: Json): Promise<XpayAnswer>;
}

const CODE_FAILURES: ReadonlyMap<number, readonly [string, string]> = new Map([
  [40029, ["code_invalid", "the code is not valid"]],
  [40163, ["code_used", "the code was used already"]],
  [42003, ["code_expired", "the code has expired"]],
  [41008, ["code_missing", "the code is missing"]],
]);
const BUSY: ReadonlySet<number> = new Set([-1, 45009, 45011, 268490011, 268490015]);
const SECRET_FAILURES: ReadonlyMap<number, readonly [string, string]> = new Map([
  [40001, ["app_secret", "the app's secret is wrong"]],
  [40013, ["app_id", "there is no such app"]],
  [40125, ["app_secret", "the app's secret is wrong"]],
  [40164, ["address_not_listed", "this server's address is not on the app's list of allowed addresses"]],
  [48001, ["no_permission", "the app may not call this: apply for it at mp.weixin.qq.com"]],
  [50002, ["app_frozen", "the app is frozen"]],
  [268490003, ["virtual_app_key", "virtual_app_key is not the one of this environment"]],
  [268490021, ["no_virtual_payment", "Virtual Payment is not set up for this Mini Program"]],
]);
const TOKEN_REFUSED: ReadonlySet<number> = new Set([40001, 40014, 42001]);

/** What is wrong with the app or the load, whatever was asked. Null: something else. */
function commonFailure(errcode: number): ProcessorError | null {
  if (BUSY.has(errcode)) return new ProcessorError("unreachable", "busy", `WeChat is busy (${errcode})`);
  const [failure, message] = SECRET_FAILURES.get(errcode) ?? ["", ""];
  return failure === "" ? null : new ProcessorError("misconfigured", failure, `WeChat: ${message} (${errcode})`);
}

function codeFailure(errcode: number, remedy: string): ProcessorError {
  const common = commonFailure(errcode);
  if (common !== null) return common;
  if (errcode === 40226) return new ProcessorError("refused", "payer_blocked", "WeChat does not let this payer log in");
  const [failure, message] = CODE_FAILURES.get(errcode) ?? ["code_refused", `the code was refused (${errcode})`];
  return new ProcessorError("refused", failure, `WeChat: ${message}: ${remedy}`);
}

interface Call {
  readonly target: string;
  /** Null: GET. */
  readonly body: string | null;
}

async function ask(http: Http, base: string, { target, body }: Call): Promise<Json> {
  const answer = await http({
    method: body === null ? "GET" : "POST",
    url: base + target,
    headers: { accept: "application/json", ...(body === null ? {} : { "content-type": "application/json" }) },
    body,
  });
  const parsed = parseObject(answer.body);
  if (answer.status !== 200 || parsed === null) {
    throw new ProcessorError("unreachable", "busy", `WeChat did not answer as it should (${answer.status})`);
  }
  return parsed;
}

const query = (fields: Readonly<Record<string, string>>): string => new URLSearchParams(fields).toString();

/** The app's access token: asked for once at a time, kept until shortly before it expires. */
function createTokens(http: Http, deps: ProcessorDeps, { miniProgramAppId, miniProgramAppSecret }: WechatCredentials) {
  let held: { readonly token: string; readonly untilMs: number } | null = null;
  let refused = "";
  let running: Promise<string> | null = null;

  async function fetchOne(force: boolean): Promise<string> {
    const body = JSON.stringify({
      grant_type: "client_credential",
      appid: miniProgramAppId,
      secret: miniProgramAppSecret,
      force_refresh: force,
    });
    // The stable kind: asking for it takes nothing from whoever else of the merchant uses the app.
    const answer = await ask(http, deps.urls.wechat, { target: "/cgi-bin/stable_token", body });
    const token = textOf(answer, "access_token");
    if (token === "") {
      const errcode = integerOf(answer, "errcode") ?? 0;
      throw (
        commonFailure(errcode) ??
        new ProcessorError("unreachable", "no_access_token", `WeChat gives no access token (${errcode})`)
      );
    }
    const lifeMs = (integerOf(answer, "expires_in") ?? 0) * 1_000;
    held = { token, untilMs: deps.now() + Math.max(lifeMs - TOKEN_MARGIN_MS, TOKEN_MS_MIN) };
    return token;
  }

  async function fetchFresh(): Promise<string> {
    const token = await fetchOne(false);
    // Whoever holds a token that is refused before its time gets another only by force, 20 times a day.
    return token === refused ? fetchOne(true) : token;
  }

  return {
    async get(): Promise<string> {
      if (held !== null && deps.now() < held.untilMs) return held.token;
      running ??= fetchFresh().finally(() => void (running = null));
      return running;
    },
    refuse(token: string): void {
      refused = token;
      if (held?.token === token) held = null;
    },
  };
}

/** Who codes belonged to, by their digest. */
function createKnownCodes(deps: ProcessorDeps) {
  const known = new Map<string, { readonly openId: string; readonly untilMs: number }>();
  const keyOf = (code: string): string => createHash("sha256").update(code).digest("base64");
  return {
    get(code: string): string | null {
      const found = known.get(keyOf(code));
      return found !== undefined && deps.now() < found.untilMs ? found.openId : null;
    },
    set(code: string, openId: string): void {
      if (known.size >= KNOWN_CODES_MAX) known.delete(known.keys().next().value!);
      known.set(keyOf(code), { openId, untilMs: deps.now() + KNOWN_CODE_MS });
    },
  };
}

export function createApps(deps: ProcessorDeps, http: Http, credentials: WechatCredentials): Apps {
  const tokens = createTokens(http, deps, credentials);
  const pages = createKnownCodes(deps);
  const logins = createKnownCodes(deps);

  async function exchange(target: string, code: string, remedy: string): Promise<Json> {
    if (code === "" || code.length > CODE_CHARS_MAX) throw codeFailure(code === "" ? 41008 : 40029, remedy);
    const answer = await ask(http, deps.urls.wechat, { target, body: null });
    const errcode = integerOf(answer, "errcode") ?? 0;
    if (errcode !== 0) throw codeFailure(errcode, remedy);
    if (textOf(answer, "openid") === "") {
      throw new ProcessorError("unreachable", "malformed", "WeChat does not say whose code it is");
    }
    return answer;
  }

  async function session(code: string): Promise<MiniProgramSession> {
    const fields = {
      appid: credentials.miniProgramAppId,
      secret: credentials.miniProgramAppSecret,
      js_code: code,
      grant_type: "authorization_code",
    };
    const answer = await exchange(`/sns/jscode2session?${query(fields)}`, code, "call wx.login again");
    return { openId: textOf(answer, "openid"), sessionKey: textOf(answer, "session_key") };
  }

  return {
    session,
    async openIdOfPage(code) {
      const known = pages.get(code);
      if (known !== null) return known;
      const fields = {
        appid: credentials.appId,
        secret: credentials.appSecret,
        code,
        grant_type: "authorization_code",
      };
      const answer = await exchange(`/sns/oauth2/access_token?${query(fields)}`, code, "authorize again");
      pages.set(code, textOf(answer, "openid"));
      return textOf(answer, "openid");
    },
    async openIdOfLogin(code) {
      const known = logins.get(code);
      if (known !== null) return known;
      const { openId } = await session(code);
      logins.set(code, openId);
      return openId;
    },
    async xpay(uri, body) {
      const text = JSON.stringify(body);
      const call = async (): Promise<XpayAnswer> => {
        const token = await tokens.get();
        const fields = { access_token: token, pay_sig: virtualPaySig(credentials.virtualAppKey, uri, text) };
        const answer = await ask(http, deps.urls.wechat, { target: `${uri}?${query(fields)}`, body: text });
        const errcode = integerOf(answer, "errcode") ?? 0;
        if (TOKEN_REFUSED.has(errcode)) tokens.refuse(token);
        return { errcode, body: answer };
      };
      const first = await call();
      const answer = TOKEN_REFUSED.has(first.errcode) ? await call() : first;
      const common = commonFailure(answer.errcode);
      if (common !== null) throw common;
      return answer;
    },
  };
}
