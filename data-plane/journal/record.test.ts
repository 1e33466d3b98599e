import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { formatCredits } from "../../core/credits.ts";
import type { UnitQuantity } from "../../core/meters.ts";
import { type UsageRecord, UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Settlement } from "./journal.ts";
import {
  encodeIntent,
  encodeProgress,
  encodeSettlement,
  intentBytesMax,
  progressBytesMax,
  readRecordHead,
  readRecordKey,
  settlementBytesMax,
} from "./record.ts";

const text = fc
  .oneof(fc.string({ maxLength: 60 }), fc.string({ unit: "binary", maxLength: 200 }), fc.constant(""))
  .map((s) => s.toWellFormed());
const long = fc.string({ unit: "grapheme", minLength: 120, maxLength: 400 }).map((s) => s.toWellFormed());
const int32 = fc.oneof(fc.nat(), fc.constantFrom(0, 1, 127, 128, 16_383, 16_384, 2_147_483_647));
const safe = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53 - 1));
const credits = fc.bigInt({ min: 0n, max: 10n ** 36n });
const units = fc.array(
  fc.record({
    meter: fc.integer({ min: 1, max: 15 }),
    quantity: safe,
    source: fc.integer({ min: 1, max: 3 }),
    size: fc.oneof(text, long),
    quality: text,
  }) as fc.Arbitrary<UnitQuantity>,
  { maxLength: 11 },
);
const attempts = fc.array(
  fc.record({
    physicalModelId: fc.oneof(text, long),
    tier: int32,
    result: fc.nat(17),
    httpStatus: int32,
    startUs: safe,
    durationUs: safe,
    kind: fc.nat(5),
    firstByteUs: safe,
    firstContentUs: safe,
    detail: text,
    credits,
  }),
  { maxLength: 5 },
);
const settlement: fc.Arbitrary<Settlement> = fc.record({
  id: text,
  veId: text,
  accessKeyId: text,
  logicalModelId: text,
  logicalModel: fc.oneof(text, long),
  endpoint: fc.nat(3),
  stream: fc.boolean(),
  physicalModelId: text,
  priceId: text,
  units,
  credits,
  outcome: fc.nat(9),
  httpStatus: int32,
  attempts,
  arriveUnixUs: safe,
  firstByteUs: safe,
  firstContentUs: safe,
  durationUs: safe,
  upstreamRequestId: text,
  errorCode: text,
  hedgeOf: text,
});

/** A decoded record in the form of a settlement. */
function plain(record: UsageRecord) {
  return {
    id: record.id,
    veId: record.veId,
    accessKeyId: record.accessKeyId,
    logicalModelId: record.logicalModelId,
    logicalModel: record.logicalModel,
    endpoint: record.endpoint,
    stream: record.stream,
    physicalModelId: record.physicalModelId,
    priceId: record.priceId,
    units: record.units.map(({ meter, quantity, source, size, quality }) => ({
      meter,
      quantity: Number(quantity),
      source,
      size,
      quality,
    })),
    credits: record.credits,
    outcome: record.outcome,
    httpStatus: record.httpStatus,
    attempts: record.attempts.map((attempt) => ({
      physicalModelId: attempt.physicalModelId,
      tier: attempt.tier,
      result: attempt.result,
      httpStatus: attempt.httpStatus,
      startUs: Number(attempt.startUs),
      durationUs: Number(attempt.durationUs),
      kind: attempt.kind,
      firstByteUs: Number(attempt.firstByteUs),
      firstContentUs: Number(attempt.firstContentUs),
      detail: attempt.detail,
      credits: attempt.credits,
    })),
    arriveUnixUs: Number(record.arriveUnixUs),
    firstByteUs: Number(record.firstByteUs),
    firstContentUs: Number(record.firstContentUs),
    durationUs: Number(record.durationUs),
    upstreamRequestId: record.upstreamRequestId,
    errorCode: record.errorCode,
    hedgeOf: record.hedgeOf,
  };
}

test("a settlement decodes to itself with the generated codec, wherever in a buffer it is written", () => {
  fc.assert(
    fc.property(settlement, safe, fc.nat(50), (given, recordNo, at) => {
      const max = settlementBytesMax(given);
      const buffer = Buffer.alloc(at + max, 0xee);
      const end = encodeSettlement(buffer, at, recordNo, given);
      expect(end - at).toBeLessThanOrEqual(max);
      const decoded = fromBinary(UsageRecordSchema, buffer.subarray(at, end));
      expect(decoded.recordNo).toBe(BigInt(recordNo));
      expect(decoded.$unknown).toBeUndefined();
      const decimal = (amount: bigint): string => (amount > 0n ? formatCredits(amount) : "");
      const tried = given.attempts.map((attempt) => ({ ...attempt, credits: decimal(attempt.credits) }));
      expect(plain(decoded)).toEqual({ ...given, credits: formatCredits(given.credits), attempts: tried });
      const { id, veId, credits } = given;
      expect(readRecordHead(buffer.subarray(at, end))).toEqual({ recordNo, id, veId, credits });
      expect(readRecordKey(buffer.subarray(at, end))).toMatchObject({ recordNo, id });
    }),
    { numRuns: 300 },
  );
});

test("intent and progress decode likewise", () => {
  fc.assert(
    fc.property(settlement, (given) => {
      const buffer = Buffer.alloc(intentBytesMax(given) + progressBytesMax(given), 0xee);
      const middle = encodeIntent(buffer, 0, given);
      const end = encodeProgress(buffer, middle, given);
      const intent = plain(fromBinary(UsageRecordSchema, buffer.subarray(0, middle)));
      const progress = plain(fromBinary(UsageRecordSchema, buffer.subarray(middle, end)));
      const { id, veId, accessKeyId, logicalModelId, logicalModel, endpoint, arriveUnixUs } = given;
      expect(intent).toMatchObject({
        id,
        veId,
        accessKeyId,
        logicalModelId,
        logicalModel,
        endpoint,
        arriveUnixUs,
        credits: "",
        units: [],
      });
      const { physicalModelId, priceId } = given;
      expect(progress).toMatchObject({
        id,
        physicalModelId,
        priceId,
        units: given.units,
        credits: formatCredits(given.credits),
        veId: "",
      });
    }),
  );
});

test("fractions and negative durations of a clock become whole and zero", () => {
  const [given] = fc.sample(settlement, 1);
  const odd = { ...given!, arriveUnixUs: 1_700_000_000_000_000.75, firstByteUs: -3, durationUs: 12.9 };
  const buffer = Buffer.alloc(settlementBytesMax(odd));
  const decoded = plain(fromBinary(UsageRecordSchema, buffer.subarray(0, encodeSettlement(buffer, 0, 1, odd))));
  expect(decoded).toMatchObject({ arriveUnixUs: 1_700_000_000_000_000, firstByteUs: 0, durationUs: 12 });
});

test("bytes that are no record have no head", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const head = readRecordHead(Buffer.from(bytes));
      if (head !== null) expect(Number.isInteger(head.recordNo)).toBe(true);
    }),
  );
  expect(readRecordHead(Buffer.from([0x62, 1, 120]))).toBeNull();
  expect(readRecordHead(Buffer.from([0x62, 9, 120]))).toBeNull();
  // An id, or a number, that is cut off.
  expect(readRecordKey(Buffer.from([0x12, 9, 120]))).toBeNull();
  expect(readRecordKey(Buffer.from([0x08, 0x80]))).toBeNull();
});
