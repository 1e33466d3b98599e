/** PURE: what a processor's word for a failure means to the payer. */

import type { CheckoutMessages } from "./messages_en.ts";

/** Null: nothing that the payer could do anything about; the words stay general. */
export function failureText(failure: string, t: CheckoutMessages): string | null {
  switch (failure) {
    case "insufficient_funds":
    case "NOTENOUGH":
      return t.declinedFunds;
    case "expired_card":
      return t.declinedExpired;
    case "incorrect_cvc":
    case "invalid_cvc":
    case "incorrect_number":
    case "invalid_number":
    case "invalid_expiry_month":
    case "invalid_expiry_year":
      return t.declinedCode;
    default:
      return null;
  }
}
