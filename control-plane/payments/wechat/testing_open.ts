/** For tests: WeChat's open platform over HTTP: codes, access tokens, and Virtual Payment with its pushes. */

import { type Received, serve } from "./testing_http.ts";
import { deliverEvent, makePush, type PushMessage, type PushOptions, refundEvent } from "./testing_push.ts";
import { createSessions, type Sessions } from "./testing_sessions.ts";
import { createXpay, type Xpay } from "./testing_xpay.ts";

/** `errcode` for the next call whose path fits; `cut` and `garbage`: done, and not answered as it should be. */
export interface OpenFault {
  readonly on: RegExp;
  readonly errcode: number | "cut" | "garbage";
}

export interface OpenImitation {
  readonly url: string;
  readonly sessions: Sessions;
  readonly xpay: Xpay;
  readonly calls: Received[];
  readonly faults: OpenFault[];
  push(event: object, options?: PushOptions): PushMessage;
  deliverPush(orderId: string, options?: PushOptions): PushMessage;
  refundPush(refundOrderId: string, options?: PushOptions): PushMessage;
  close(): Promise<void>;
}

export async function startOpen(now: () => number): Promise<OpenImitation> {
  const sessions = createSessions();
  const xpay = createXpay(now, sessions);
  const calls: Received[] = [];
  const faults: OpenFault[] = [];
  const server = await serve((received) => {
    calls.push(received);
    const at = faults.findIndex(({ on }) => on.test(received.url.pathname));
    const fault = at === -1 ? undefined : faults.splice(at, 1)[0]!.errcode;
    const result =
      typeof fault === "number"
        ? { errcode: fault, errmsg: "fault" }
        : (sessions.answer(received) ?? xpay.answer(received));
    if (fault === "cut") return null;
    const body = fault === "garbage" ? "<html>" : JSON.stringify(result);
    return { status: 200, headers: { "content-type": "text/plain" }, body };
  });
  const push = (event: object, options?: PushOptions): PushMessage =>
    makePush(Math.floor(now() / 1_000), event, options);
  return {
    url: server.url,
    sessions,
    xpay,
    calls,
    faults,
    push,
    deliverPush: (orderId, options) => push(deliverEvent(xpay.orders.get(orderId)!), options),
    refundPush(refundOrderId, options) {
      const refund = xpay.orders.get(refundOrderId)!;
      return push(refundEvent(refund, xpay.orders.get(refund.of)!), options);
    },
    close: () => server.close(),
  };
}
