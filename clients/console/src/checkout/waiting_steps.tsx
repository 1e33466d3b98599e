/** Steps between the button and the end. */

import { type ReactNode, useState } from "react";
import { useMessages } from "../shared/i18n/context.tsx";
import { safeDestination } from "./address.ts";
import type { StepProps } from "./checkout.tsx";
import { Alert, Card, Spinner, TestBanner } from "./frame.tsx";
import { MESSAGES } from "./messages.ts";
import type { CheckoutMessages } from "./messages_en.ts";
import { Summary } from "./summary.tsx";
import type { WechatResult } from "./use_paying.ts";

type TitledProps = StepProps & { readonly title: string };

/** What can be done while a payment waits. */
export function WaitingFoot({ model }: Pick<StepProps, "model">): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <>
      <p className="progress">
        <Spinner />
        <span>{t.waitingForPayment}</span>
      </p>
      <PaidButton model={model} />
      <div className="links">
        <button type="button" className="plain" onClick={() => model.chooseInstead(true)}>
          {t.chooseOther}
        </button>
        <button type="button" className="plain" disabled={model.busy} onClick={model.cancel}>
          {t.cancel}
        </button>
      </div>
    </>
  );
}

/** Says that it asks only when it was pressed: the page asks by itself all the time. */
function PaidButton({ model }: Pick<StepProps, "model">): ReactNode {
  const t = useMessages(MESSAGES);
  const [pressed, setPressed] = useState(false);
  const asking = pressed && model.checking;
  return (
    <button
      type="button"
      className="secondary"
      aria-disabled={asking}
      onClick={() => {
        setPressed(true);
        if (!asking) model.check();
      }}
    >
      {asking ? t.checking : t.iHavePaid}
    </button>
  );
}

function RefusedToStart({ model }: Pick<StepProps, "model">): ReactNode {
  const t = useMessages(MESSAGES);
  const { trouble } = model;
  if (trouble === null || trouble.kind === "connection" || trouble.kind === "state") return null;
  return <Alert title={t.refused} text={trouble.kind === "throttled" ? t.throttledText : t.refusedText} />;
}

/** A payment waits that was started before: in another tab, before a reload, or on the page the payer came back from. */
export function WaitingStep(props: TitledProps): ReactNode {
  const { model, session, test, title } = props;
  const t = useMessages(MESSAGES);
  return (
    <Card title={title}>
      <RefusedToStart model={model} />
      {test && <TestBanner />}
      <p>{t.waitingText}</p>
      <Summary session={session} />
      <button type="button" className="primary" disabled={model.busy} onClick={model.resume}>
        {t.continuePayment}
      </button>
      <WaitingFoot {...props} />
    </Card>
  );
}

export function LeavingStep({ model, session, test, title }: TitledProps): ReactNode {
  const t = useMessages(MESSAGES);
  const { action } = model;
  const blocked = action.case === "redirectUrl" && safeDestination(action.value, window.location.href) === null;
  const other = (
    <div className="links">
      <button type="button" className="plain" onClick={() => model.chooseInstead(true)}>
        {t.chooseOther}
      </button>
    </div>
  );
  if (blocked) {
    return (
      <Card title={t.blockedTitle} tone="bad">
        <p>{t.blockedText}</p>
        {other}
      </Card>
    );
  }
  return (
    <Card title={title}>
      {test && <TestBanner />}
      <Summary session={session} />
      <p className="progress">
        <Spinner />
        <span>{t.leavingText}</span>
      </p>
      <button type="button" className="primary" onClick={model.resume}>
        {t.continuePayment}
      </button>
      {other}
    </Card>
  );
}

function wechatText(result: WechatResult, t: CheckoutMessages): string | null {
  switch (result) {
    case "cancel":
      return t.wechatCancel;
    case "fail":
      return t.wechatFail;
    case "absent":
      return t.wechatAbsent;
    default:
      return null;
  }
}

export function WechatStep(props: TitledProps): ReactNode {
  const { model, session, test, title } = props;
  const t = useMessages(MESSAGES);
  const problem = wechatText(model.wechatResult, t);
  return (
    <Card title={title}>
      {test && <TestBanner />}
      {problem === null ? <p>{t.wechatText}</p> : <Alert title={problem} text="" />}
      <Summary session={session} />
      {problem !== null && (
        <button type="button" className="primary" onClick={model.resume}>
          {t.wechatAgain}
        </button>
      )}
      <WaitingFoot {...props} />
    </Card>
  );
}

export function SettlingStep({ session, test, title }: TitledProps): ReactNode {
  const t = useMessages(MESSAGES);
  return (
    <Card title={title}>
      {test && <TestBanner />}
      <p className="progress">
        <Spinner />
        <span>{t.settlingText}</span>
      </p>
      <Summary session={session} />
    </Card>
  );
}
