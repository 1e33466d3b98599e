/** WeChat's own payment window, inside WeChat's browser. */

import type { WechatPayParams } from "../../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";

interface WeixinJsBridge {
  invoke(name: string, params: object, done: (result: { readonly err_msg?: string }) => void): void;
}

declare global {
  interface Window {
    WeixinJSBridge?: WeixinJsBridge;
  }
}

/** WeChat puts its bridge into the page when it likes. */
const READY_MS_MAX = 5_000;

function bridge(): Promise<WeixinJsBridge | null> {
  if (window.WeixinJSBridge !== undefined) return Promise.resolve(window.WeixinJSBridge);
  return new Promise((resolve) => {
    const done = (): void => resolve(window.WeixinJSBridge ?? null);
    document.addEventListener("WeixinJSBridgeReady", done, { once: true });
    window.setTimeout(done, READY_MS_MAX);
  });
}

/**
 * Opens the window. `ok` is what WeChat says of it, and no proof of a payment: the server asks for that. `absent`: this is
 * not WeChat's browser.
 */
export async function payInWechat(params: WechatPayParams): Promise<"ok" | "cancel" | "fail" | "absent"> {
  const found = await bridge();
  if (found === null) return "absent";
  const { appId, timeStamp, nonceStr, packageValue, signType, paySign } = params;
  return new Promise((resolve) => {
    found.invoke(
      "getBrandWCPayRequest",
      { appId, timeStamp, nonceStr, package: packageValue, signType, paySign },
      ({ err_msg: message = "" }) => {
        const [, result] = message.split(":");
        resolve(result === "ok" || result === "cancel" ? result : "fail");
      },
    );
  });
}
