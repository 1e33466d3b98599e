/** Credit packs as messages. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type CreditPack, CreditPackSchema } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { formatAmount } from "../domain/money.ts";
import type { CreditPackRow } from "../store/credit_pack.ts";
import { canonicalCredits } from "./convert.ts";
import { toMoney } from "./money_fields.ts";

/** What payers see of a pack. */
export type SoldPack = Pick<
  CreditPackRow,
  "id" | "label" | "currency" | "amount_minor" | "credits" | "bonus" | "min_minor" | "max_minor" | "position"
>;

function toCustomAmount({ currency, min_minor: min, max_minor: max }: SoldPack) {
  if (min === null || max === null) return undefined;
  return {
    minAmount: formatAmount({ currency, minor: min }),
    maxAmount: formatAmount({ currency, minor: max }),
  };
}

export function toSoldPack(pack: SoldPack): CreditPack {
  return create(CreditPackSchema, {
    id: pack.id,
    label: pack.label,
    price: toMoney(pack.currency, pack.amount_minor),
    credits: canonicalCredits(pack.credits),
    bonusCredits: canonicalCredits(pack.bonus),
    customAmount: toCustomAmount(pack),
    position: pack.position,
  });
}

export function toCreditPack(row: CreditPackRow): CreditPack {
  return {
    ...toSoldPack(row),
    veTemplateId: row.ve_template_id ?? "",
    disabled: row.disabled,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  };
}
