// The merchant's backend for the Mini Program: it holds the API token, the Mini Program holds nothing.

import { CheckoutState, errorInfo, PaymentMethod } from "@tokenbill/sdk";

const BODY_BYTES_MAX = 10_000;

/** What WeChat requires for virtual goods comes first; the plain flow where WeChat allows it for what is sold. */
const METHODS = [PaymentMethod.WECHAT_VIRTUAL, PaymentMethod.WECHAT_MINI_PROGRAM];

/**
 * @typedef {object} BackendOptions
 * @property {import("@tokenbill/sdk").TokenBill} tb with the merchant's API token
 * @property {(request: import("node:http").IncomingMessage) => Promise<string | null>} veOf the VE of whoever is logged in; null: nobody
 */

/**
 * @param {BackendOptions} options
 * @returns {import("node:http").RequestListener}
 */
export function createBackend({ tb, veOf }) {
  /** @param {string} veId */
  async function open(veId) {
    const { checkoutSession } = await tb.checkout.createCheckoutSession({ veId });
    const { offer } = await tb.checkout.getCheckoutSession({ id: checkoutSession?.id ?? "" });
    const way = METHODS.map((method) => offer?.paymentMethods.find((offered) => offered.method === method)).find(
      Boolean,
    );
    const packs = (offer?.creditPacks ?? [])
      .filter(({ customAmount, price }) => customAmount === undefined && price?.currency === "CNY")
      .map(({ id, label, price, credits, bonusCredits }) => ({
        id,
        label,
        price: price?.amount,
        credits,
        bonusCredits,
      }));
    const creditRemaining = offer?.payerWallet?.wallet?.creditRemaining ?? "";
    return { sessionId: checkoutSession?.id ?? "", canPay: way !== undefined, packs, creditRemaining };
  }

  /** A session of somebody else is none. @param {string} sessionId @param {string} veId */
  async function own(sessionId, veId) {
    const { checkoutSession, offer } = await tb.checkout.getCheckoutSession({ id: sessionId });
    if (checkoutSession?.veId !== veId) throw new Error("the session is not of this user");
    return offer;
  }

  /** @param {string} veId @param {{ sessionId: string, packId: string, code: string }} body */
  async function pay(veId, { sessionId, packId, code }) {
    const offer = await own(sessionId, veId);
    const way = METHODS.map((method) => offer?.paymentMethods.find((offered) => offered.method === method)).find(
      Boolean,
    );
    if (way === undefined) throw new Error("no payment account offers payments in Mini Programs");
    const { action } = await tb.checkout.startPayment({
      id: sessionId,
      creditPackId: packId,
      paymentAccountId: way.paymentAccountId,
      method: way.method,
      wechatCode: code, // Of wx.login, good once.
      language: "zh",
    });
    if (action.case === "wechatVirtual") {
      const { mode, signData, paySig, signature } = action.value;
      return { kind: "virtual", mode, signData, paySig, signature };
    }
    if (action.case === "wechatPay") {
      const { timeStamp, nonceStr, packageValue, signType, paySign } = action.value;
      return { kind: "plain", timeStamp, nonceStr, package: packageValue, signType, paySign };
    }
    return { kind: "none" }; // It was paid meanwhile.
  }

  /** @param {string} veId @param {{ sessionId: string }} body */
  async function check(veId, { sessionId }) {
    await own(sessionId, veId);
    const { checkoutSession } = await tb.checkout.checkPayment({ id: sessionId });
    const isDone = checkoutSession?.state === CheckoutState.FULFILLED;
    return { isDone, creditsGranted: isDone ? checkoutSession.creditsGranted : "" };
  }

  /** @type {Record<string, (veId: string, body: any) => Promise<unknown>>} */
  const calls = { "/mini/open": open, "/mini/pay": pay, "/mini/check": check };

  /** @param {import("node:http").IncomingMessage} request */
  async function answer(request) {
    const call = calls[request.url ?? ""];
    if (request.method !== "POST" || call === undefined) return { status: 404, body: {} };
    const veId = await veOf(request);
    if (veId === null) return { status: 401, body: {} };
    return { status: 200, body: await call(veId, await bodyOf(request)) };
  }

  return (request, response) => {
    answer(request).then(
      ({ status, body }) => {
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
      },
      (error) => {
        console.error(`${request.url}: ${errorInfo(error).message}`);
        response.writeHead(502, { "content-type": "application/json" }).end("{}");
      },
    );
  };
}

/** @param {import("node:http").IncomingMessage} request @returns {Promise<unknown>} */
async function bodyOf(request) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > BODY_BYTES_MAX) throw new Error("the body is too large");
  }
  return text === "" ? {} : JSON.parse(text);
}
