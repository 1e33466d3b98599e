/** The audit against both databases: it finds each kind of fault, and nothing while everything moves. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { audit, type AuditProgress, runAudit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { INVARIANTS } from "../domain/audit.ts";
import { addBasics, addVe, encode, record, reporter, TestNode, testWorld, type TestWorld } from "../report/testing.ts";

/** So small that every wallet with more than a few events is read in pages. */
const PAGE_ROWS = 7;

describe.each(openTestDatabases())("audit on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let node: TestNode;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
    node = new TestNode(reporter(world.deps), "boot_1");
    for (const ve of ["ve_1", "ve_2", "ve_3"]) await addVe(world, ve, { credits: "1000" });
    await use("ve_2", 30);
    await use("ve_1", 3);
    await use("ve_3", 2);
  });
  afterAll(() => db.close());

  /** Reports `count` records one by one, as so many transfers. */
  async function use(veId: string, count: number, by = node): Promise<void> {
    for (let i = 0; i < count; i += 1)
      await by.send([encode(record(by.recordNo + 1n, veId, 7, price))], [{ veId, want: "3" }]);
  }

  const deep = (onPage?: (progress: AuditProgress) => Promise<boolean>) =>
    runAudit(db, { deep: true, pageRows: PAGE_ROWS, ...(onPage === undefined ? {} : { onPage }) });
  const quick = () => runAudit(db, { deep: false });
  const invariants = async (run: () => Promise<{ breaks: readonly { invariant: string }[] }>) =>
    [...new Set((await run()).breaks.map(({ invariant }) => invariant))].toSorted();

  /** Runs `statement`, looks, and takes it back. */
  async function broken(statement: string, undo: string, look = deep): Promise<string[]> {
    await db.tx((tx) => db.script(tx, statement));
    try {
      return await invariants(look);
    } finally {
      await db.tx((tx) => db.script(tx, undo));
    }
  }

  it("finds nothing where nothing is wrong, in pages and as a whole", async () => {
    const seen: AuditProgress[] = [];
    const result = await deep(async (progress) => seen.push({ ...progress }) > 0);
    expect(result).toMatchObject({ breaks: [], wallets: 3, events: 35, complete: true, stopped: false });
    // ve_2 alone takes several pages of transfers and of events.
    expect(seen.length).toBeGreaterThan(8);
    expect(await audit(db, { deep: true })).toEqual([]);
    expect(await quick()).toMatchObject({ breaks: [], wallets: 3, events: 0, complete: true });
  });

  it("finds nothing while reports arrive between its pages", async () => {
    const fresh = new TestNode(reporter(world.deps), "boot_2");
    let rounds = 0;
    const result = await deep(async () => {
      rounds += 1;
      if (rounds < 40) {
        await use("ve_2", 1);
        await use("ve_3", 1, fresh);
      }
      return true;
    });
    expect(result.breaks).toEqual([]);
    expect(rounds).toBeGreaterThan(8);
    expect((await deep()).breaks).toEqual([]);
  });

  it("finds nothing while many nodes report at the same time", async () => {
    let over = false;
    const nodes = ["boot_a", "boot_b", "boot_c", "boot_d"].map(async (boot, i) => {
      const by = new TestNode(reporter(world.deps), boot);
      for (let round = 0; round < 25; round += 1) await use(`ve_${1 + ((i + round) % 3)}`, 1, by);
    });
    const load = Promise.all(nodes).then(() => (over = true));
    let audits = 0;
    while (!over) {
      const { breaks, complete } = await (audits % 2 === 0 ? deep() : quick());
      expect(breaks).toEqual([]);
      expect(complete).toBe(true);
      audits += 1;
    }
    await load;
    expect(audits).toBeGreaterThan(0);
    expect((await deep()).breaks).toEqual([]);
  });

  it.each([
    ["escrowed", "wallet set escrowed = escrowed + 1", "wallet set escrowed = escrowed - 1", INVARIANTS.escrowed],
    [
      "daily credits",
      "usage_daily set credits = credits + 1",
      "usage_daily set credits = credits - 1",
      INVARIANTS.daily,
    ],
    ["purchased", "wallet set purchased = purchased + 1", "wallet set purchased = purchased - 1", INVARIANTS.purchased],
  ])("notices a wrong sum of %s, also by the hour", async (_name, change, undo, invariant) => {
    const where = "where ve_id = 've_2'";
    const found = await broken(`update ${change} ${where}`, `update ${undo} ${where}`, quick);
    expect(found).toContain(invariant);
  });

  it.each(["ve_1", "ve_2"])("notices a usage event of %s that is lost or there twice", async (veId) => {
    const one = `(select min(n) from usage_event where ve_id = '${veId}')`;
    const keep = `create table kept as select * from usage_event where n = ${one}`;
    const back = "insert into usage_event select * from kept";
    expect(await broken(`${keep}; delete from usage_event where n = ${one}`, `${back}; drop table kept`)).toEqual(
      expect.arrayContaining([INVARIANTS.events, INVARIANTS.requests, INVARIANTS.records]),
    );
    const twice = `${keep}; update kept set n = 1000000; ${back}`;
    expect(await broken(twice, "delete from usage_event where n = 1000000; drop table kept")).toEqual(
      expect.arrayContaining([INVARIANTS.events, INVARIANTS.requests, INVARIANTS.records, INVARIANTS.duplicates]),
    );
  });

  it("notices that one record is lost and another there twice", async () => {
    const swap = (
      from: string,
      to: string,
    ) => `update usage_event set record_no = ${to} where boot_id = 'boot_1' and n =
      (select n from usage_event where boot_id = 'boot_1' and record_no = ${from} order by n desc limit 1)`;
    expect(await broken(swap("2", "3"), swap("3", "2"))).toContain(INVARIANTS.records);
  });

  it.each([
    ["a report that never was", "'use:boot_1:999:ve_1'"],
    ["a boot that never was", "'use:boot_9:1:ve_1'"],
    ["another VE", "'use:boot_1:31:ve_2'"],
    ["nothing known", "'gift:1'"],
  ])("notices a transfer whose reference names %s", async (_name, reference) => {
    const off = "alter table transfer disable trigger transfer_append_only";
    const on = "alter table transfer enable trigger transfer_append_only";
    const one = "(select min(n) from transfer where ve_id = 've_1' and credit_account = 'usage')";
    const keep = `create table kept as select n, reference from transfer where n = ${one}`;
    const found = await broken(
      // The one that has the reference must make room first.
      `${off}; ${keep}; update transfer set reference = reference || '#' where reference = ${reference};
       update transfer set reference = ${reference} where n = ${one}; ${on}`,
      `${off}; update transfer t set reference = kept.reference from kept where t.n = kept.n;
       update transfer set reference = rtrim(reference, '#') where reference like '%#'; drop table kept; ${on}`,
    );
    expect(found).toContain(INVARIANTS.cause);
    expect((await deep()).breaks).toEqual([]);
  });

  it("notices a transfer that is more than its usage, and a rollup of another size", async () => {
    await db.query("update usage_event set transfer_id = 'tr_x' where ve_id = 've_1' and record_no = 31");
    expect(await invariants(() => runAudit(db, { deep: true }))).toEqual([INVARIANTS.cause]);
    await db.query(
      `update usage_event e set transfer_id = (select id from transfer where reference = 'use:boot_1:31:ve_1')
       where ve_id = 've_1' and record_no = 31`,
    );
    expect(
      await broken(
        "update usage_daily set requests = requests + 1 where ve_id = 've_1'",
        "update usage_daily set requests = requests - 1 where ve_id = 've_1'",
      ),
    ).toEqual([INVARIANTS.requests]);
  });

  it("notices a reference that is there twice, also where one page ends and the next begins", async () => {
    const found = await broken(
      `alter table transfer drop constraint transfer_reference_key; insert into transfer
       (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, posted_at)
       select id || 'x', merchant_id, ve_id, debit_account, credit_account, credits, reference, posted_at from transfer`,
      `alter table transfer disable trigger transfer_append_only; delete from transfer where id like '%x';
       alter table transfer enable trigger transfer_append_only; alter table transfer add constraint transfer_reference_key unique (reference)`,
    );
    expect(found).toContain(INVARIANTS.references);
    const [count] = await db.query<{ count: bigint }>("select count(*) as count from transfer");
    expect(count!.count).toBeGreaterThan(40n);
    expect((await deep()).breaks).toEqual([]);
  });

  it("notices a wallet that is lost, by the hour, and what is posted for a VE that never was", async () => {
    await addVe(world, "ve_lost", { credits: "0" });
    const keep = "create table kept as select * from wallet where ve_id = 've_lost'";
    const undo = "insert into wallet select * from kept; drop table kept";
    expect(await broken(`${keep}; delete from wallet where ve_id = 've_lost'`, undo, quick)).toEqual([
      INVARIANTS.wallets,
    ]);
    const posted = `insert into transfer (id, merchant_id, ve_id, debit_account, credit_account, credits, reference, posted_at)
      values ('tr_stray', 'mer_a', 've_never', 'adjustment', 'wallet', 1, 'adj:tr_stray', now())`;
    const removed = `alter table transfer disable trigger transfer_append_only; delete from transfer where id = 'tr_stray';
      alter table transfer enable trigger transfer_append_only`;
    expect(await broken(posted, removed)).toEqual([INVARIANTS.wallets]);
    expect((await deep()).breaks).toEqual([]);
  });

  it("goes on from where the last hourly audit left the ledger", async () => {
    await use("ve_2", 120);
    expect((await quick()).breaks).toEqual([]);
    const [point] = await db.query<{ n: bigint }>("select n from audit_checkpoint where ve_id = 've_2'");
    await use("ve_2", 3);
    expect((await quick()).breaks).toEqual([]);
    // The sums up to there are not read again, but a deep audit does.
    await db.query("update audit_checkpoint set usage = usage + 1");
    expect((await quick()).breaks).toMatchObject([
      { invariant: INVARIANTS.usage, subject: "ve_2" },
      { invariant: INVARIANTS.balanced, subject: "ve_2" },
    ]);
    expect((await deep()).breaks).toEqual([]);
    await db.query("update audit_checkpoint set usage = usage - 1");
    expect(point!.n).toBeGreaterThan(0n);
  });

  it("stops when it is told to", async () => {
    const result = await deep(async () => false);
    expect(result).toMatchObject({ complete: false, stopped: true });
    expect(result.wallets).toBeLessThan(3);
  });
});
