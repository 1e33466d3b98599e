/** Exact money, whatever the order, the batching and the number of boots; and the same under concurrency. */

import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { Meter, type UnitKind } from "../../core/meters.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { readWallet } from "../store/wallet.ts";
import {
  addBasics,
  addPm,
  addVe,
  encode,
  type PriceKind,
  record,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

const decimal = fc
  .tuple(fc.bigInt(0n, 10n ** 6n), fc.bigInt(0n, 999n), fc.integer({ min: 0, max: 3 }))
  .map(([whole, fraction, digits]) =>
    digits === 0 ? String(whole) : `${whole}.${String(fraction % 10n ** BigInt(digits)).padStart(digits, "0")}`,
  );
const perUnits = fc.constantFrom(1n, 1000n, 1_000_000n, 1_000_000_000n);
const priceKind: fc.Arbitrary<PriceKind> = fc.oneof(
  fc.tuple(decimal, perUnits).map(([creditPerUnit, per]): PriceKind => ({
    case: "simple",
    value: { creditPerUnit, unit: 1 as UnitKind, perUnits: per },
  })),
  fc.tuple(decimal, decimal, decimal, perUnits).map(([input, output, cached, per]): PriceKind => ({
    case: "detailed",
    value: {
      meters: [
        { meter: Meter.INPUT_TOKENS, creditPerUnit: input, perUnits: per },
        { meter: Meter.OUTPUT_TOKENS, creditPerUnit: output, perUnits: per },
        { meter: Meter.CACHED_INPUT_TOKENS, creditPerUnit: cached, perUnits: 1n },
      ],
    },
  })),
);
const usage = fc.record({ ve: fc.nat(2), pm: fc.nat(2), tokens: fc.nat(2_000_000) });
/** Which boot takes each request, where reports are cut, and how often each is sent again. */
const plan = fc.record({
  boots: fc.integer({ min: 1, max: 4 }),
  picks: fc.array(fc.nat(), { minLength: 1, maxLength: 40 }),
  repeats: fc.nat(2),
});

describe.each(openTestDatabases())("exact money on $name", ({ name, open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let run = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(() => db.close());

  /** Sends the usage as `how` says; what each VE's ledger shows then. */
  async function ledgerOf(
    prices: readonly PriceKind[],
    usages: readonly { ve: number; pm: number; tokens: number }[],
    how: { boots: number; picks: number[]; repeats: number },
  ): Promise<string[]> {
    run += 1;
    const ves = [0, 1, 2].map((no) => `ve_${run}_${no}`);
    for (const ve of ves) await addVe(world, ve, { credits: "1000" });
    const made: Price[] = [];
    for (const [no, kind] of prices.entries()) made.push(await addPm(db, `pm_${run}_${no}`, "prov_a", kind));
    const send = reporter(world.deps);
    const nodes = Array.from({ length: how.boots }, (_, no) => new TestNode(send, `boot_${run}_${no}`));
    const pending = nodes.map((): Uint8Array[] => []);
    const flush = async (at: number) => {
      const node = nodes[at]!;
      const leases = ves.map((veId) => ({ veId, want: "3", release: at % 2 === 0 ? "1" : "" }));
      const report = node.cut(pending[at]!, leases);
      for (let times = 0; times <= how.repeats; times += 1) await node.again(report);
      pending[at] = [];
    };
    for (const [index, { ve, pm, tokens }] of usages.entries()) {
      const pick = how.picks[index % how.picks.length]!;
      const at = pick % how.boots;
      const no = nodes[at]!.recordNo + BigInt(pending[at]!.length) + 1n;
      pending[at]!.push(encode(record(no, ves[ve]!, tokens, made[pm]!)));
      if (pick % 3 === 0) await flush(at);
    }
    for (const at of nodes.keys()) await flush(at);
    return Promise.all(ves.map(async (ve) => formatCredits((await readWallet(db, ve))!.settled)));
  }

  it("comes to the same ledger to the last digit in any order and batching", async () => {
    const prices = fc.array(priceKind, { minLength: 3, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(
        prices,
        fc.array(usage, { minLength: 1, maxLength: 25 }),
        plan,
        plan,
        fc.integer(),
        async (kinds, usages, first, second, seed) => {
          const shuffled = fc.sample(fc.shuffledSubarray(usages, { minLength: usages.length }), {
            numRuns: 1,
            seed,
          })[0]!;
          const expected = [0n, 0n, 0n];
          for (const { ve, pm, tokens } of usages) expected[ve]! += exactCost(kinds[pm]!, tokens);
          const texts = expected.map(formatCredits);
          expect(await ledgerOf(kinds, usages, first)).toEqual(texts);
          expect(await ledgerOf(kinds, shuffled, second)).toEqual(texts);
        },
      ),
      { numRuns: name === "pglite" ? 12 : 30 },
    );
    expect(await audit(db, { deep: true })).toEqual([]);
    expect((await db.query("select 1 from alarm")).length).toBe(0);
  });

  it("stays exact when several boots report on one hot wallet at once", async () => {
    await addVe(world, "ve_hot", { credits: "40" });
    const send = reporter(world.deps);
    const boots = 10;
    const rounds = 10;
    const one = async (no: number) => {
      const node = new TestNode(send, `boot_hot_${no}`);
      for (let round = 1; round <= rounds; round += 1) {
        const init = node.cut(
          [encode(record(BigInt(round), "ve_hot", 700 + no, price, { id: `usg_hot_${no}_${round}` }))],
          [{ veId: "ve_hot", want: "2", need: round % 4 === 0 ? "1" : "", release: round % 5 === 0 ? "1" : "" }],
        );
        // A lost acknowledgement: the same bytes again, at the same time as everybody else's.
        await Promise.all([node.again(init), ...(round % 3 === 0 ? [node.again(init)] : [])]);
      }
    };
    await Promise.all(Array.from({ length: boots }, (_, no) => one(no)));
    const [sum] = await db.query<{ count: bigint; credits: string }>(
      "select count(*) as count, sum(credits) as credits from usage_event where ve_id = 've_hot'",
    );
    expect(sum!.count).toBe(BigInt(boots * rounds));
    const expected =
      BigInt(rounds) *
      Array.from({ length: boots }, (_, no) => parseCredits("0.001") * BigInt(700 + no)).reduce((a, b) => a + b, 0n);
    expect(parseCredits(sum!.credits)).toBe(expected);
    expect(await audit(db, { deep: true })).toEqual([]);
  });
});

/** Written apart from core on purpose: output tokens only, by the text of the price. */
function exactCost(kind: PriceKind, tokens: number): bigint {
  const value =
    kind.case === "simple" ? kind.value : kind.value!.meters!.find((entry) => entry.meter === Meter.OUTPUT_TOKENS)!;
  const [whole = "0", fraction = ""] = (value as { creditPerUnit: string }).creditPerUnit.split(".");
  const scaled = BigInt(whole + fraction.padEnd(12, "0")) * BigInt(tokens);
  const per = (value as { perUnits: bigint }).perUnits;
  if (scaled % per !== 0n) throw new Error("the test's price is not exact");
  return scaled / per;
}
