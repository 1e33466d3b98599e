/** Prices: requests -> checked, stored messages. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { compileDetailedPrice, compileSimplePrice, type CompiledPrice, type MeterPrice } from "../../core/pricing.ts";
import type { Meter, UnitKind } from "../../core/meters.ts";
import type { DetailedPrice, SimplePrice } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { type Price, PriceSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { checkDetailedPrice, checkSimplePrice } from "../domain/catalogue.ts";

/** The oneof `price` of the requests that set one. */
export type PriceChoice =
  | { case: "simplePrice"; value: SimplePrice }
  | { case: "detailedPrice"; value: DetailedPrice }
  | { case: undefined; value?: undefined };

export interface CheckedPrice {
  readonly message: Price;
  readonly compiled: CompiledPrice;
  /** The message, serialized as it is stored. */
  readonly body: Uint8Array;
}

function simpleOf({ creditPerUnit, unit, perUnits }: SimplePrice): {
  creditPerUnit: string;
  unit: UnitKind;
  perUnits: bigint;
} {
  return { creditPerUnit, unit: unit as number as UnitKind, perUnits };
}

export function metersOf({ meters }: DetailedPrice): MeterPrice[] {
  return meters.map(({ meter, creditPerUnit, perUnits, size, quality, aboveInputTokens }) => ({
    meter: meter as number as Meter,
    creditPerUnit,
    perUnits,
    size,
    quality,
    aboveInputTokens: Number(aboveInputTokens),
  }));
}

/**
 * Null when the request sets no price. `within` is where the price is in the request: `entries[3].`.
 * @throws DomainError price_not_exact, invalid_field
 */
export function checkPrice(
  choice: PriceChoice,
  id: string,
  physicalModelId: string,
  now: Date,
  within = "",
): CheckedPrice | null {
  if (choice.case === undefined) return null;
  const isSimple = choice.case === "simplePrice";
  const compiled = isSimple
    ? checkSimplePrice(id, simpleOf(choice.value), `${within}simple_price`)
    : checkDetailedPrice(id, metersOf(choice.value), `${within}detailed_price`);
  const kind = isSimple
    ? { case: "simple" as const, value: choice.value }
    : { case: "detailed" as const, value: choice.value };
  const message = create(PriceSchema, { id, physicalModelId, kind, createTime: timestampFromDate(now) });
  return { message, compiled, body: toBinary(PriceSchema, message) };
}

export function readPrice(body: Uint8Array): Price {
  return fromBinary(PriceSchema, body);
}

/** A stored price ready for arithmetic; it was checked when it was set. */
export function compileStoredPrice(body: Uint8Array): CompiledPrice | null {
  const { id, kind } = readPrice(body);
  if (kind.case === "simple") return compileSimplePrice(id, simpleOf(kind.value));
  return kind.case === "detailed" ? compileDetailedPrice(id, metersOf(kind.value)) : null;
}
