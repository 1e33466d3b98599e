/** Wire -> domain for usage records and prices. */

import { fromBinary } from "@bufbuild/protobuf";
import type { Meter, UnitKind, UnitQuantity, UnitSource } from "../../core/meters.ts";
import { type CompiledPrice, compileDetailedPrice, compileSimplePrice } from "../../core/pricing.ts";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { PriceSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { type IncomingRecord, RECORD_BYTES_MAX, type Usage } from "../domain/report.ts";
import { readUsage } from "./record_reader.ts";

/** By the generated codec. @throws when it is no UsageRecord */
export function decodeUsage(body: Uint8Array): Usage {
  const record = fromBinary(UsageRecordSchema, body);
  return {
    recordNo: record.recordNo,
    id: record.id,
    veId: record.veId,
    accessKeyId: record.accessKeyId,
    logicalModel: record.logicalModel,
    physicalModelId: record.physicalModelId,
    priceId: record.priceId,
    // Beyond a safe integer the number is not exact, and refused by the domain as too large in any case.
    units: record.units.map(({ meter, quantity, source, size, quality }): UnitQuantity => ({
      meter: meter as number as Meter,
      quantity: Number(quantity),
      source: source as number as UnitSource,
      ...(size === "" ? {} : { size }),
      ...(quality === "" ? {} : { quality }),
    })),
    nodeCredits: record.credits,
    arriveUs: Number(record.arriveUnixUs),
  };
}

/** Decodes one journaled record; never throws. */
export function decodeRecord(body: Uint8Array): IncomingRecord {
  if (body.byteLength > RECORD_BYTES_MAX) return { body, usage: "too_large" };
  try {
    return { body, usage: readUsage(body) ?? decodeUsage(body) };
  } catch {
    return { body, usage: "undecodable" };
  }
}

/** A serialized `tokenbill.v1.Price`, ready for arithmetic. @throws PriceError, or Error when it is none */
export function decodePrice(id: string, body: Uint8Array): CompiledPrice {
  const { kind } = fromBinary(PriceSchema, body);
  if (kind.case === "simple") {
    const { unit, creditPerUnit, perUnits } = kind.value;
    return compileSimplePrice(id, { unit: unit as number as UnitKind, creditPerUnit, perUnits });
  }
  if (kind.case === "detailed") {
    const meters = kind.value.meters.map(({ meter, creditPerUnit, perUnits, size, quality, aboveInputTokens }) => ({
      meter: meter as number as Meter,
      creditPerUnit,
      perUnits,
      size,
      quality,
      aboveInputTokens: Number(aboveInputTokens),
    }));
    return compileDetailedPrice(id, meters);
  }
  throw new Error(`the price ${id} is of no known kind`);
}
