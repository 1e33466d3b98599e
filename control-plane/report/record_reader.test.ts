/** The hand-written reader and the generated codec say the same of every record that nodes write, and of broken ones. */

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Meter, UnitQuantitySchema } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import type { Usage } from "../domain/report.ts";
import { decodeRecord, decodeUsage } from "./decode.ts";
import { readUsage } from "./record_reader.ts";

const RUNS = 2000;

const plain = fc.string({ minLength: 0, maxLength: 200 });
const text = fc.oneof(
  { weight: 9, arbitrary: plain },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 20 }).map((some) => some.toWellFormed()) },
);
const int32 = fc.oneof(fc.nat(), fc.constantFrom(0, 1, 127, 128, 2 ** 31 - 1, -1));
const int64 = fc.oneof(
  fc.maxSafeNat().map(BigInt),
  fc.constantFrom(0n, 127n, 128n, 2n ** 49n - 1n, 2n ** 49n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n - 1n, -1n),
);
const uint64 = int64.map((value) => (value < 0n ? 2n ** 64n - 1n : value));
const unit = fc.record(
  { meter: int32, quantity: int64, source: int32, size: text, quality: text },
  { requiredKeys: ["meter", "quantity", "source"] },
);
const attempt = fc.record({
  physicalModelId: text,
  tier: int32,
  result: int32,
  httpStatus: int32,
  startUs: int64,
  durationUs: int64,
  kind: int32,
  firstByteUs: int64,
  firstContentUs: int64,
  detail: text,
  credits: text,
});
const record = fc
  .record(
    {
      recordNo: uint64,
      id: text,
      veId: text,
      accessKeyId: text,
      logicalModelId: text,
      logicalModel: text,
      endpoint: int32,
      stream: fc.boolean(),
      physicalModelId: text,
      priceId: text,
      units: fc.array(unit, { maxLength: 12 }),
      credits: text,
      outcome: int32,
      httpStatus: int32,
      attempts: fc.array(attempt, { maxLength: 4 }),
      arriveUnixUs: int64,
      firstByteUs: int64,
      firstContentUs: int64,
      durationUs: int64,
      upstreamRequestId: text,
      errorCode: text,
      hedgeOf: text,
    },
    { requiredKeys: [] },
  )
  .map((init) =>
    toBinary(UsageRecordSchema, create(UsageRecordSchema, init as MessageInitShape<typeof UsageRecordSchema>)),
  );

/** What the generated codec makes of it. */
function expected(body: Uint8Array): Usage | "undecodable" {
  try {
    return decodeUsage(body);
  } catch {
    return "undecodable";
  }
}

/** One byte is another, or is missing, or is there twice, or the rest is missing. */
function damage(body: Uint8Array, at: number, byte: number, how: number): Uint8Array {
  const place = body.length === 0 ? 0 : at % body.length;
  const before = body.subarray(0, place);
  const after = body.subarray(place + 1);
  return Buffer.concat(
    [[before, [byte], after], [before, after], [before, [byte], body.subarray(place)], [before]][how % 4]!.map((part) =>
      Uint8Array.from(part),
    ),
  );
}

describe("readUsage", () => {
  it("reads what the generated codec reads", () => {
    fc.assert(
      fc.property(record, (body) => {
        expect(decodeRecord(body).usage).toEqual(expected(body));
      }),
      { numRuns: RUNS },
    );
  });

  it("reads what nodes write without its help", () => {
    const small = fc.record({ recordNo: fc.maxSafeNat().map(BigInt), id: plain, veId: plain, priceId: plain });
    fc.assert(
      fc.property(small, fc.nat(12), (init, units) => {
        const body = toBinary(
          UsageRecordSchema,
          create(UsageRecordSchema, {
            ...init,
            units: Object.values(Meter)
              .filter((meter) => typeof meter === "number")
              .slice(0, units)
              .map((meter) => create(UnitQuantitySchema, { meter, quantity: 2n ** 53n - 1n, source: 1 })),
            attempts: [
              { physicalModelId: "pm_a", durationUs: 412_345n },
              {
                physicalModelId: "pm_b",
                durationUs: 812_345n,
                kind: 4,
                firstByteUs: 300_000n,
                firstContentUs: 400_000n,
                detail: "ECONNREFUSED",
                credits: "0.000000000001",
              },
            ],
            hedgeOf: "usg_a",
            arriveUnixUs: 1_800_000_000_000_000n,
          }),
        );
        expect(readUsage(body)).toEqual(decodeUsage(body));
      }),
    );
  });

  it("takes for broken what the generated codec takes for broken", () => {
    fc.assert(
      fc.property(record, fc.nat(), fc.nat(255), fc.nat(3), (body, at, byte, how) => {
        const broken = damage(body, at, byte, how);
        expect(decodeRecord(broken).usage).toEqual(expected(broken));
      }),
      { numRuns: RUNS },
    );
  });

  it("reads a record in the middle of a larger buffer", () => {
    const body = toBinary(UsageRecordSchema, create(UsageRecordSchema, { id: "usg_a", veId: "ve_a" }));
    const inside = Buffer.concat([Uint8Array.of(1, 2, 3), body, Uint8Array.of(4)]).subarray(3, 3 + body.length);
    expect(readUsage(inside)).toMatchObject({ id: "usg_a", veId: "ve_a" });
  });
});
