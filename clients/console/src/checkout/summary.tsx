/** What a session is about, in a few lines. */

import type { ReactNode } from "react";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { CheckoutSession } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { addCredits, isPositive } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatCredits, formatMoney, formatTime } from "../shared/numbers.ts";
import { MESSAGES } from "./messages.ts";

interface SummaryProps {
  readonly session: CheckoutSession;
  /** False: it is said elsewhere. */
  readonly withPrice?: boolean;
}

export function Summary({ session, withPrice = true }: SummaryProps): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const { label, price, credits, bonusCredits, payTime } = session;
  const all = addCredits(credits, bonusCredits);
  return (
    <dl className="summary">
      {label !== "" && (
        <div>
          <dt>{t.pack}</dt>
          <dd>{label}</dd>
        </div>
      )}
      {isPositive(all) && (
        <div>
          <dt>{t.creditsWord}</dt>
          <dd>{formatCredits(all, language)}</dd>
        </div>
      )}
      {withPrice && price !== undefined && (
        <div>
          <dt>{t.price}</dt>
          <dd>{formatMoney(price, language)}</dd>
        </div>
      )}
      {payTime !== undefined && (
        <div>
          <dt>{t.paidAt}</dt>
          <dd>{formatTime(timestampMs(payTime), Date.now(), language)}</dd>
        </div>
      )}
    </dl>
  );
}
