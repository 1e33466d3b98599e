/** Packs as cards to choose from. */

import { type ReactNode, type RefObject, useId } from "react";
import type { CreditPack } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { isPositive } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { currencyDigits, formatCredits, formatMoney } from "../shared/numbers.ts";
import { checkCustomAmount, type CustomAmountProblem, type CustomTerms } from "./custom_amount.ts";
import { MESSAGES } from "./messages.ts";

interface PackCardsProps {
  readonly packs: readonly CreditPack[];
  readonly chosen: string;
  readonly onChoose: (packId: string) => void;
  /** Shown below the chosen pack. */
  readonly children: ReactNode;
}

export function PackCards({ packs, chosen, onChoose, children }: PackCardsProps): ReactNode {
  return (
    <div className="choices">
      {packs.map((pack) => (
        <div key={pack.id} className="choice">
          <label className="option">
            <input
              type="radio"
              name="pack"
              value={pack.id}
              checked={pack.id === chosen}
              onChange={() => onChoose(pack.id)}
            />
            <PackText pack={pack} />
          </label>
          {pack.id === chosen && children}
        </div>
      ))}
    </div>
  );
}

function PackText({ pack }: { readonly pack: CreditPack }): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const { label, credits, bonusCredits, price, customAmount } = pack;
  if (price === undefined) return label;
  const money = (amount: string): string => formatMoney({ currency: price.currency, amount }, language);
  if (customAmount !== undefined) {
    return (
      <span className="words">
        <span className="name">{label === "" ? t.ownAmount : label}</span>
        <span className="more">{t.ownAmountText(money(customAmount.minAmount), money(customAmount.maxAmount))}</span>
      </span>
    );
  }
  const count = t.credits(formatCredits(credits, language));
  return (
    <>
      <span className="words">
        <span className="name">{label === "" ? count : label}</span>
        <span className="more">
          {label !== "" && <span>{count}</span>}
          {isPositive(bonusCredits) && <span className="bonus">{t.bonus(formatCredits(bonusCredits, language))}</span>}
        </span>
      </span>
      <span className="price">{money(price.amount)}</span>
    </>
  );
}

interface AmountFieldProps {
  readonly terms: CustomTerms;
  readonly value: string;
  readonly problem: CustomAmountProblem | null;
  readonly field: RefObject<HTMLInputElement | null>;
  readonly onChange: (value: string) => void;
}

/** More than any amount needs. */
const AMOUNT_CHARS_MAX = 20;

export function AmountField({ terms, value, problem, field, onChange }: AmountFieldProps): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const id = useId();
  const { price, min, max } = terms;
  const money = (amount: string): string => formatMoney({ currency: price.currency, amount }, language);
  const digits = currencyDigits(price.currency, price.amount, min, max);
  const texts: Readonly<Record<CustomAmountProblem, string>> = {
    empty: t.amountEmpty,
    malformed: t.amountMalformed,
    too_fine: t.amountTooFine(digits),
    too_small: t.amountTooSmall(money(min)),
    too_large: t.amountTooLarge(money(max)),
  };
  const check = checkCustomAmount(terms, value);
  const bonus = check.ok && isPositive(check.bonus) ? t.bonus(formatCredits(check.bonus, language)) : "";
  return (
    <div className="amount">
      <label htmlFor={id}>{t.amountIn(price.currency)}</label>
      <input
        id={id}
        ref={field}
        type="text"
        inputMode={digits === 0 ? "numeric" : "decimal"}
        autoComplete="off"
        maxLength={AMOUNT_CHARS_MAX}
        placeholder={min}
        value={value}
        aria-invalid={problem !== null}
        aria-describedby={`${id}-note`}
        onChange={(event) => onChange(event.target.value)}
      />
      <p id={`${id}-note`} className={problem === null ? "hint" : "hint wrong"} aria-live="polite">
        {problem === null ? bonus : texts[problem]}
      </p>
    </div>
  );
}
