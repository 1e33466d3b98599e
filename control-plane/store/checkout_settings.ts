/** How a merchant's checkout behaves. */

import { parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { AutoTopUpTerms } from "../domain/auto_top_up.ts";

/** Credits are a decimal string; the amount is in the currency's smallest unit. */
export interface CheckoutSettingsFields {
  display_name: string;
  return_url_prefixes: string[];
  auto_top_up_offered: boolean;
  auto_top_up_threshold: string | null;
  auto_top_up_currency: string | null;
  auto_top_up_daily_minor: bigint | null;
}

export interface CheckoutSettingsRow extends CheckoutSettingsFields {
  /** 0: they were never changed. */
  version: bigint;
  updated_at: Date | null;
}

const COLUMNS =
  "display_name, return_url_prefixes, auto_top_up_offered, auto_top_up_threshold, auto_top_up_currency, auto_top_up_daily_minor, version, updated_at";

export const CHECKOUT_SETTINGS_DEFAULT: CheckoutSettingsRow = {
  display_name: "",
  return_url_prefixes: [],
  auto_top_up_offered: false,
  auto_top_up_threshold: null,
  auto_top_up_currency: null,
  auto_top_up_daily_minor: null,
  version: 0n,
  updated_at: null,
};

export async function readCheckoutSettings(tx: Tx, merchantId: string): Promise<CheckoutSettingsRow> {
  const [row] = await tx.query<CheckoutSettingsRow>(`select ${COLUMNS} from checkout_settings where merchant_id = $1`, [
    merchantId,
  ]);
  return row ?? CHECKOUT_SETTINGS_DEFAULT;
}

/** What payers can agree to; null: no automatic top-ups. */
export function offeredTerms(fields: CheckoutSettingsFields): AutoTopUpTerms | null {
  const { auto_top_up_threshold: threshold, auto_top_up_currency: currency, auto_top_up_daily_minor: minor } = fields;
  if (!fields.auto_top_up_offered || threshold === null || currency === null || minor === null) return null;
  return { threshold: parseCredits(threshold), dailyMax: { currency, minor } };
}

/** Locks them until the end of the transaction, which must write them: there may have been no row before. */
export async function lockCheckoutSettings(tx: Tx, merchantId: string, now: Date): Promise<CheckoutSettingsRow> {
  await tx.query(
    "insert into checkout_settings (merchant_id, version, updated_at) values ($1, 0, $2) on conflict (merchant_id) do nothing",
    [merchantId, now],
  );
  const [row] = await tx.query<CheckoutSettingsRow>(
    `select ${COLUMNS} from checkout_settings where merchant_id = $1 for update`,
    [merchantId],
  );
  return row!;
}

/** Writes a locked row as a new version. */
export async function updateCheckoutSettings(
  tx: Tx,
  merchantId: string,
  fields: CheckoutSettingsFields,
  now: Date,
): Promise<CheckoutSettingsRow> {
  const [row] = await tx.query<CheckoutSettingsRow>(
    `update checkout_settings set display_name = $2, return_url_prefixes = $3::text[], auto_top_up_offered = $4,
       auto_top_up_threshold = $5, auto_top_up_currency = $6, auto_top_up_daily_minor = $7, updated_at = $8,
       version = version + 1
     where merchant_id = $1 returning ${COLUMNS}`,
    [
      merchantId,
      fields.display_name,
      fields.return_url_prefixes,
      fields.auto_top_up_offered,
      fields.auto_top_up_threshold,
      fields.auto_top_up_currency,
      fields.auto_top_up_daily_minor,
      now,
    ],
  );
  return row!;
}
