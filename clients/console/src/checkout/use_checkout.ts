/** The session of the page, for its steps. The server says how it stands; nothing here decides that. */

import type { Transport } from "@connectrpc/connect";
import { onlineManager } from "@tanstack/react-query";
import { useCallback, useEffect, useRef, useSyncExternalStore } from "react";
import {
  type CheckoutOffer,
  type CheckoutSession,
  CheckoutState,
  PaymentMethod,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { isConnectionTrouble, type Trouble, troubleOf } from "../shared/trouble.ts";
import { type Choice, choiceOf } from "./choice.ts";
import type { Memory } from "./memory.ts";
import { usePaying, type WechatResult } from "./use_paying.ts";
import { useReading } from "./use_reading.ts";
import { type Action, type View, viewOf } from "./view.ts";

export interface SessionRef {
  readonly id: string;
  readonly secret: string;
  /** Of WeChat's authorization, good once. */
  readonly wechatCode: string | null;
}

export interface CheckoutModel {
  readonly session: CheckoutSession | undefined;
  readonly offer: CheckoutOffer | undefined;
  readonly view: View | null;
  /** What the payer chose last. */
  readonly choice: Choice | null;
  /** Why the session cannot be read; null: it can, or it is still tried. */
  readonly unreadable: Trouble | null;
  /** Why the last payment was not started, or the session not given up. */
  readonly trouble: Trouble | null;
  readonly lost: boolean;
  /** True from the press on, so that a second one does nothing. */
  readonly busy: boolean;
  readonly checking: boolean;
  readonly wechatResult: WechatResult;
  /** What there is to do for the payment. */
  readonly action: Action;
  /** True: a payment was started here, and its end not shown yet. */
  readonly awaited: boolean;
  /** For other calls with the session's secret. */
  readonly transport: Transport;
  pay(choice: Choice): void;
  /** Goes on with the payment that waits. */
  resume(): void;
  check(): void;
  chooseInstead(choosing: boolean): void;
  cancel(): void;
  readonly reread: () => void;
  /** The end was shown. */
  readonly shown: () => void;
}

export function useCheckout({ id, secret, wechatCode }: SessionRef, memory: Memory): CheckoutModel {
  const reading = useReading(id, secret);
  const paying = usePaying(id, reading, memory);
  const { session, offer } = reading;
  const { action } = paying.tab;
  const choice =
    session === undefined || offer === undefined ? null : choiceOf(session, offer, memory.kept(id)?.choice ?? null);
  const view = session === undefined ? null : viewOf(session, paying.tab);
  const resume = (): void => {
    if (action.case !== undefined) paying.act(action);
    else if (choice !== null) paying.pay(choice);
  };
  useGoingOn({
    ready: view?.kind === "choose" || view?.kind === "waiting",
    code: wechatCode,
    withCode: (code) => {
      const kept = memory.kept(id)?.choice ?? null;
      if (kept?.method === PaymentMethod.WECHAT_JSAPI) paying.payWithCode(kept, code);
    },
    // A QR code that a reload has lost is shown again, once the processor has said that it still waits.
    lostCode:
      view?.kind === "waiting" &&
      choice?.method === PaymentMethod.WECHAT_NATIVE &&
      reading.checkedState === CheckoutState.PENDING,
    showAgain: resume,
  });
  const online = useSyncExternalStore(subscribeOnline, isOnline);
  const failures = [...reading.failures, ...paying.failures];
  const shown = useCallback(() => memory.change(id, { awaiting: false }), [memory, id]);
  return {
    session,
    offer,
    view,
    choice,
    unreadable: readTrouble(reading.error, session),
    trouble: paying.trouble,
    lost: !online || failures.some((failure) => failure !== null && isConnectionTrouble(failure)),
    busy: paying.busy,
    checking: reading.checking,
    wechatResult: paying.wechatResult,
    action,
    awaited: memory.kept(id)?.awaiting ?? false,
    transport: reading.transport,
    pay: paying.pay,
    resume,
    check: reading.check,
    chooseInstead: paying.chooseInstead,
    cancel: paying.cancel,
    reread: reading.reread,
    shown,
  };
}

const subscribeOnline = (changed: () => void): (() => void) => onlineManager.subscribe(changed);
const isOnline = (): boolean => onlineManager.isOnline();

/** Once a session was read, only the loss of the right to read it counts. */
function readTrouble(error: Error | null, session: CheckoutSession | undefined): Trouble | null {
  if (error === null) return null;
  const trouble = troubleOf(error);
  return session === undefined || trouble.kind === "closed" ? trouble : null;
}

interface GoingOn {
  readonly ready: boolean;
  readonly code: string | null;
  readonly withCode: (code: string) => void;
  readonly lostCode: boolean;
  readonly showAgain: () => void;
}

/** What goes on by itself after landing, each once. */
function useGoingOn({ ready, code, withCode, lostCode, showAgain }: GoingOn): void {
  const used = useRef(false);
  const shown = useRef(false);
  useEffect(() => {
    if (ready && code !== null && !used.current) {
      used.current = true;
      withCode(code);
    } else if (lostCode && !shown.current) {
      shown.current = true;
      showAgain();
    }
  });
}
