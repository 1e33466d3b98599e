/** Starting a payment, doing what the processor wants done for it, and giving the session up. */

import { useMutation } from "@connectrpc/connect-query";
import { useEffect, useRef, useState } from "react";
import { PaymentMethod } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { CheckoutService } from "../../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";
import { useLanguage } from "../shared/i18n/context.tsx";
import { type Trouble, troubleOf } from "../shared/trouble.ts";
import { safeDestination } from "./address.ts";
import type { Choice } from "./choice.ts";
import type { Memory } from "./memory.ts";
import type { Reading } from "./use_reading.ts";
import { type Action, EMPTY_TAB, type Tab } from "./view.ts";
import { payInWechat } from "./wechat.ts";

const { startPayment, cancelCheckoutSession } = CheckoutService.method;

export type WechatResult = "ok" | "cancel" | "fail" | "absent" | null;

export interface Paying {
  readonly tab: Tab;
  /** Why the last payment was not started, or the session not given up. */
  readonly trouble: Trouble | null;
  readonly failures: readonly (Error | null)[];
  /** True from the press on, so that a second one does nothing. */
  readonly busy: boolean;
  readonly wechatResult: WechatResult;
  /** Starts a payment, or has WeChat say first who pays. */
  pay(choice: Choice): void;
  /** Starts a payment with WeChat's code. */
  payWithCode(choice: Choice, code: string): void;
  /** Does what there is to do for the payment once more. */
  act(action: Action): void;
  chooseInstead(choosing: boolean): void;
  cancel(): void;
}

/** Leaves for another page. False: it is no address to go to. */
export function leaveFor(address: string): boolean {
  const url = safeDestination(address, window.location.href);
  if (url === null) return false;
  window.location.assign(url.href);
  return true;
}

/** What there is to do in this tab, and what came of it. */
function useAction(reading: Reading) {
  const [tab, setTab] = useState<Tab>(EMPTY_TAB);
  const [wechatResult, setWechatResult] = useState<WechatResult>(null);
  const act = (action: Action): void => {
    setTab({ action, choosing: false });
    setWechatResult(null);
    if (action.case === "redirectUrl") leaveFor(action.value);
    if (action.case !== "wechatPay") return;
    void payInWechat(action.value).then((result) => {
      setWechatResult(result);
      if (result === "ok") reading.check();
    });
  };
  return { tab, setTab, wechatResult, act };
}

export function usePaying(id: string, reading: Reading, memory: Memory): Paying {
  const language = useLanguage();
  const { transport, offer, apply, reread } = reading;
  const { tab, setTab, wechatResult, act } = useAction(reading);
  const [departing, setDeparting] = useState(false);
  // A state is seen by the next press only after rendering.
  const pressed = useRef(false);
  const onSettled = (): void => void (pressed.current = false);
  const start = useMutation(startPayment, {
    transport,
    onSuccess: ({ checkoutSession, action }) => {
      apply(checkoutSession);
      act(action);
      if (action.case === undefined) reread();
    },
    onError: (error) => {
      // It has gone on, or what was chosen is no longer offered: either way there is something new to see.
      if (troubleOf(error).kind !== "throttled") reread();
    },
    onSettled,
  });
  const giveUp = useMutation(cancelCheckoutSession, {
    transport,
    onSuccess: ({ checkoutSession }) => apply(checkoutSession),
    onError: reread,
    onSettled,
  });
  const payWithCode = (choice: Choice, wechatCode: string): void => {
    if (pressed.current) return;
    pressed.current = true;
    giveUp.reset();
    memory.change(id, { choice, awaiting: true });
    const { packId: creditPackId, accountId: paymentAccountId, amount, method, autoTopUp } = choice;
    start.mutate({ id, creditPackId, amount, paymentAccountId, method, wechatCode, autoTopUp, language });
  };
  const pay = (choice: Choice): void => {
    if (departing) return;
    const way = offer?.paymentMethods.find(
      ({ paymentAccountId, method }) => paymentAccountId === choice.accountId && method === choice.method,
    );
    if (choice.method !== PaymentMethod.WECHAT_JSAPI) return payWithCode(choice, "");
    // WeChat sends the payer back here with a code, and the payment starts then.
    memory.change(id, { choice });
    setDeparting(leaveFor(way?.authorizeUrl ?? ""));
  };
  const cancel = (): void => {
    if (pressed.current) return;
    pressed.current = true;
    start.reset();
    giveUp.mutate({ id });
  };
  useComingBack(() => {
    setDeparting(false);
    setTab(EMPTY_TAB);
    reread();
  });
  const failed = start.error ?? giveUp.error;
  return {
    tab,
    trouble: failed === null ? null : troubleOf(failed),
    failures: [start.failureReason, giveUp.failureReason],
    busy: start.isPending || giveUp.isPending || departing,
    wechatResult,
    pay,
    payWithCode,
    act,
    chooseInstead: (choosing) => setTab((now) => ({ ...now, choosing })),
    cancel,
  };
}

/** Pages that come back from the browser's cache are as they were left: on the way to somewhere else. */
function useComingBack(onBack: () => void): void {
  const latest = useRef(onBack);
  useEffect(() => {
    latest.current = onBack;
  });
  useEffect(() => {
    const shown = (event: PageTransitionEvent): void => {
      if (event.persisted) latest.current();
    };
    window.addEventListener("pageshow", shown);
    return () => window.removeEventListener("pageshow", shown);
  }, []);
}
