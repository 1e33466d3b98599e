/** What is around every step: the top with seller and language, the notice of a lost connection, the foot. */

import type { ReactNode } from "react";
import { LanguageSwitch, useMessages } from "../shared/i18n/context.tsx";
import { MESSAGES } from "./messages.ts";

interface FrameProps {
  readonly merchant?: string;
  readonly sessionId?: string;
  readonly lost?: boolean;
  /** Read out when it changes, and not shown. */
  readonly status?: string;
  readonly children: ReactNode;
}

export function Frame({ merchant = "", sessionId = "", lost = false, status = "", children }: FrameProps): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <div className="page">
      <header className="top">
        <div className="seller">
          {merchant !== "" && (
            <>
              <span className="initial" aria-hidden="true">
                {[...merchant][0]?.toUpperCase()}
              </span>
              <span className="seller-name">{merchant}</span>
            </>
          )}
        </div>
        <LanguageSwitch />
      </header>
      <div className={lost ? "lost shown" : "lost"} role="status">
        {lost && (
          <p>
            <strong>{t.lost}</strong> {t.lostKept}
          </p>
        )}
      </div>
      <main>{children}</main>
      <p className="only-read" role="status">
        {status}
      </p>
      <footer className="foot">
        <span>{t.footer}</span>
        {sessionId !== "" && (
          <span>
            {t.reference} <code>{sessionId}</code>
          </span>
        )}
      </footer>
    </div>
  );
}

export function Spinner(): ReactNode {
  return <span className="spinner" aria-hidden="true" />;
}

export function Loading({ text }: { readonly text: string }): ReactNode {
  return (
    <div className="loading" role="status">
      <Spinner />
      <span>{text}</span>
    </div>
  );
}

export type Tone = "plain" | "info" | "good" | "bad";

const SIGNS: Readonly<Record<Exclude<Tone, "plain">, string>> = {
  good: "M6.5 12.5l3.5 3.5 7.5-8",
  bad: "M12 6.5v7M12 17v.01",
  info: "M12 11v6M12 7.5v.01",
};

export function Sign({ tone }: { readonly tone: Exclude<Tone, "plain"> }): ReactNode {
  return (
    <svg className={`sign ${tone}`} viewBox="0 0 24 24" aria-hidden="true">
      <circle cx="12" cy="12" r="12" />
      <path d={SIGNS[tone]} />
    </svg>
  );
}

/** Of the step's title, which gets the focus when the step changes. */
export const STEP_TITLE = "step-title";

interface CardProps {
  readonly title: string;
  readonly tone?: Tone;
  readonly as?: "h1" | "h2";
  readonly children: ReactNode;
}

export function Card({ title, tone = "plain", as: Title = "h2", children }: CardProps): ReactNode {
  return (
    <section className={tone === "plain" ? "card" : "card told"} aria-labelledby={STEP_TITLE}>
      {tone !== "plain" && <Sign tone={tone} />}
      <Title id={STEP_TITLE} tabIndex={-1}>
        {title}
      </Title>
      {children}
    </section>
  );
}

/** In large letters, wherever no real money moves. */
export function TestBanner(): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <p className="test">
      <strong>{t.test}</strong>
      <span>{t.testText}</span>
    </p>
  );
}

interface AlertProps {
  readonly title: string;
  readonly text: string;
}

export function Alert({ title, text }: AlertProps): ReactNode {
  return (
    <div className="alert" role="alert">
      <Sign tone="bad" />
      <p>
        <strong>{title}</strong> {text}
      </p>
    </div>
  );
}
