/** What merchants hear of their wallets: `wallet.low` and `wallet.exhausted`, with the fields of docs/webhooks.md. */

import { formatCredits } from "../../core/credits.ts";
import type { Deps } from "../api/context.ts";
import { checkoutUrl } from "../api/convert.ts";
import { WalletState } from "../domain/wallet.ts";
import type { WalletAlert } from "../domain/wallet_alert.ts";
import type { NewWebhookEvent } from "../store/webhook_event.ts";

export function walletEvents(
  { newId, settings }: Pick<Deps, "newId" | "settings">,
  alerts: readonly WalletAlert[],
): NewWebhookEvent[] {
  return alerts.map(({ veId, merchantId, state, remaining, lowBalance }) => ({
    id: newId("evt_"),
    merchantId,
    type: state === WalletState.LOW ? "wallet.low" : "wallet.exhausted",
    veId,
    sessionId: "",
    data: {
      ve_id: veId,
      credit_remaining: formatCredits(remaining),
      low_balance_credits: formatCredits(lowBalance),
      checkout_url: checkoutUrl(settings, veId),
    },
  }));
}
