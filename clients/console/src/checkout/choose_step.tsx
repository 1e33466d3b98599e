/** What is bought, how it is paid, and the button. */

import { type FormEvent, type ReactNode, useRef, useState } from "react";
import type { CreditPack, PaymentMethodOffer } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { addCredits } from "../shared/decimal.ts";
import { useLanguage, useMessages } from "../shared/i18n/context.tsx";
import { formatMoney } from "../shared/numbers.ts";
import type { Trouble } from "../shared/trouble.ts";
import { AutoTopUpBox, AutoTopUpState } from "./auto_top_up.tsx";
import type { StepProps } from "./checkout.tsx";
import { browserOf, canAutoTopUp, usableMethods } from "./choice.ts";
import { checkCustomAmount, type CustomAmountCheck, type CustomTerms } from "./custom_amount.ts";
import { failureText } from "./failures.ts";
import { Alert, TestBanner } from "./frame.tsx";
import { MethodCards } from "./method_cards.tsx";
import { MESSAGES } from "./messages.ts";
import { AmountField, PackCards } from "./pack_cards.tsx";
import { useThrottledText } from "./statements.tsx";
import { CreditFigure } from "./wallet_card.tsx";

export function termsOf(pack: CreditPack): CustomTerms | null {
  const { price, customAmount, credits, bonusCredits } = pack;
  if (price === undefined || customAmount === undefined) return null;
  return { price, credits, bonus: bonusCredits, min: customAmount.minAmount, max: customAmount.maxAmount };
}

interface Bought {
  readonly price: { readonly currency: string; readonly amount: string };
  readonly credits: string;
}

/** Price and Credits of what is chosen; null: the amount is not right. */
function boughtOf(pack: CreditPack, check: CustomAmountCheck | null): Bought | null {
  const { price, credits, bonusCredits } = pack;
  if (price === undefined) return null;
  if (check === null) return { price, credits: addCredits(credits, bonusCredits) };
  if (!check.ok) return null;
  return {
    price: { currency: price.currency, amount: check.amount },
    credits: addCredits(check.credits, check.bonus),
  };
}

interface ChooseProps extends StepProps {
  readonly declined: boolean;
  /** A payment waits meanwhile. */
  readonly instead: boolean;
}

export function ChooseStep(props: ChooseProps): ReactNode {
  const t = useMessages(MESSAGES);
  const packs = props.offer.creditPacks.filter((pack) => !pack.disabled);
  if (packs.length > 0) return <ChooseForm {...props} packs={packs} />;
  return (
    <p>
      <strong>{t.noPacks}</strong> {t.noPacksText}
    </p>
  );
}

/** What is chosen in the form: what was chosen before, if it is still there, else the first. */
function useChoosing({ model, offer }: ChooseProps, packs: readonly CreditPack[]) {
  const before = model.choice;
  const [packId, setPackId] = useState(before?.packId ?? "");
  const [amount, setAmount] = useState(before?.amount ?? "");
  const [method, setMethod] = useState(before?.method ?? null);
  const [agrees, setAgrees] = useState(before?.autoTopUp ?? false);
  const [browser] = useState(() => browserOf(navigator.userAgent));
  const pack = packs.find(({ id }) => id === packId) ?? packs[0]!;
  const methods = usableMethods(offer.paymentMethods, pack.price?.currency ?? "", browser);
  const way = methods.find((offered) => offered.method === method) ?? methods[0] ?? null;
  const terms = termsOf(pack);
  const check = terms === null ? null : checkCustomAmount(terms, amount);
  const canAgree = canAutoTopUp(offer, pack, way);
  const autoTopUp = canAgree && agrees;
  return { pack, setPackId, amount, setAmount, methods, way, setMethod, terms, check, canAgree, autoTopUp, setAgrees };
}

