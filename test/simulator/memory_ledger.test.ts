/** The same operations on the MemoryLedger and on the SQL: everything that they leave behind and answer must be equal. */

import { toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { Deps } from "../../control-plane/api/context.ts";
import { audit } from "../../control-plane/audit.ts";
import type { Database } from "../../control-plane/db/database.ts";
import { openTestDatabases } from "../../control-plane/db/testing.ts";
import { auditEvents, auditRecords, auditWallet } from "../../control-plane/domain/audit.ts";
import { DomainError } from "../../control-plane/domain/errors.ts";
import { type IncomingRecord, sortRecords } from "../../control-plane/domain/report.ts";
import type { LeaseAsk, Report, ReportAnswer } from "../../control-plane/domain/report_plan.ts";
import { decodePrice, decodeRecord } from "../../control-plane/report/decode.ts";
import { applyGroup, applyReport, grantAgain } from "../../control-plane/report/ingest.ts";
import { sweepLeases } from "../../control-plane/report/sweep.ts";
import {
  addBasics,
  addVe,
  encode,
  MERCHANT,
  record,
  T0,
  testWorld,
  type TestWorld,
} from "../../control-plane/report/testing.ts";
import { writeOffNode } from "../../control-plane/report/write_off.ts";
import { adjustWallet, type WalletRow } from "../../control-plane/store/wallet.ts";
import { type Price, PriceSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { MemoryLedger } from "./memory_ledger.ts";

const VES = 3;
const BOOTS = 3;
const HOLD_MS = 60_000;
const RUNS = 200;
/** Each database; together well under the 40 s that the test may take. */
const TIME_LIMIT_MS = 14_000;

type Arrival = "next" | "again" | "gap" | "cursor" | "final";

type ReportStep = Extract<Step, { kind: "report" }>;

type Step =
  | {
      readonly kind: "report";
      readonly boot: number;
      readonly arrival: Arrival;
      readonly tokens: readonly (readonly [ve: number, tokens: number])[];
      readonly asks: readonly (readonly [ve: number, want: number, need: number, release: number, burn: number])[];
    }
  /** Of different boots, in one transaction. */
  | { readonly kind: "together"; readonly reports: readonly ReportStep[] }
  | { readonly kind: "grantAgain"; readonly boot: number; readonly ve: number; readonly need: number; last: boolean }
  | { readonly kind: "adjust"; readonly ve: number; readonly credits: number }
  | { readonly kind: "open"; readonly ve: number; readonly open: boolean }
  | { readonly kind: "pass"; readonly jumps: readonly number[] }
  | { readonly kind: "writeOff"; readonly boot: number; readonly node: boolean };

const ve = fc.integer({ min: 0, max: VES - 1 });
const boot = fc.integer({ min: 0, max: BOOTS - 1 });
const credits = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 60 }));
const arrival = fc.oneof(
  { weight: 12, arbitrary: fc.constant<Arrival>("next") },
  { weight: 4, arbitrary: fc.constantFrom<Arrival>("again", "gap", "cursor") },
  { weight: 1, arbitrary: fc.constant<Arrival>("final") },
);
const report = fc.record({
  kind: fc.constant("report" as const),
  boot,
  arrival,
  // One VE more than there are: it cannot be billed.
  tokens: fc.array(fc.tuple(fc.integer({ min: 0, max: VES }), fc.integer({ min: 0, max: 40_000 })), { maxLength: 4 }),
  asks: fc.uniqueArray(fc.tuple(ve, credits, credits, credits, fc.constantFrom(0, 0, 1, 5, 30, 45)), {
    selector: ([of]) => of,
    maxLength: VES,
  }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: report },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("together"),
      reports: fc.uniqueArray(report, { selector: ({ boot: of }) => of, minLength: 2, maxLength: BOOTS }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("grantAgain"), boot, ve, need: credits, last: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("adjust"), ve, credits: fc.integer({ min: -60, max: 200 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("open"), ve, open: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("pass"),
      // Milliseconds between sweeps; clocks jump as well.
      jumps: fc.array(fc.constantFrom(5000, 15_000, 15_000, 40_000, -3_600_000, 3_600_000), { maxLength: 12 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("writeOff"), boot, node: fc.boolean() }) },
) as fc.Arbitrary<Step>;

/** One run of both. */
class Pair {
  readonly ledger: MemoryLedger;
  readonly #deps: Deps;
  readonly #world: TestWorld;
  readonly #price: Price;
  readonly #prefix: string;
  readonly #numbers = Array.from({ length: BOOTS }, () => ({ seq: 0n, recordNo: 0n }));
  readonly #last = new Map<number, Report>();
  #now = T0;
  #count = 0;

  constructor(world: TestWorld, price: Price, prefix: string) {
    this.#world = world;
    this.#deps = { ...world.deps, settings: { ...world.deps.settings, leaseHoldMs: HOLD_MS } };
    this.#price = price;
    this.#prefix = prefix;
    let ids = 0;
    const newId = (of: string) => `${of}${prefix}${(ids += 1)}`;
    this.ledger = new MemoryLedger({ newId, holdMs: HOLD_MS, startMs: T0 });
    this.ledger.addPrice(price.id, MERCHANT, decodePrice(price.id, toBinary(PriceSchema, price)));
  }

  veId = (n: number) => `ve_${this.#prefix}_${n}`;
  bootId = (n: number) => `boot_${this.#prefix}_${n}`;
  /** Two boots are of one node. */
  nodeId = (n: number) => `node_${this.#prefix}_${n % 2}`;

  async begin(): Promise<void> {
    await this.#deps.db.query("update service_clock set ticked_at = $1", [new Date(T0)]);
    for (let n = 0; n < VES; n += 1) {
      const initial = [0, 100, 100_000][n]!;
      await addVe(this.#world, this.veId(n), { credits: String(initial) });
      const transferId = `tr_${this.#prefix}_initial_${n}`;
      this.ledger.createWallet({
        veId: this.veId(n),
        merchantId: MERCHANT,
        initial: parseCredits(String(initial)),
        transferId,
      });
    }
  }

  /** Those that cannot go together follow one by one. */
  async #together(reports: readonly ReportStep[]): Promise<void> {
    const given = reports
      .filter(({ arrival: how }) => how !== "cursor")
      .map((one) => {
        const made = this.#report(one);
        return { report: made, sorted: sortRecords(made.firstRecordNo, made.records, this.ledger.known) };
      });
    const answers = await applyGroup(this.#deps, given);
    // Who holds something is looked up when all are applied.
    const part = (answer: ReportAnswer) => {
      const { recalls, ...rest } = shown(answer);
      return { ...rest, recalls: recalls.map(({ veId }) => veId) };
    };
    for (const [i, { report: made, sorted }] of given.entries()) {
      const answer = answers[i];
      if (answer !== null && answer !== undefined)
        expect(part(this.ledger.applyReport(made, sorted, this.#now))).toEqual(part(answer));
    }
    for (const [i, { report: made, sorted }] of given.entries()) {
      if (answers[i] !== null) continue;
      const answer = await applyReport(this.#deps, made, sorted);
      expect(shown(this.ledger.applyReport(made, sorted, this.#now))).toEqual(shown(answer));
    }
  }

  #report(given: ReportStep): Report {
    const { boot: n, arrival: how, tokens, asks } = given;
    const before = this.#last.get(n);
    if (how === "again" && before !== undefined) return before;
    const numbers = this.#numbers[n]!;
    const skipped = how === "gap" ? 1n : 0n;
    const firstRecordNo = numbers.recordNo + 1n + skipped;
    const records = tokens.map(([of, count], i): IncomingRecord =>
      decodeRecord(encode(record(firstRecordNo + BigInt(i), this.veId(of), count, this.#price))),
    );
    const seq = how === "cursor" ? 0n : numbers.seq + 1n + skipped;
    const lines = asks.map(([of, ...amounts]): LeaseAsk => {
      const [want, need, release, burn] = amounts.map((amount) => parseCredits(String(amount))) as [
        Credits,
        Credits,
        Credits,
        Credits,
      ];
      return { veId: this.veId(of), want, need, release, burn };
    });
    const made: Report = {
      nodeId: this.nodeId(n),
      bootId: this.bootId(n),
      seq,
      firstRecordNo,
      records,
      asks: lines,
      final: how === "final",
    };
    if (how === "gap" || how === "cursor") return made;
    numbers.seq += 1n;
    numbers.recordNo += BigInt(records.length);
    this.#last.set(n, made);
    return made;
  }

  async run(given: Step): Promise<void> {
    const { ledger } = this;
    const deps = this.#deps;
    if (given.kind === "report") {
      const made = this.#report(given);
      const sorted = sortRecords(made.firstRecordNo, made.records, ledger.known);
      expect(shown(ledger.applyReport(made, sorted, this.#now))).toEqual(shown(await applyReport(deps, made, sorted)));
    } else if (given.kind === "together") {
      await this.#together(given.reports);
    } else if (given.kind === "grantAgain") {
      const made = this.#last.get(given.boot);
      if (made === undefined) return;
      const need = parseCredits(String(given.need));
      const ask = { veId: this.veId(given.ve), want: need, need, release: 0n };
      const ours = ledger.grantAgain(made, ask, given.last, this.#now);
      expect(ours).toEqual(await grantAgain(deps, made, ask, given.last));
    } else if (given.kind === "adjust") {
      await this.#adjust(given.ve, given.credits);
    } else if (given.kind === "open") {
      const veId = this.veId(given.ve);
      ledger.setTerms(veId, { lowBalance: "0", open: given.open });
      await deps.db.query("update virtual_endpoint set disabled = $2 where id = $1", [veId, !given.open]);
    } else if (given.kind === "pass") {
      for (const jump of given.jumps) {
        this.#now += jump;
        ledger.sweep(this.#now);
        await sweepLeases(deps, this.#now);
      }
    } else {
      const id = given.node ? this.nodeId(given.boot) : this.bootId(given.boot);
      const ours = await outcome(() => ledger.writeOff(id, this.#now));
      expect(ours).toEqual(await outcome(async () => (await writeOffNode(deps, id)).boots));
    }
  }

  async #adjust(n: number, amount: number): Promise<void> {
    if (amount === 0) return;
    const transferId = `tr_${this.#prefix}_adjust_${(this.#count += 1)}`;
    const adjustment = {
      veId: this.veId(n),
      merchantId: MERCHANT,
      credits: BigInt(amount) * parseCredits("1"),
      reason: "test",
      transferId,
    };
    const ours = await outcome(() => this.ledger.adjust(adjustment));
    const { db } = this.#deps;
    const theirs = await outcome(() => db.tx((tx) => adjustWallet(tx, { ...adjustment, now: this.#now })));
    expect(figuresOf(ours)).toEqual(figuresOf(theirs));
  }

  /** Everything that is left behind. */
  async compare(): Promise<void> {
    const { ledger } = this;
    const { db } = this.#deps;
    const like = `%${this.#prefix}_%`;
    const wallets = [...ledger.wallets].map(([veId, row]) => ({ ve_id: veId, ...wholeFigures(row) }));
    expect(
      await db.query(
        `select ve_id, trim_scale(purchased)::text as purchased, trim_scale(settled)::text as settled,
           trim_scale(escrowed)::text as escrowed, trim_scale(debt)::text as debt from wallet where ve_id like $1 order by ve_id`,
        [like],
      ),
    ).toEqual(wallets);
    const leases = ledger.leases().map(({ veId, bootId, credits: held, ttlMs }) => ({
      ve_id: veId,
      boot_id: bootId,
      credits: formatCredits(held),
      ttl_ms: BigInt(ttlMs),
    }));
    const byName = (a: (typeof leases)[number], b: (typeof leases)[number]) =>
      `${a.ve_id} ${a.boot_id}` < `${b.ve_id} ${b.boot_id}` ? -1 : 1;
    expect(
      await db.query(
        "select ve_id, boot_id, trim_scale(credits)::text as credits, ttl_ms from lease where ve_id like $1 order by 1, 2",
        [like],
      ),
    ).toEqual(leases.toSorted(byName));
    const boots = [...ledger.boots].map(([bootId, { nodeId, lastSeq, lastRecordNo, closed, leasesTaken }]) => ({
      boot_id: bootId,
      node_id: nodeId,
      last_seq: lastSeq,
      last_record_no: lastRecordNo,
      closed,
      leases_taken: leasesTaken,
    }));
    expect(
      await db.query(
        "select boot_id, node_id, last_seq, last_record_no, closed, leases_taken from node_boot where boot_id like $1 order by 1",
        [like],
      ),
    ).toEqual(boots.toSorted((a, b) => (a.boot_id < b.boot_id ? -1 : 1)));
    await this.#compareLedger(like);
  }

  async #compareLedger(like: string): Promise<void> {
    const { ledger } = this;
    const { db } = this.#deps;
    // Ids of transfers are made by each side.
    const anonymous = (reference: string) => reference.replace(/^(repay|adj):tr_.*/, "$1");
    const transfers = ledger.transfers.map(({ veId, debit, credit, credits: moved, reference }) =>
      [veId, debit, credit, formatCredits(moved), anonymous(reference)].join(" "),
    );
    const rows = await db.query<{
      ve_id: string;
      debit_account: string;
      credit_account: string;
      credits: string;
      reference: string;
    }>(
      "select ve_id, debit_account, credit_account, trim_scale(credits)::text as credits, reference from transfer where ve_id like $1",
      [like],
    );
    const theirs = rows.map((row) =>
      [row.ve_id, row.debit_account, row.credit_account, row.credits, anonymous(row.reference)].join(" "),
    );
    expect(theirs.toSorted()).toEqual(transfers.toSorted());
    const [counts] = await db.query<{ events: bigint; daily: bigint; aside: bigint; alarms: bigint }>(
      `select (select count(*) from usage_event where ve_id like $1) as events,
         (select coalesce(sum(requests), 0)::bigint from usage_daily where ve_id like $1) as daily,
         (select count(*) from usage_quarantine where boot_id like $1) as aside,
         (select count(*) from alarm where subject like $1) as alarms`,
      [like],
    );
    const days = [...ledger.daily.values()].reduce((sum, { requests }) => sum + requests, 0);
    const { events, quarantined, alarms } = ledger;
    expect(counts).toEqual({
      events: BigInt(events.length),
      daily: BigInt(days),
      aside: BigInt(quarantined.length),
      alarms: BigInt(alarms.length),
    });
    expect([
      ...ledger.readEvidence().flatMap(auditWallet),
      ...ledger.readEventEvidence().flatMap(auditEvents),
      ...ledger.readRecordEvidence().flatMap(auditRecords),
    ]).toEqual([]);
  }
}

/** An error's code stays as it is. */
function figuresOf(row: WalletRow | string): unknown {
  return typeof row === "string" ? row : wholeFigures(row);
}

function wholeFigures({ purchased, settled, escrowed, debt }: WalletRow) {
  return {
    purchased: formatCredits(purchased),
    settled: formatCredits(settled),
    escrowed: formatCredits(escrowed),
    debt: formatCredits(debt),
  };
}

/** Which leases are read first is not said. */
function shown({ status, lastSeq, lastRecordNo, leases, recalls }: ReportAnswer) {
  return {
    status,
    lastSeq,
    lastRecordNo,
    leases,
    recalls: recalls.map(({ veId, boots }) => ({ veId, boots: boots.toSorted() })),
  };
}

async function outcome<T>(run: () => T | Promise<T>): Promise<T | string> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    return error.code;
  }
}

describe.each(openTestDatabases())("the MemoryLedger and $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let runs = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await db.close();
  });

  it("do the same with the same operations", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const pair = new Pair(world, price, `r${(runs += 1)}x`);
        await pair.begin();
        for (const given of steps) await pair.run(given);
        await pair.compare();
        // The next run begins without leases that a sweep would have to take back.
        await db.query("update service_clock set ms = ms + 10000000");
        await sweepLeases({ ...world.deps, settings: { ...world.deps.settings, leaseHoldMs: HOLD_MS } }, T0);
      }),
      { numRuns: RUNS, interruptAfterTimeLimit: TIME_LIMIT_MS },
    );
    expect(runs).toBeGreaterThan(5);
  }, 120_000);
});
