/** Money between the wire and the domain. */

import { create } from "@bufbuild/protobuf";
import { type Money, MoneySchema } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { currencyDigits, formatAmount, isCurrency, type Money as Amount, parseAmount } from "../domain/money.ts";

export function toMoney(currency: string, minor: bigint): Money {
  return create(MoneySchema, { currency, amount: formatAmount({ currency, minor }) });
}

/** An amount above 0, in the currency's smallest unit. @throws DomainError invalid_field that names `field` */
export function readAmount(currency: string, text: string, field: string): bigint {
  const minor = parseAmount(currency, text);
  if (minor === null) {
    const digits = currencyDigits(currency);
    throw invalidField(field, `is too much, or has more than the ${digits} decimals that ${currency} has`, "amount");
  }
  if (minor === 0n) throw invalidField(field, "must be above 0", "positive");
  return minor;
}

/** @throws DomainError invalid_field that names the currency or the amount below `field` */
export function readMoney({ currency, amount }: Money, field: string): Amount {
  if (!isCurrency(currency))
    throw invalidField(`${field}.currency`, "there is no such currency in ISO 4217: give one such as USD", "currency");
  return { currency, minor: readAmount(currency, amount, `${field}.amount`) };
}

/** @throws DomainError invalid_field that tells the bounds */
export function checkBounds(currency: string, minor: bigint, min: bigint, max: bigint, field: string): void {
  if (minor >= min && minor <= max) return;
  const [from, to] = [min, max].map((bound) => formatAmount({ currency, minor: bound })) as [string, string];
  throw new DomainError("invalid_field", `${field}: give an amount from ${from} to ${to} ${currency}`, {
    field,
    metadata: { rule: "bounds", min_amount: from, max_amount: to, currency },
  });
}
