/** WeChat Pay and WeChat's Virtual Payment as a payment processor. */

import { createHash } from "node:crypto";
import { PaymentMethod, PaymentProcessor } from "../../domain/checkout.ts";
import {
  type NotificationAnswer,
  NotificationRefused,
  type OpenAccount,
  type Processor,
  type ProcessorAccount,
  type ProcessorDeps,
  ProcessorError,
  type RawNotification,
} from "../payment.ts";
import { createApps } from "./apps.ts";
import { createPayClient } from "./client.ts";
import { checkWechatCredentials, openCredentials } from "./credentials.ts";
import { createHttp, headerOf } from "./http.ts";
import { readPayNotification } from "./notifications.ts";
import { answerPush, readPush } from "./pushes.ts";
import { findTransactionRefund, refundTransaction } from "./refunds.ts";
import { closeTransaction, findTransaction, startTransaction, type WechatAccount } from "./transactions.ts";
import { closeVirtual, findVirtual, refundVirtual, startVirtual } from "./virtual.ts";

const AUTHORIZE_URL = "https://open.weixin.qq.com/connect/oauth2/authorize";
/** Comes back beside `code`, and tells it from other codes. */
const AUTHORIZE_STATE = "wechat";
const CURRENCY = "CNY";
/** Certificates, access tokens and codes are kept for so many accounts. */
const ACCOUNTS_MAX = 1_000;

/** WeChat repeats whatever is not answered with 2xx; 401 is what it wants to see for its probes. */
const STATUS_OF: Readonly<Record<string, number>> = {
  bad_signature: 401,
  stale: 401,
  other_account: 403,
  not_configured: 403,
  not_encrypted: 403,
  malformed: 400,
};

const isPush = (raw: RawNotification): boolean =>
  headerOf(raw.headers, "wechatpay-signature") === "" && raw.query.has("signature");

function answer(account: WechatAccount, raw: RawNotification, refused: NotificationRefused | null): NotificationAnswer {
  const problem = refused === null ? null : { status: STATUS_OF[refused.reason] ?? 503, reason: refused.reason };
  if (isPush(raw)) return answerPush(account.credentials, raw, problem);
  if (problem === null) return { status: 204, type: "text/plain", body: "" };
  const body = JSON.stringify({ code: "FAIL", message: problem.reason });
  return { status: problem.status, type: "application/json", body };
}

function accountOf(account: WechatAccount): ProcessorAccount {
  const isVirtual = (method: PaymentMethod): boolean => method === PaymentMethod.WECHAT_VIRTUAL;
  return {
    async start(order) {
      if (order.currency !== CURRENCY) throw new ProcessorError("refused", "currency", "WeChat Pay takes CNY alone");
      return isVirtual(order.method) ? startVirtual(account, order) : startTransaction(account, order);
    },
    find: (payment) => (isVirtual(payment.method) ? findVirtual : findTransaction)(account, payment),
    close: (payment) => (isVirtual(payment.method) ? closeVirtual : closeTransaction)(account, payment),
    refund: (order) => (isVirtual(order.payment.method) ? refundVirtual : refundTransaction)(account, order),
    findRefund: (order) => (isVirtual(order.payment.method) ? refundVirtual : findTransactionRefund)(account, order),
    async readNotification(raw) {
      try {
        return await (isPush(raw) ? readPush : readPayNotification)(account, raw);
      } catch (error) {
        // It may be true: WeChat sends it again.
        if (error instanceof ProcessorError) throw new NotificationRefused("not_checked", error.message);
        throw error;
      }
    },
    answerNotification: (raw, problem) => answer(account, raw, problem),
  };
}

/** What is kept of an account between calls goes with its credentials: new ones begin anew. */
function createOpener(deps: ProcessorDeps): (account: OpenAccount) => WechatAccount {
  const opened = new Map<string, { readonly digest: string; readonly account: WechatAccount }>();
  const http = createHttp();
  return ({ id, credentials: bytes }) => {
    const digest = createHash("sha256").update(bytes).digest("base64");
    const known = opened.get(id);
    if (known?.digest === digest) return known.account;
    const credentials = openCredentials(bytes);
    const account = {
      deps,
      credentials,
      pay: createPayClient(deps, http, credentials),
      apps: createApps(deps, http, credentials),
    };
    opened.delete(id);
    if (opened.size >= ACCOUNTS_MAX) opened.delete(opened.keys().next().value!);
    opened.set(id, { digest, account });
    return account;
  };
}

export function wechatProcessor(deps: ProcessorDeps): Processor {
  const open = createOpener(deps);
  return {
    processor: PaymentProcessor.WECHAT_PAY,
    currencies: () => [CURRENCY],
    canSave: () => false,
    authorizeUrl(account, method, returnUrl) {
      const { appId } = open(account).credentials;
      if (method !== PaymentMethod.WECHAT_JSAPI || appId === "") return "";
      // WeChat wants them in this order.
      const query = new URLSearchParams({
        appid: appId,
        redirect_uri: returnUrl,
        response_type: "code",
        scope: "snsapi_base",
        state: AUTHORIZE_STATE,
      });
      return `${AUTHORIZE_URL}?${query.toString()}#wechat_redirect`;
    },
    checkCredentials: checkWechatCredentials,
    open: (account) => accountOf(open(account)),
  };
}
