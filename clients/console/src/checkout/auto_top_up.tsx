/** Automatic top-ups: agreeing to them, and switching them off. */

import { useMutation } from "@connectrpc/connect-query";
import { type ReactNode, useId, useState } from "react";
import { AutoTopUpService } from "../../../ts/src/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import type {
  AutoTopUpOffer,
  CheckoutSession,
  CreditPack,
  Money,
} from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { addCredits } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatCredits, formatMoney } from "../shared/numbers.ts";
import { MESSAGES } from "./messages.ts";
import type { CheckoutModel } from "./use_checkout.ts";

interface BoxProps {
  readonly offer: AutoTopUpOffer;
  readonly pack: CreditPack;
  readonly merchant: string;
  readonly checked: boolean;
  readonly disabled: boolean;
  readonly onChange: (agrees: boolean) => void;
}

/** Never ticked by itself, and the consent names everything that is agreed to. */
export function AutoTopUpBox({ offer, pack, merchant, checked, disabled, onChange }: BoxProps): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const id = useId();
  const money = (amount: Money | undefined): string => (amount === undefined ? "" : formatMoney(amount, language));
  const consent = t.autoTopUpText(
    formatCredits(offer.thresholdCredits, language),
    money(pack.price),
    formatCredits(addCredits(pack.credits, pack.bonusCredits), language),
    money(offer.dailyMax),
    merchant,
  );
  return (
    <div className="consent">
      <label className="tick">
        <input
          type="checkbox"
          checked={checked}
          disabled={disabled}
          aria-describedby={id}
          onChange={(event) => onChange(event.target.checked)}
        />
        <span>{t.autoTopUp}</span>
      </label>
      <p id={id} className="hint">
        {consent}
      </p>
    </div>
  );
}

interface StateProps {
  readonly offer: AutoTopUpOffer;
  readonly session: CheckoutSession;
  readonly model: CheckoutModel;
}

export function AutoTopUpState({ offer, session, model }: StateProps): ReactNode {
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const [asking, setAsking] = useState(false);
  const off = useMutation(AutoTopUpService.method.deleteAutoTopUp, { transport: model.transport });
  const dailyMax = offer.dailyMax === undefined ? "" : formatMoney(offer.dailyMax, language);
  const label = offer.savedMethodLabel === "" ? "" : ` (${offer.savedMethodLabel})`;
  if (off.isSuccess) return <p className="note">{t.autoTopUpOffDone}</p>;
  return (
    <div className="consent">
      <p>
        <strong>
          {t.autoTopUpOn}
          {label}
        </strong>
      </p>
      <p className="hint">{t.autoTopUpOnText(formatCredits(offer.thresholdCredits, language), dailyMax)}</p>
      {off.error !== null && <p className="hint wrong">{t.serverFailed}</p>}
      <div className="links" aria-live="polite">
        {asking ? (
          <>
            <span>{t.autoTopUpOffSure}</span>
            <button
              type="button"
              className="plain"
              disabled={off.isPending}
              onClick={() => off.mutate({ veId: session.veId })}
            >
              {t.autoTopUpOffYes}
            </button>
            <button type="button" className="plain" onClick={() => setAsking(false)}>
              {t.autoTopUpOffNo}
            </button>
          </>
        ) : (
          <button type="button" className="plain" onClick={() => setAsking(true)}>
            {t.autoTopUpOff}
          </button>
        )}
      </div>
    </div>
  );
}
