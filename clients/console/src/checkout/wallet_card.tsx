/** The wallet and its use, for payers that may see it. */

import type { ReactNode } from "react";
import type { PayerWallet } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { isPositive, permille } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatCount, formatCredits, splitCredits } from "../shared/numbers.ts";
import { MESSAGES } from "./messages.ts";

/** Whole Credits in large figures, what is behind the point in small ones: all of it is there. */
export function CreditFigure({ credits }: { readonly credits: string }): ReactNode {
  const [whole, fraction] = splitCredits(credits, useLanguage());
  return (
    <span className="figure">
      {whole}
      {fraction !== "" && <span className="fraction">{fraction}</span>}
    </span>
  );
}

const BAR_WIDTH = 1000;
const BAR_WIDTH_MIN = 15;
/** Below a tenth it is shown as low. */
const BAR_LOW = 100;

function Bar({ remaining, budget }: { readonly remaining: string; readonly budget: string }): ReactNode {
  const left = permille(remaining, budget);
  // Something is left, so something is seen.
  const width = left === 0 ? 0 : Math.max(left, BAR_WIDTH_MIN);
  return (
    <svg
      className={left <= BAR_LOW ? "bar low" : "bar"}
      viewBox={`0 0 ${BAR_WIDTH} 8`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <rect className="rest" width={BAR_WIDTH} height="8" />
      <rect className="part" width={width} height="8" />
    </svg>
  );
}

export function WalletCard({ payerWallet }: { readonly payerWallet: PayerWallet }): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const { wallet, requests, creditsSpent } = payerWallet;
  if (wallet === undefined) return null;
  const { creditRemaining, creditBudget, debt } = wallet;
  return (
    <section className="wallet" aria-label={t.wallet}>
      <dl>
        <div className="remaining">
          <dt>{t.creditsRemaining}</dt>
          <dd>
            <CreditFigure credits={creditRemaining} />
          </dd>
        </div>
      </dl>
      <Bar remaining={creditRemaining} budget={creditBudget} />
      <dl className="facts">
        <div>
          <dt>{t.creditBudget}</dt>
          <dd>{formatCredits(creditBudget, language)}</dd>
        </div>
        <div>
          <dt>{t.spent30}</dt>
          <dd>{formatCredits(creditsSpent === "" ? "0" : creditsSpent, language)}</dd>
        </div>
        <div>
          <dt>{t.requests30}</dt>
          <dd>{formatCount(requests, language)}</dd>
        </div>
        {isPositive(debt) && (
          <div>
            <dt>{t.debt}</dt>
            <dd>
              {formatCredits(debt, language)} <small>{t.debtText}</small>
            </dd>
          </div>
        )}
      </dl>
    </section>
  );
}
