/** The end of a session, whichever it is, and the way back to the caller. */

import { type ReactNode, useEffect, useState } from "react";
import { CREDIT_DIGITS, isPositive, parseDecimal, addCredits } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatCredits, formatMoney } from "../shared/numbers.ts";
import { safeDestination } from "./address.ts";
import type { StepProps } from "./checkout.tsx";
import { Card, TestBanner, type Tone } from "./frame.tsx";
import type { CheckoutMessages } from "./messages_en.ts";
import { MESSAGES } from "./messages.ts";
import { Summary } from "./summary.tsx";
import { leaveFor } from "./use_paying.ts";
import type { View } from "./view.ts";
import { CreditFigure } from "./wallet_card.tsx";

/** How long success is shown before the payer goes back. */
const BACK_AFTER_S = 6;

interface BackProps {
  readonly returnUrl: string;
  readonly primary: boolean;
}

function BackButton({ returnUrl, primary }: BackProps): ReactNode {
  const t = useMessages(MESSAGES);
  const url = safeDestination(returnUrl, window.location.href);
  if (returnUrl === "" || url === null) return null;
  return (
    <a className={primary ? "primary" : "secondary"} href={url.href}>
      {t.backTo(url.host)}
    </a>
  );
}

/** Seconds until the payer goes back; null: they stay. */
function useCountdown(starts: boolean, returnUrl: string): readonly [leftS: number | null, stay: () => void] {
  const [leftS, setLeftS] = useState(starts ? BACK_AFTER_S : null);
  useEffect(() => {
    if (leftS === null) return;
    if (leftS === 0) {
      leaveFor(returnUrl);
      return setLeftS(null);
    }
    const timer = window.setTimeout(() => setLeftS(leftS - 1), 1_000);
    return () => window.clearTimeout(timer);
  }, [leftS, returnUrl]);
  return [leftS, () => setLeftS(null)];
}

/** Going back by itself: only right after a payment, and not for those who look at a success of before. */
function AutoReturn({ starts, returnUrl }: { readonly starts: boolean; readonly returnUrl: string }): ReactNode {
  const t = useMessages(MESSAGES);
  const [leftS, stay] = useCountdown(starts, returnUrl);
  if (leftS === null) return null;
  return (
    <p className="hint centred">
      <span aria-hidden="true">{t.backIn(leftS)} </span>
      <span className="only-read">{t.backIn(BACK_AFTER_S)}</span>
      <button type="button" className="plain" onClick={stay}>
        {t.stay}
      </button>
    </p>
  );
}

/** More than was chosen: the same session was paid twice. */
function paidTwice(granted: string, chosen: string): boolean {
  return (parseDecimal(granted, CREDIT_DIGITS) ?? 0n) > (parseDecimal(chosen, CREDIT_DIGITS) ?? 0n);
}

export function SuccessStep(props: StepProps & { readonly title: string }): ReactNode {
  const { model, session, offer, test, title, startAgain } = props;
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const { returnUrl } = session;
  const canReturn = returnUrl !== "" && safeDestination(returnUrl, window.location.href) !== null;
  const [starts] = useState(model.awaited && canReturn);
  const { shown } = model;
  useEffect(shown, [shown]);
  const chosen = addCredits(session.credits, session.bonusCredits);
  const granted = isPositive(session.creditsGranted) ? session.creditsGranted : chosen;
  const balance = offer.payerWallet?.wallet?.creditRemaining;
  return (
    <Card title={title} tone="good">
      {test && <TestBanner />}
      <p className="gain">{t.successAmount(formatCredits(granted, language))}</p>
      {balance !== undefined && (
        <p className="balance">
          <span>{t.newBalance}</span>
          <span>
            <CreditFigure credits={balance} /> {t.creditsWord}
          </span>
        </p>
      )}
      {paidTwice(granted, chosen) && <p className="note">{t.paidTwice}</p>}
      <p>{canReturn ? t.successText : t.successClose}</p>
      <Summary session={session} />
      <BackButton returnUrl={returnUrl} primary />
      <AutoReturn starts={starts} returnUrl={returnUrl} />
      <div className="links">
        <button type="button" className="plain" onClick={startAgain}>
          {t.topUpAgain}
        </button>
      </div>
    </Card>
  );
}

type EndKind = Exclude<View["kind"], "choose" | "scan" | "leaving" | "wechat" | "waiting" | "settling" | "success">;

const TONES: Readonly<Record<EndKind, Tone>> = {
  problem: "info",
  expired: "info",
  canceled: "info",
  refunded: "info",
  disputed: "bad",
  unknown: "info",
};

function textOf(kind: EndKind, merchant: string, refunded: string, t: CheckoutMessages): string {
  switch (kind) {
    case "problem":
      return t.problemText(merchant);
    case "expired":
      return t.expiredText;
    case "canceled":
      return t.canceledText;
    case "refunded":
      return t.refundedText(refunded);
    case "disputed":
      return t.disputedText(merchant);
    case "unknown":
      return t.unknownText;
  }
}

export function EndStep(props: StepProps & { readonly title: string; readonly kind: EndKind }): ReactNode {
  const { session, merchant, test, title, kind, startAgain } = props;
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const refunded = session.refunded ?? session.price;
  const again = kind === "expired" || kind === "canceled";
  return (
    <Card title={title} tone={TONES[kind]}>
      {test && <TestBanner />}
      <p>{textOf(kind, merchant, refunded === undefined ? "" : formatMoney(refunded, language), t)}</p>
      {kind === "problem" && (
        <p className="note">
          {t.reference} <code>{session.id}</code>
        </p>
      )}
      {!again && kind !== "unknown" && <Summary session={session} />}
      {again && (
        <button type="button" className="primary" onClick={startAgain}>
          {t.startAgain}
        </button>
      )}
      {kind === "unknown" && (
        <button type="button" className="primary" onClick={() => window.location.reload()}>
          {t.reload}
        </button>
      )}
      <BackButton returnUrl={session.returnUrl} primary={false} />
    </Card>
  );
}
