/** The QR code, and what to do with it. */

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type ReactNode, useMemo, useState } from "react";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatMoney, formatTime } from "../shared/numbers.ts";
import { type QrPath, qrPath } from "../shared/qr.ts";
import type { StepProps } from "./checkout.tsx";
import { browserOf } from "./choice.ts";
import { Alert, Card, TestBanner } from "./frame.tsx";
import { MESSAGES } from "./messages.ts";
import { Summary } from "./summary.tsx";
import { WaitingFoot } from "./waiting_steps.tsx";

function drawn(text: string): QrPath | null {
  try {
    return qrPath(text);
  } catch {
    return null; // Longer than a QR code takes: said on the page.
  }
}

interface QrCodeProps {
  readonly text: string;
  readonly label: string;
}

function QrCode({ text, label }: QrCodeProps): ReactNode {
  const t = useMessages(MESSAGES);
  const qr = useMemo(() => drawn(text), [text]);
  if (qr === null) return <Alert title={t.refused} text={t.scanNoCode} />;
  return (
    <svg className="qr" viewBox={`0 0 ${qr.size} ${qr.size}`} role="img" aria-label={label} shapeRendering="crispEdges">
      <path d={qr.path} />
    </svg>
  );
}

/** How the code gets into WeChat: from the screen, from a picture, or by pressing it. */
function Instructions(): ReactNode {
  const t = useMessages(MESSAGES);
  const [browser] = useState(() => browserOf(navigator.userAgent));
  if (browser.wechat) return <p>{t.scanInWechatText}</p>;
  if (!browser.phone) return <p>{t.scanText}</p>;
  return (
    <ol className="steps">
      {t.scanPhoneSteps.map((step) => (
        <li key={step}>{step}</li>
      ))}
    </ol>
  );
}

export function ScanStep(props: StepProps & { readonly title: string; readonly text: string }): ReactNode {
  const { session, test, title, text } = props;
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const price = session.price === undefined ? "" : formatMoney(session.price, language);
  return (
    <Card title={title}>
      {test && <TestBanner />}
      <div className="scan">
        <QrCode text={text} label={t.scanAlt(price)} />
        <p className="sum">{price}</p>
        <Instructions />
      </div>
      <Summary session={session} withPrice={false} />
      <WaitingFoot {...props} />
      {session.expireTime !== undefined && (
        <p className="hint centred">
          {t.validUntil(formatTime(timestampMs(session.expireTime), Date.now(), language))}
        </p>
      )}
    </Card>
  );
}
