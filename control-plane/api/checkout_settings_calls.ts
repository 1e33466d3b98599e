/** The calls of PaymentAccountService that concern how a checkout behaves. */

import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { parseCredits } from "../../core/credits.ts";
import { type CheckoutSettings, CheckoutSettingsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import {
  GetCheckoutSettingsResponseSchema,
  type PaymentAccountService,
  type UpdateCheckoutSettingsRequest,
  UpdateCheckoutSettingsResponseSchema,
} from "../../proto/gen/tokenbill/v1/payment_account_service_pb.ts";
import { invalidField } from "../domain/errors.ts";
import { checkReturnPrefix } from "../domain/return_url.ts";
import {
  type CheckoutSettingsFields,
  type CheckoutSettingsRow,
  lockCheckoutSettings,
  readCheckoutSettings,
  updateCheckoutSettings,
} from "../store/checkout_settings.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { canonicalCredits, checkEtag, optionalTime } from "./convert.ts";
import { readMoney, toMoney } from "./money_fields.ts";

/** What payers agree to with automatic top-ups; absent fields were never set. */
export function topUpTerms(row: CheckoutSettingsFields) {
  const { auto_top_up_currency: currency, auto_top_up_daily_minor: dailyMinor, auto_top_up_threshold: threshold } = row;
  return {
    thresholdCredits: threshold === null ? "" : canonicalCredits(threshold),
    dailyMax: currency === null || dailyMinor === null ? undefined : toMoney(currency, dailyMinor),
  };
}

function toCheckoutSettings(row: CheckoutSettingsRow): CheckoutSettings {
  const { thresholdCredits, dailyMax } = topUpTerms(row);
  return create(CheckoutSettingsSchema, {
    displayName: row.display_name,
    returnUrlPrefixes: row.return_url_prefixes,
    autoTopUpOffered: row.auto_top_up_offered,
    autoTopUpThresholdCredits: thresholdCredits,
    autoTopUpDailyMax: dailyMax,
    updateTime: optionalTime(row.updated_at),
    etag: String(row.version),
  });
}

/** Each once, in its one spelling. @throws DomainError invalid_field */
function readPrefixes(prefixes: readonly string[]): string[] {
  const read = prefixes.map((text, index) => {
    const checked = checkReturnPrefix(text);
    if ("prefix" in checked) return checked.prefix;
    throw invalidField(`return_url_prefixes.prefixes[${index}]`, checked.problem, "url_prefix");
  });
  return [...new Set(read)];
}

/** @throws DomainError invalid_field */
function changedTopUp(row: CheckoutSettingsRow, request: UpdateCheckoutSettingsRequest) {
  const threshold = request.autoTopUpThresholdCredits ?? row.auto_top_up_threshold;
  if (threshold !== null && parseCredits(threshold) === 0n)
    throw invalidField("auto_top_up_threshold_credits", "must be above 0", "positive");
  const daily =
    request.autoTopUpDailyMax === undefined
      ? { currency: row.auto_top_up_currency, minor: row.auto_top_up_daily_minor }
      : readMoney(request.autoTopUpDailyMax, "auto_top_up_daily_max");
  const offered = request.autoTopUpOffered ?? row.auto_top_up_offered;
  if (offered && (threshold === null || daily.minor === null)) {
    const missing = threshold === null ? "auto_top_up_threshold_credits" : "auto_top_up_daily_max";
    throw invalidField(missing, "payers must know it before they can agree: it is required", "required");
  }
  return {
    auto_top_up_offered: offered,
    auto_top_up_threshold: threshold,
    auto_top_up_currency: daily.currency,
    auto_top_up_daily_minor: daily.minor,
  };
}

export function checkoutSettingsCalls(
  deps: Deps,
): Pick<ServiceImpl<typeof PaymentAccountService>, "getCheckoutSettings" | "updateCheckoutSettings"> {
  return {
    async getCheckoutSettings(_request, ctx) {
      const row = await readCheckoutSettings(deps.db, requireMerchant(ctx));
      return create(GetCheckoutSettingsResponseSchema, { checkoutSettings: toCheckoutSettings(row) });
    },

    async updateCheckoutSettings(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const now = new Date(deps.now());
      return deps.db.tx(async (tx) => {
        const row = await lockCheckoutSettings(tx, merchantId, now);
        checkEtag(request.etag, row.version);
        const { returnUrlPrefixes: prefixes } = request;
        const fields = {
          display_name: request.displayName?.trim() ?? row.display_name,
          return_url_prefixes: prefixes === undefined ? row.return_url_prefixes : readPrefixes(prefixes.prefixes),
          ...changedTopUp(row, request),
        };
        const changed = await updateCheckoutSettings(tx, merchantId, fields, now);
        return create(UpdateCheckoutSettingsResponseSchema, { checkoutSettings: toCheckoutSettings(changed) });
      });
    },
  };
}
