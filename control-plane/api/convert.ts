/** Rows -> messages that several services share. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate, type Timestamp } from "@bufbuild/protobuf/wkt";
import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { type Wallet, WalletSchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import { signCheckoutLink } from "../checkout_link.ts";
import { etagMismatch } from "../domain/errors.ts";
import { remaining, type WalletRow, walletState } from "../domain/wallet.ts";
import type { Settings } from "../settings.ts";
import type { Deps } from "./context.ts";

export function optionalTime(date: Date | null): Timestamp | undefined {
  return date === null ? undefined : timestampFromDate(date);
}

/** `numeric` as SQL shows it (`1.500000000000`) in the canonical form (`1.5`). */
export function canonicalCredits(text: string): string {
  return formatCredits(parseCredits(text));
}

/** The empty etag matches every version. @throws DomainError etag_mismatch */
export function checkEtag(etag: string, version: bigint): void {
  if (etag !== "" && etag !== String(version)) throw etagMismatch();
}

export function toWallet(row: WalletRow, lowBalance: Credits): Wallet {
  return create(WalletSchema, {
    creditBudget: formatCredits(row.purchased),
    creditRemaining: formatCredits(remaining(row)),
    settled: formatCredits(row.settled),
    escrowed: formatCredits(row.escrowed),
    debt: formatCredits(row.debt),
    state: walletState(row, lowBalance),
  });
}

/** Where a payer can top this VE up. Who is given this one does not see the wallet there. */
export function checkoutUrl(settings: Pick<Settings, "publicUrl">, veId: string): string {
  return `${settings.publicUrl}/checkout?ve_id=${encodeURIComponent(veId)}`;
}

/** As `checkoutUrl`, for somebody who may see the wallet; good for an hour. */
export function signedCheckoutUrl(deps: Pick<Deps, "secrets" | "settings" | "now">, veId: string): string {
  return `${checkoutUrl(deps.settings, veId)}&link=${signCheckoutLink(deps.secrets, veId, deps.now())}`;
}
