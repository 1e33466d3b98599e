/** Whole pages that only say something. */

import { type ReactNode, useEffect, useState } from "react";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatTime } from "../shared/numbers.ts";
import type { Trouble } from "../shared/trouble.ts";
import { Card, Frame } from "./frame.tsx";
import { MESSAGES } from "./messages.ts";

interface StatementProps {
  readonly title: string;
  readonly text: string;
  readonly children?: ReactNode;
}

export function Statement({ title, text, children }: StatementProps): ReactNode {
  return (
    <Frame>
      <div className="columns">
        <Card as="h1" title={title} tone="info">
          <p>{text}</p>
          {children}
        </Card>
      </div>
    </Frame>
  );
}

interface AgainProps {
  readonly onAgain: () => void;
}

function Again({ onAgain }: AgainProps): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <button type="button" className="primary" onClick={onAgain}>
      {t.tryAgain}
    </button>
  );
}

export function ServerFailed({ onAgain }: AgainProps): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <Statement title={t.serverFailed} text={t.serverFailedText}>
      <Again onAgain={onAgain} />
    </Statement>
  );
}

/** When it can be tried again, as a time of day: it stays right however long the page is open. */
export function useThrottledText(afterS: number | null): string {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const [atMs] = useState(Date.now);
  if (afterS === null) return t.throttledText;
  // To the next full minute: seconds are not shown.
  const minutes = Math.ceil((atMs + afterS * 1000) / 60_000);
  return t.throttledAt(formatTime(minutes * 60_000, atMs, language));
}

interface ThrottledProps extends AgainProps {
  readonly trouble: Extract<Trouble, { kind: "throttled" }>;
}

export function Throttled({ trouble, onAgain }: ThrottledProps): ReactNode {
  const t = useMessages(MESSAGES);
  const text = useThrottledText(trouble.afterS);
  return (
    <Statement title={t.throttledTitle} text={text}>
      <Again onAgain={onAgain} />
    </Statement>
  );
}

/** The window's title, for as long as it is shown. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title;
  }, [title]);
}