function ChooseForm(props: ChooseProps & { readonly packs: readonly CreditPack[] }): ReactNode {
  const { model, offer, packs, session, merchant, instead } = props;
  const t = useMessages(MESSAGES);
  const language = useLanguage();
  const { pack, terms, check, way, ...chosen } = useChoosing(props, packs);
  const [pressed, setPressed] = useState(false);
  const amountField = useRef<HTMLInputElement>(null);
  const bought = boughtOf(pack, check);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setPressed(true);
    if (check?.ok === false) return amountField.current?.focus();
    if (way === null) return;
    const { paymentAccountId: accountId, method } = way;
    const amount = check === null ? "" : check.amount;
    model.pay({ packId: pack.id, amount, accountId, method, autoTopUp: chosen.autoTopUp });
  };
  const price = bought === null ? null : formatMoney(bought.price, language);
  return (
    <form onSubmit={submit} noValidate aria-busy={model.busy}>
      <Failures declined={props.declined} failure={session.failure} trouble={model.trouble} />
      {way?.test === true && <TestBanner />}
      <fieldset disabled={model.busy}>
        <legend className="only-read">{t.choosePack}</legend>
        <PackCards packs={packs} chosen={pack.id} onChoose={chosen.setPackId}>
          {terms !== null && (
            <AmountField
              terms={terms}
              value={chosen.amount}
              problem={check?.ok === false && (pressed || chosen.amount !== "") ? check.problem : null}
              field={amountField}
              onChange={chosen.setAmount}
            />
          )}
        </PackCards>
      </fieldset>
      <p className="get">
        <span>{t.youGet}</span>
        <output>
          {bought === null ? "–" : <CreditFigure credits={bought.credits} />} {t.creditsWord}
        </output>
      </p>
      <Ways methods={chosen.methods} way={way} busy={model.busy} onChoose={chosen.setMethod} />
      {chosen.canAgree && offer.autoTopUp !== undefined && (
        <AutoTopUpBox
          offer={offer.autoTopUp}
          pack={pack}
          merchant={merchant}
          checked={chosen.autoTopUp}
          disabled={model.busy}
          onChange={chosen.setAgrees}
        />
      )}
      {offer.autoTopUp?.enabled === true && <AutoTopUpState offer={offer.autoTopUp} model={model} session={session} />}
      <button type="submit" className="primary" disabled={model.busy || way === null}>
        {model.busy ? <Busy text={t.paying} /> : price === null ? t.payPlain : t.pay(price)}
      </button>
      <div className="links">
        {instead && (
          <button type="button" className="plain" onClick={() => model.chooseInstead(false)}>
            {t.keepWaiting}
          </button>
        )}
        <button type="button" className="plain" disabled={model.busy} onClick={model.cancel}>
          {instead ? t.cancelAll : t.cancel}
        </button>
      </div>
    </form>
  );
}

export function Busy({ text }: { readonly text: string }): ReactNode {
  return (
    <>
      <span className="spinner" aria-hidden="true" />
      {text}
    </>
  );
}

interface WaysProps {
  readonly methods: readonly PaymentMethodOffer[];
  readonly way: PaymentMethodOffer | null;
  readonly busy: boolean;
  readonly onChoose: (method: PaymentMethodOffer["method"]) => void;
}

function Ways({ methods, way, busy, onChoose }: WaysProps): ReactNode {
  const t = useMessages(MESSAGES);
  if (way === null) return <p className="note">{t.noMethods}</p>;
  return (
    <fieldset disabled={busy}>
      <legend>{t.payWith}</legend>
      <MethodCards methods={methods} chosen={way.method} onChoose={onChoose} />
    </fieldset>
  );
}

interface FailuresProps {
  readonly declined: boolean;
  readonly failure: string;
  readonly trouble: Trouble | null;
}

/** What went wrong last: what the payer has just done counts more than what was before. */
function Failures({ declined, failure, trouble }: FailuresProps): ReactNode {
  const t = useMessages(MESSAGES);
  switch (trouble?.kind) {
    case "throttled":
      return <ThrottledAlert afterS={trouble.afterS} />;
    case "refused":
      return <Alert title={t.refused} text={failureText(trouble.failure, t) ?? t.refusedText} />;
    case "invalid":
      return <Alert title={t.refused} text={t.invalidText} />;
    case "closed":
    case "server":
      return <Alert title={t.serverFailed} text={t.serverFailedText} />;
    default:
      return declined ? <Alert title={t.declined} text={failureText(failure, t) ?? t.declinedText} /> : null;
  }
}

function ThrottledAlert({ afterS }: { readonly afterS: number | null }): ReactNode {
  const t = useMessages(MESSAGES);
  return <Alert title={t.throttledTitle} text={useThrottledText(afterS)} />;
}
