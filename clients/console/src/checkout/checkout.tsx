/** One session on the page: the wallet beside, the step in the middle. */

import { type ReactNode, useEffect, useRef } from "react";
import {
  type CheckoutOffer,
  type CheckoutSession,
  PaymentProcessor,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { useMessages } from "../shared/i18n/context.tsx";
import type { Origin } from "./address.ts";
import { ChooseStep } from "./choose_step.tsx";
import { EndStep, SuccessStep } from "./end_steps.tsx";
import { Card, Frame, Loading, STEP_TITLE } from "./frame.tsx";
import type { Memory } from "./memory.ts";
import type { CheckoutMessages } from "./messages_en.ts";
import { MESSAGES } from "./messages.ts";
import { ScanStep } from "./scan_step.tsx";
import { ServerFailed, Statement, Throttled, useTitle } from "./statements.tsx";
import { type CheckoutModel, type SessionRef, useCheckout } from "./use_checkout.ts";
import { isOver, type View } from "./view.ts";
import { LeavingStep, SettlingStep, WaitingStep, WechatStep } from "./waiting_steps.tsx";
import { WalletCard } from "./wallet_card.tsx";

interface CheckoutProps extends SessionRef {
  readonly memory: Memory;
  readonly onStartAgain: (origin: Origin) => void;
}

/** What every step is given. */
export interface StepProps {
  readonly model: CheckoutModel;
  readonly session: CheckoutSession;
  readonly offer: CheckoutOffer;
  readonly merchant: string;
  /** True: the payment that was started moves no real money. */
  readonly test: boolean;
  readonly startAgain: () => void;
}

/** Whether the newest payment is a test. */
function isTest(session: CheckoutSession, offer: CheckoutOffer): boolean {
  const payment = session.payments[session.payments.length - 1];
  if (payment === undefined) return false;
  if (payment.processor === PaymentProcessor.SANDBOX) return true;
  return offer.paymentMethods.some(
    ({ paymentAccountId, test }) => test && paymentAccountId === payment.paymentAccountId,
  );
}

function titleOf(view: View, t: CheckoutMessages): string {
  switch (view.kind) {
    case "choose":
      return view.instead ? t.choosePackAgain : t.choosePack;
    case "scan":
      return t.scanTitle;
    case "leaving":
      return t.leavingTitle;
    case "wechat":
      return t.wechatTitle;
    case "waiting":
      return t.waitingTitle;
    case "settling":
      return t.settlingTitle;
    case "problem":
      return t.problemTitle;
    case "success":
      return t.successTitle;
    case "expired":
      return t.expiredTitle;
    case "canceled":
      return t.canceledTitle;
    case "refunded":
      return view.partly ? t.refundedPartTitle : t.refundedTitle;
    case "disputed":
      return t.disputedTitle;
    case "unknown":
      return t.unknownTitle;
  }
}

export function Step({
  title,
  view,
  ...props
}: StepProps & { readonly view: View; readonly title: string }): ReactNode {
  const { kind } = view;
  switch (kind) {
    case "choose":
      return (
        <Card title={title}>
          <ChooseStep key={String(view.instead)} {...props} declined={view.declined} instead={view.instead} />
        </Card>
      );
    case "scan":
      return <ScanStep {...props} title={title} text={view.text} />;
    case "leaving":
      return <LeavingStep {...props} title={title} />;
    case "wechat":
      return <WechatStep {...props} title={title} />;
    case "waiting":
      return <WaitingStep {...props} title={title} />;
    case "settling":
      return <SettlingStep {...props} title={title} />;
    case "success":
      return <SuccessStep {...props} title={title} />;
    default:
      return <EndStep {...props} title={title} kind={kind} />;
  }
}

export function Checkout({ memory, onStartAgain, ...ref }: CheckoutProps): ReactNode {
  const t = useMessages(MESSAGES);
  const model = useCheckout(ref, memory);
  const { session, offer, view, unreadable } = model;
  const { id } = ref;
  useEndedSession(id, session, memory);
  useFocusOnStep(view?.kind ?? null);
  const seen = view === null ? t.title : titleOf(view, t);
  const merchant = offer?.merchantName ?? "";
  useTitle(merchant === "" ? seen : `${seen} – ${merchant}`);

  if (unreadable?.kind === "closed") return <Statement title={t.closedTitle} text={t.closedText} />;
  if (unreadable?.kind === "throttled") return <Throttled trouble={unreadable} onAgain={model.reread} />;
  if (unreadable !== null) return <ServerFailed onAgain={model.reread} />;
  if (session === undefined || offer === undefined || view === null) {
    return (
      <Frame lost={model.lost}>
        <Loading text={t.loading} />
      </Frame>
    );
  }
  const startAgain = (): void => {
    const kept = memory.kept(id)?.origin ?? null;
    onStartAgain(kept ?? { veId: session.veId, link: "", returnUrl: session.returnUrl });
  };
  const { payerWallet } = offer;
  const name = payerWallet?.veName ?? "";
  return (
    <Frame merchant={merchant} sessionId={session.id} lost={model.lost} status={seen}>
      <div
        className={`columns ${payerWallet === undefined ? "one" : "two"} ${view.kind === "choose" ? "first" : "later"}`}
      >
        <div className="beside">
          <h1>{name === "" ? t.title : t.titleFor(name)}</h1>
          {payerWallet !== undefined && <WalletCard payerWallet={payerWallet} />}
        </div>
        <Step
          model={model}
          session={session}
          offer={offer}
          merchant={merchant === "" ? t.merchantFallback : merchant}
          test={isTest(session, offer)}
          startAgain={startAgain}
          view={view}
          title={seen}
        />
      </div>
    </Frame>
  );
}

/** A link that is followed again after its session has ended opens a new one. */
function useEndedSession(id: string, session: CheckoutSession | undefined, memory: Memory): void {
  const done = useRef(false);
  const over = session !== undefined && isOver(session.state);
  useEffect(() => {
    if (!over || done.current) return;
    done.current = true;
    const origin = memory.kept(id)?.origin ?? null;
    if (origin !== null) memory.forgetOpened(origin);
  }, [over, id, memory]);
}

/** Another step: its title gets the focus, so that it is read, and the keyboard goes on from there. */
function useFocusOnStep(step: View["kind"] | null): void {
  const shown = useRef(step);
  useEffect(() => {
    if (shown.current !== null && shown.current !== step) document.getElementById(STEP_TITLE)?.focus();
    shown.current = step;
  }, [step]);
}
