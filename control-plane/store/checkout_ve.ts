/** What a checkout has to know of a VE and of who sells. */

import type { Tx } from "../db/database.ts";
import type { CheckoutSettingsFields } from "./checkout_settings.ts";

/** `low_balance` is a decimal string. */
export interface CheckoutVeRow extends CheckoutSettingsFields {
  id: string;
  merchant_id: string;
  name: string;
  template: boolean;
  ve_template_id: string | null;
  disabled: boolean;
  frozen: boolean;
  low_balance: string;
  merchant_name: string;
  merchant_disabled: boolean;
}

/** Whoever the merchant is. One statement, whether there is such a VE or not: it takes as long either way. */
export async function findCheckoutVe(tx: Tx, veId: string): Promise<CheckoutVeRow | null> {
  const [row] = await tx.query<CheckoutVeRow>(
    `select v.id, v.merchant_id, v.name, v.template, v.ve_template_id, v.disabled, v.frozen, v.low_balance,
       m.name as merchant_name, m.disabled as merchant_disabled,
       coalesce(s.display_name, '') as display_name, coalesce(s.return_url_prefixes, '{}') as return_url_prefixes,
       coalesce(s.auto_top_up_offered, false) as auto_top_up_offered, s.auto_top_up_threshold, s.auto_top_up_currency,
       s.auto_top_up_daily_minor
     from virtual_endpoint v join merchant m on m.id = v.merchant_id
       left join checkout_settings s on s.merchant_id = v.merchant_id
     where v.id = $1`,
    [veId],
  );
  return row ?? null;
}
