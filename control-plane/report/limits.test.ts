/** Limits of Physical Models as nodes meet them: real stores, reports as nodes send them. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { Meter, UnitKind, UnitSource } from "../../core/meters.ts";
import { Period } from "../../core/periods.ts";
import type { ReportUsageResponse } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { writeLimitChanges } from "../api/physical_model_limits.ts";
import type { Database, Tx } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { asWallet, LimitKind, type LimitTerms } from "../domain/limits.ts";
import { available } from "../domain/wallet.ts";
import { Feed } from "../feed/feed.ts";
import { beginPeriods } from "../period_jobs.ts";
import { readLimits } from "../store/limit.ts";
import { sweepLeases } from "./sweep.ts";
import { writeOffNode } from "./write_off.ts";
import {
  addBasics,
  addPm,
  addVe,
  encode,
  MERCHANT,
  passServiceTime,
  PLAIN_PRICE,
  record,
  reporter,
  type ReportInit,
  T0,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

const { UNITS, CREDITS } = LimitKind;
const DAY_MS = 86_400_000;
/** T0 is at noon UTC. */
const MIDNIGHT = T0 + DAY_MS / 2;

type Limits = NonNullable<ReportInit["limits"]>;

describe.each(openTestDatabases())("limits of Physical Models on $name", ({ name, open }) => {
  let db: Database;
  let world: TestWorld;
  let feed: Feed;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
    await addVe(world, "ve_a", { credits: "1000000" });
    feed = await Feed.start(world.deps);
  });
  afterAll(async () => {
    await feed.close();
    await db.close();
  });

  const change = (physicalModelId: string, set: LimitTerms[], remove: LimitKind[] = []) =>
    db.tx((tx) =>
      writeLimitChanges(
        tx,
        { physicalModelId, merchantId: MERCHANT, timeZone: "UTC" },
        { set, remove },
        world.deps.now(),
      ),
    );
  const tokens = (amount: string): LimitTerms => ({
    kind: UNITS,
    unit: UnitKind.TOKENS,
    period: Period.DAILY,
    amount: parseCredits(amount),
  });
  const credits = (amount: string): LimitTerms => ({ kind: CREDITS, unit: 0, period: 0, amount: parseCredits(amount) });

  /** A Physical Model with limits. Everything costs 1 Credit per 1,000 tokens. */
  async function model(...terms: LimitTerms[]): Promise<Price> {
    const id = `pm_${(count += 1)}`;
    const price = await addPm(db, id, "prov_a", PLAIN_PRICE);
    await change(id, terms);
    return price;
  }

  /** A node whose records are all of one model. */
  function node(price: Price) {
    const boot = `boot_${(count += 1)}`;
    const test = new TestNode(reporter(world.deps, feed), boot);
    const pm = price.physicalModelId;
    const cut = (
      used: readonly number[],
      ask: Limits[number] | null,
      { final = false, arriveMs = world.deps.now() } = {},
    ) => {
      const first = test.recordNo + 1n;
      const records = used.map((n, index) =>
        encode(
          record(first + BigInt(index), "ve_a", n, price, {
            id: `usg_${boot}_${first + BigInt(index)}`,
            arriveUnixUs: BigInt(arriveMs) * 1000n,
          }),
        ),
      );
      const init = test.cut(records, [], final);
      if (ask === null) return init;
      return { ...init, limits: [{ physicalModelId: pm, kind: UNITS, ...ask }] } as ReportInit;
    };
    return {
      boot,
      cut,
      again: (init: ReportInit) => test.again(init),
      send: (used: readonly number[], ask: Limits[number] | null = null, more = {}) => test.again(cut(used, ask, more)),
    };
  }

  const state = (answer: ReportUsageResponse) => answer.limits[0]!;
  async function account(price: Price, kind: LimitKind = UNITS) {
    const found = (await readLimits(db, [price.physicalModelId])).find((one) => one.kind === kind)!;
    const leases = await db.query<{ sum: string }>(
      "select coalesce(sum(amount), 0)::text as sum from limit_lease where physical_model_id = $1 and kind = $2",
      [price.physicalModelId, kind],
    );
    expect(parseCredits(leases[0]!.sum)).toBe(found.leased);
    return { used: formatCredits(found.used), leased: formatCredits(found.leased), found };
  }

  it("counts Units of the limit's kind, and our own Credits, of every report that is applied", async () => {
    const price = await model(tokens("1000"), credits("5"));
    const a = node(price);
    const init = a.cut([100, 20], null);
    const answer = await a.again(init);
    expect(answer.limits).toMatchObject([
      {
        physicalModelId: price.physicalModelId,
        kind: UNITS,
        granted: "0",
        exhausted: false,
        resetUnixMs: BigInt(MIDNIGHT),
      },
      { kind: CREDITS, exhausted: false, resetUnixMs: 0n },
    ]);
    // Twice and three times is once; a gap is nothing.
    expect((await a.again(init)).limits).toEqual(answer.limits);
    await a.again(init);
    await a.again({ ...init, seq: 7n, firstRecordNo: 9n } as ReportInit);
    expect(await account(price)).toMatchObject({ used: "120" });
    expect(await account(price, CREDITS)).toMatchObject({ used: "0.12" });
    // Another node's count, too, and what the node says it spent does not.
    await node(price).send([80], { spent: "1" });
    expect(await account(price)).toMatchObject({ used: "200" });
  });

  it("does not trust the node's figures", async () => {
    const price = await model(credits("5"));
    const { boot } = node(price);
    const cheap = record(1n, "ve_a", 1000, price, { id: `usg_${boot}`, credits: "0" });
    await new TestNode(reporter(world.deps, feed), boot).send([encode(cheap)]);
    expect(await account(price, CREDITS)).toMatchObject({ used: "1" });
  });

  it("counts only Units of its kind", async () => {
    const price = await model({ ...tokens("10"), unit: UnitKind.IMAGES });
    await node(price).send([500]);
    const images = record(1n, "ve_a", 0, price, {
      id: "usg_images",
      units: [{ meter: Meter.IMAGES, quantity: 3n, source: UnitSource.REPORTED }],
      credits: "0",
    });
    await new TestNode(reporter(world.deps, feed), "boot_images").send([encode(images)]);
    expect(await account(price)).toMatchObject({ used: "3" });
  });

  it("leases what is left, and says when nothing is", async () => {
    const price = await model(tokens("1000"));
    const a = node(price);
    expect(state(await a.send([], { want: "100" }))).toMatchObject({
      granted: "100",
      exhausted: false,
      ttlMs: 60_000n,
    });
    expect(state(await a.send([60], { want: "0" }))).toMatchObject({ granted: "40" });
    expect(await account(price)).toMatchObject({ used: "60", leased: "40" });
    // What was running when the limit was reached is finished, and counted.
    const last = await a.send([2000], { want: "100", need: "1" });
    expect(state(last)).toMatchObject({ granted: "0", exhausted: true });
    expect(await account(price)).toMatchObject({ used: "2060", leased: "0" });
    const other = await node(price).send([], { want: "5", need: "5" });
    expect(state(other)).toMatchObject({ granted: "0", exhausted: true, resetUnixMs: BigInt(MIDNIGHT) });
  });

  it("asks other nodes for what they do not use, before it says that there is nothing", async () => {
    const price = await model(tokens("100"));
    const pm = price.physicalModelId;
    const [holder, other] = [node(price), node(price)];
    expect(state(await holder.send([], { need: "90" }))).toMatchObject({ granted: "90" });
    const stop = new AbortController();
    const gaveBack = (async () => {
      for await (const { event } of feed.watch(holder.boot, null, stop.signal)) {
        if (event?.case !== "wallet") continue;
        expect(event.value).toEqual({ veId: "", recall: true, toppedUp: false, physicalModelId: pm, limitKind: UNITS });
        await holder.send([], { release: "60" });
        return;
      }
    })();
    expect(state(await other.send([], { need: "50" }))).toMatchObject({ granted: "50", exhausted: false });
    await gaveBack;
    expect(await account(price)).toMatchObject({ used: "0", leased: "80" });
    // What is left when nobody gives back in time. It is not exhausted: requests that run hold it.
    expect(state(await node(price).send([], { need: "70" }))).toMatchObject({ granted: "20", exhausted: false });
  });

  it("gives back with the last report of a boot, and when a boot falls silent", async () => {
    const price = await model(tokens("100"), credits("100"));
    const [a, b] = [node(price), node(price)];
    await a.send([], { need: "30" });
    await b.send([], { need: "30" });
    const closing = await a.send([5], { want: "50" }, { final: true });
    expect(state(closing)).toMatchObject({ granted: "0" });
    expect(await account(price)).toMatchObject({ used: "5", leased: "30" });
    // Neither holds anything of a wallet.
    await passServiceTime(world, world.deps.settings.leaseHoldMs + 30_000);
    await sweepLeases(world.deps, world.deps.now());
    expect(await account(price)).toMatchObject({ used: "5", leased: "30" });
    await passServiceTime(world, 60_000);
    await sweepLeases(world.deps, world.deps.now());
    expect(await account(price)).toMatchObject({ used: "5", leased: "0" });
    // It was only slow: what it reports now counts all the same, in what is left of the day.
    await b.send([7], { want: "0" }, { arriveMs: T0 });
    expect((await account(price)).found.leased).toBe(0n);
  });

  it("is released when a node is written off", async () => {
    const price = await model(tokens("100"));
    const a = node(price);
    await a.send([5], { need: "30" });
    await passServiceTime(world, 60_000);
    expect(await writeOffNode(world.deps, a.boot)).toMatchObject({ boots: [a.boot], leases: 1 });
    expect(await account(price)).toMatchObject({ used: "5", leased: "0" });
  });

  it("a new period begins with a report: late records shrink the lease and do not count", async () => {
    const price = await model(tokens("100"));
    const a = node(price);
    await a.send([70], { need: "30" });
    expect(await account(price)).toMatchObject({ used: "70", leased: "30" });
    const ends = (await account(price)).found.endsMs!;
    world.advance(ends - world.deps.now());
    const late = await a.send([10], { want: "0" }, { arriveMs: ends - 1 });
    expect(state(late)).toMatchObject({ granted: "20", exhausted: false, resetUnixMs: BigInt(ends + DAY_MS) });
    expect(await account(price)).toMatchObject({ used: "0", leased: "20" });
    await a.send([4], { want: "0" });
    expect(await account(price)).toMatchObject({ used: "4", leased: "16" });
  });

  it("a new period begins without a report, and every node is told", async () => {
    const price = await model(tokens("100"));
    const pm = price.physicalModelId;
    const a = node(price);
    expect(state(await a.send([100], { need: "1" }))).toMatchObject({ exhausted: true });
    const ends = (await account(price)).found.endsMs!;
    const stop = new AbortController();
    const told = (async () => {
      for await (const { event } of feed.watch(a.boot, null, stop.signal)) {
        if (event?.case === "wallet" && event.value.physicalModelId === pm) return event.value;
      }
      return null;
    })();
    world.advance(ends - world.deps.now() - 1);
    await beginPeriods(world.deps);
    expect(await account(price)).toMatchObject({ used: "100" });
    world.advance(1);
    await Promise.all([beginPeriods(world.deps), beginPeriods(world.deps)]);
    expect(await told).toEqual({ veId: "", recall: false, toppedUp: true, physicalModelId: pm, limitKind: UNITS });
    expect((await account(price)).found).toMatchObject({ used: 0n, countsFromMs: ends, endsMs: ends + DAY_MS });
    expect(state(await a.send([], { need: "5" }))).toMatchObject({ granted: "5", exhausted: false });
  });

  it("counts from when it was set", async () => {
    const price = await model();
    const before = world.deps.now();
    const a = node(price);
    await a.send([40]);
    world.advance(1000);
    await change(price.physicalModelId, [tokens("100")]);
    await a.send([30], null, { arriveMs: before + 500 });
    await a.send([20]);
    expect(await account(price)).toMatchObject({ used: "20" });
  });

  it("a lowered limit counts what is leased, and a raised one grants again", async () => {
    const price = await model(tokens("100"));
    const a = node(price);
    await a.send([50], { need: "40" });
    await change(price.physicalModelId, [tokens("60")]);
    const { found } = await account(price);
    expect(found).toMatchObject({ used: parseCredits("50"), leased: parseCredits("40") });
    expect(state(await node(price).send([], { need: "1" }))).toMatchObject({ granted: "0", exhausted: false });
    await a.send([], { release: "40" });
    expect(state(await node(price).send([], { need: "10" }))).toMatchObject({ granted: "10" });
    await change(price.physicalModelId, [tokens("1000")]);
    expect(state(await a.send([], { need: "900" }))).toMatchObject({ granted: "900" });
  });

  it("a limit that is gone, or of another Unit, takes its leases with it", async () => {
    const price = await model(tokens("100"), credits("3"));
    const pm = price.physicalModelId;
    const a = node(price);
    await a.send([], { need: "40" });
    await change(pm, [], [CREDITS]);
    expect(await account(price)).toMatchObject({ leased: "40" });
    await change(pm, [{ ...tokens("9"), unit: UnitKind.IMAGES }]);
    expect(await account(price)).toMatchObject({ used: "0", leased: "0" });
    await change(pm, [], [UNITS]);
    expect(state(await a.send([7], { want: "5", release: "40" }))).toMatchObject({
      kind: UNITS,
      granted: "0",
      exhausted: false,
      resetUnixMs: 0n,
    });
    expect(await db.query("select 1 from limit_lease where physical_model_id = $1", [pm])).toEqual([]);
  });

  it("an answer that changes nothing shows where the limits stand", async () => {
    const price = await model(tokens("100"));
    const a = node(price);
    await a.send([10], { need: "30" });
    const asked = await a.again({
      nodeId: `node_${a.boot}`,
      bootId: a.boot,
      limits: [{ physicalModelId: price.physicalModelId, kind: UNITS, want: "50" }],
    });
    expect(state(asked)).toMatchObject({ granted: "30", exhausted: false });
    expect(await account(price)).toMatchObject({ leased: "30" });
  });

  it("several nodes at once never get more than there is", async () => {
    const price = await model(tokens("100"));
    const nodes = Array.from({ length: 8 }, () => node(price));
    await Promise.all(nodes.map((one) => one.send([], { want: "40", need: "10" })));
    const { found } = await account(price);
    expect(found.leased).toBeLessThanOrEqual(found.amount);
    expect(found.leased).toBeGreaterThanOrEqual(parseCredits("80"));
    await Promise.all(nodes.map((one) => one.send([5], { want: "0" })));
    expect(await account(price)).toMatchObject({ used: "40" });
  });

  it("costs a report of models without limits one look, and one without records none", async () => {
    const price = await model();
    const seen: string[] = [];
    const watch = (tx: Tx): Tx => ({
      query: (text, params) => {
        if (text.includes("limit_")) seen.push(text);
        return tx.query(text, params);
      },
    });
    const watched: Database = { ...bind(db), query: watch(db).query, tx: (fn) => db.tx((tx) => fn(watch(tx))) };
    const test = new TestNode(reporter({ ...world.deps, db: watched }), "boot_watched");
    await test.send([encode(record(1n, "ve_a", 5, price, { id: "usg_watched" }))]);
    expect(seen).toHaveLength(1);
    await test.send([], [{ veId: "ve_a", want: "1" }]);
    expect(seen).toHaveLength(1);
  });

  it("any reports of any boots in any order leave used and leases as they should be", async () => {
    const price = await model(tokens("500"), credits("0.4"));
    const boots = Array.from({ length: 4 }, () => node(price));
    let seed = name === "pglite" ? 20_261_124 : 42;
    const next = (below: number) => {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    const sent: ReportInit[][] = boots.map(() => []);
    for (let step = 0; step < 60; step += 1) {
      const at = next(boots.length);
      if (next(5) === 0) world.advance(next(DAY_MS / 3));
      if (next(8) === 0) await beginPeriods(world.deps);
      if (next(12) === 0) await change(price.physicalModelId, [tokens(String(200 + next(600)))]);
      const old = sent[at]!.at(-1);
      if (next(4) === 0 && old !== undefined) await boots[at]!.again(old);
      const used = Array.from({ length: next(3) }, () => next(60));
      const ask = { want: String(next(200)), need: String(next(12) === 0 ? next(60) : 0), release: String(next(40)) };
      const init = boots[at]!.cut(used, ask, { arriveMs: world.deps.now() - next(DAY_MS / 2) });
      sent[at]!.push(init);
      await boots[at]!.again(init);
      for (const kind of [UNITS, CREDITS]) {
        const { found } = await account(price, kind);
        expect(available(asWallet(found))).toBeGreaterThanOrEqual(0n);
        const [events] = await db.query<{ credits: string }>(
          "select coalesce(sum(credits), 0)::text as credits from usage_event where physical_model_id = $1 and arrive_us >= $2",
          [price.physicalModelId, BigInt(found.countsFromMs) * 1000n],
        );
        // 1 Credit is 1,000 tokens. Records that came before the period was seen to begin have arrived before it.
        const sum = parseCredits(events!.credits);
        expect(found.used).toBe(kind === UNITS ? sum * 1000n : sum);
      }
    }
  });
});

/** A database's methods without the object, so that some can be replaced. */
function bind(db: Database): Database {
  return {
    dialect: db.dialect,
    tx: (fn) => db.tx(fn),
    snapshot: (fn) => db.snapshot(fn),
    query: (text, params) => db.query(text, params),
    script: (tx, text) => db.script(tx, text),
    listen: (...args) => db.listen(...args),
    close: () => db.close(),
  };
}
