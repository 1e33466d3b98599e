/** Calls to WeChat Pay APIv3: signed by the merchant, answered by WeChat Pay with a signature, or not believed. */

import { ProcessorError, type ProcessorDeps } from "../payment.ts";
import { createPlatformKeys, type PlatformKeys, type Verdict, verifySigned } from "./certificates.ts";
import type { WechatCredentials } from "./credentials.ts";
import type { Http, HttpAnswer } from "./http.ts";
import { type Json, parseObject, textOf } from "./json.ts";
import { authorization } from "./signing.ts";

const NONCE_BYTES = 16;
const MESSAGE_CHARS_MAX = 120;
const USER_AGENT = "TokenBill";

/** An answer whose signature was checked. */
export interface PayAnswer {
  readonly status: number;
  /** Null where there is none, as with 204. */
  readonly body: Json | null;
  /** What went wrong in WeChat's word, in capitals without underscores, as they write one word in both ways; empty: nothing. */
  readonly code: string;
}

export interface PayClient {
  readonly keys: PlatformKeys;
  /** @throws ProcessorError unless WeChat Pay signed the answer, whatever it says */
  call(method: "GET" | "POST", target: string, body: Json | null): Promise<PayAnswer>;
}

export function createPayClient(deps: ProcessorDeps, http: Http, credentials: WechatCredentials): PayClient {
  async function send(method: "GET" | "POST", target: string, body: Json | null): Promise<HttpAnswer> {
    const text = body === null ? "" : JSON.stringify(body);
    const nonce = Buffer.from(deps.random(NONCE_BYTES)).toString("hex");
    const request = { method, target, body: text, timestampS: Math.floor(deps.now() / 1_000), nonce };
    return http({
      method,
      url: deps.urls.wechatPay + target,
      headers: {
        authorization: authorization(credentials, request),
        accept: "application/json",
        "accept-language": "en",
        "user-agent": USER_AGENT,
        ...(body === null ? {} : { "content-type": "application/json" }),
        // Says which key the answer is to be signed with.
        ...(credentials.platformPublicKey === null ? {} : { "wechatpay-serial": credentials.platformPublicKey.id }),
      },
      body: body === null ? null : text,
    });
  }

  const keys = createPlatformKeys({
    credentials,
    now: () => deps.now(),
    download: () => send("GET", "/v3/certificates", null),
    log: deps.log,
  });
  return {
    keys,
    async call(method, target, body) {
      // Nothing is done whose answer could not be checked.
      await keys.prepare();
      const answer = await send(method, target, body);
      // Only a request whose signature is wrong is answered without one.
      if (answer.status === 401) throw signError();
      const verdict = await verifySigned(keys.find, answer.headers, answer.body, deps.now()).catch((error: unknown) => {
        // Whatever is wrong with the keys: what was asked may have been done.
        if (error instanceof ProcessorError) throw new ProcessorError("unreachable", error.failure, error.message);
        throw error;
      });
      if (verdict !== "good") throw notBelieved(verdict, answer.status);
      const parsed = answer.body.length === 0 ? null : parseObject(answer.body);
      if (parsed === null && answer.body.length > 0) {
        throw new ProcessorError("unreachable", "malformed", "the answer of WeChat Pay is no JSON object");
      }
      const failed = answer.status >= 300;
      const code = failed ? textOf(parsed, "code").toUpperCase().replaceAll("_", "") : "";
      return { status: answer.status, body: parsed, code: failed && code === "" ? "UNKNOWN" : code };
    },
  };
}

function signError(): ProcessorError {
  return new ProcessorError(
    "misconfigured",
    "sign_error",
    "WeChat Pay does not accept our signature: merchant_number, certificate_serial_no and private_key do not fit together, or this machine's clock is wrong",
  );
}

/** What was asked may have been done all the same, so it is to be asked again. */
function notBelieved(verdict: Exclude<Verdict, "good">, status: number): ProcessorError {
  if (status >= 500 || status === 429) {
    return new ProcessorError("unreachable", "busy", `WeChat Pay is not available (${status})`);
  }
  const why: Readonly<Record<typeof verdict, string>> = {
    unsigned: "it has no signature",
    bad: "its signature is wrong",
    stale: "it is from another time: is this machine's clock right?",
    unknown_serial: "it was signed with a key that is not known: is platform_public_key_id right?",
  };
  return new ProcessorError(
    "unreachable",
    `answer_${verdict}`,
    `an answer of WeChat Pay is not believed: ${why[verdict]}`,
  );
}

const MISCONFIGURED: ReadonlySet<string> = new Set([
  "SIGNERROR",
  "NOAUTH",
  "APPIDMCHIDNOTMATCH",
  "MCHNOTEXISTS",
  "MCHNOTEXIST",
  "APPIDNOTEXIST",
  "ACCOUNTERROR",
]);
/** Those that come with a 5xx although nothing gets better by asking again. */
const REFUSED: ReadonlySet<string> = new Set(["OPENIDMISMATCH"]);
const UNREACHABLE: ReadonlySet<string> = new Set([
  "SYSTEMERROR",
  "BANKERROR",
  "FREQUENCYLIMITED",
  "RATELIMITEXCEEDED",
  "RATELIMITEXCEED",
  "USERPAYING",
]);

const REMEDIES: Readonly<Record<string, string>> = {
  NOAUTH: "the merchant has not been granted this product: apply for it on the merchant platform",
  APPIDMCHIDNOTMATCH: "the app is not bound to the merchant number: bind it on the merchant platform",
  NOTENOUGH: "the merchant's balance at WeChat Pay does not cover it: top it up and try again",
  ORDERCLOSED: "the order is closed: start a new payment",
  OUTTRADENOUSED: "the order number was used already: start a new payment",
  OPENIDMISMATCH: "the code was made for another app: ask for a new one with the right app",
};

/** What a signed answer that is none of success means. */
export function payFailure(answer: PayAnswer): ProcessorError {
  const { status, code } = answer;
  const word = textOf(answer.body, "code").toLowerCase();
  const failure = /^\w{1,40}$/.test(word) ? word : "unknown";
  const said = textOf(answer.body, "message").replaceAll(/\p{C}/gu, " ").slice(0, MESSAGE_CHARS_MAX);
  const message = `WeChat Pay: ${REMEDIES[code] ?? (said === "" ? `it answered ${status}` : said)}`;
  if (MISCONFIGURED.has(code)) return new ProcessorError("misconfigured", failure, message);
  if (REFUSED.has(code)) return new ProcessorError("refused", failure, message);
  const later = status >= 500 || status === 429 || UNREACHABLE.has(code);
  return new ProcessorError(later ? "unreachable" : "refused", failure, message);
}
