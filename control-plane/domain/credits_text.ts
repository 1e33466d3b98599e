/** PURE: Credits as payers read them. */

import { type Credits, formatCredits, PICO_PER_CREDIT } from "../../core/credits.ts";

/** `5,000,000 Credits`, with every digit that is not 0. */
export function creditsText(credits: Credits): string {
  const [whole, fraction] = formatCredits(credits).split(".") as [string, string | undefined];
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const unit = credits === PICO_PER_CREDIT ? "Credit" : "Credits";
  return `${grouped}${fraction === undefined ? "" : `.${fraction}`} ${unit}`;
}
