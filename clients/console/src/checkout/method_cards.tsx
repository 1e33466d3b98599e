/** Ways to pay: to choose from if there are several, as a line if there is one. */

import type { ReactNode } from "react";
import { PaymentMethod, type PaymentMethodOffer } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { useMessages } from "../shared/i18n/context.tsx";
import type { CheckoutMessages } from "./messages_en.ts";
import { MESSAGES } from "./messages.ts";

function textsOf(method: PaymentMethod, t: CheckoutMessages): readonly [name: string, text: string] {
  switch (method) {
    case PaymentMethod.WECHAT_NATIVE:
      return [t.methodWechat, t.methodWechatNativeText];
    case PaymentMethod.WECHAT_JSAPI:
      return [t.methodWechat, t.methodWechatJsapiText];
    case PaymentMethod.SANDBOX:
      return [t.methodSandbox, t.methodSandboxText];
    default:
      return [t.methodStripe, t.methodStripeText];
  }
}

interface MethodCardsProps {
  readonly methods: readonly PaymentMethodOffer[];
  readonly chosen: PaymentMethod;
  readonly onChoose: (method: PaymentMethod) => void;
}

export function MethodCards({ methods, chosen, onChoose }: MethodCardsProps): ReactNode {
  const t = useMessages(MESSAGES);
  const words = (method: PaymentMethod): ReactNode => {
    const [name, text] = textsOf(method, t);
    return (
      <span className="words">
        <span className="name">{name}</span>
        <span className="more">{text}</span>
      </span>
    );
  };
  if (methods.length === 1) return <div className="option single">{words(methods[0]!.method)}</div>;
  return (
    <div className="choices">
      {methods.map(({ method }) => (
        <div key={method} className="choice">
          <label className="option">
            <input
              type="radio"
              name="method"
              value={method}
              checked={method === chosen}
              onChange={() => onChoose(method)}
            />
            {words(method)}
          </label>
        </div>
      ))}
    </div>
  );
}
