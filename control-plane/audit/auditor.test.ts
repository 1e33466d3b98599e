/** Audits as jobs: one at a time among replicas, results kept, alarms raised once and resolved, metrics. */

import { register } from "prom-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { INVARIANTS } from "../domain/audit.ts";
import { auditHourly, HOURLY_MS } from "../maintenance.ts";
import { addBasics, addVe, testWorld, type TestWorld } from "../report/testing.ts";
import { beatRun, claimRun, endRun, listRuns, readRun } from "../store/audit_run.ts";
import { Auditor } from "./auditor.ts";

describe.each(openTestDatabases())("auditor on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  /** Two replicas. */
  let a: Auditor;
  let b: Auditor;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
    for (let i = 0; i < 20; i += 1) await addVe(world, `ve_${i}`, { credits: "10" });
    a = new Auditor(world.deps, { pageRows: 1 });
    b = new Auditor(world.deps, { pageRows: 1 });
  });
  afterAll(() => db.close());

  const alarms = () =>
    db.query<{ subject: string; key: string; resolved_at: Date | null }>(
      "select subject, key, resolved_at from alarm where kind = 'audit' order by n",
    );
  const breaksMetric = async (invariant: string) => {
    const { values } = await register.getSingleMetric("tokenbill_control_audit_breaks")!.get();
    return values.find((each) => each.labels["invariant"] === invariant)?.value;
  };

  it("runs once an hour, whichever replica looks, and says so in its metrics", async () => {
    const [first, second] = await Promise.all([a.startIfDue(false, HOURLY_MS), b.startIfDue(false, HOURLY_MS)]);
    expect([first, second].filter((started) => started !== null)).toHaveLength(1);
    const started = (first ?? second)!;
    await started.ended;
    expect(await readRun(db, started.run.id)).toMatchObject({ state: "clean", wallets: 20n, breaks: [] });
    expect(await b.startIfDue(false, HOURLY_MS)).toBeNull();
    await db.query("update audit_run set started_at = started_at - interval '61 minutes'");
    await auditHourly(world.deps, b);
    expect((await listRuns(db, null, 10)).map(({ state }) => state)).toEqual(["clean", "clean"]);
    await auditHourly(world.deps, a);
    expect(await listRuns(db, null, 10)).toHaveLength(2);
    const { values } = await register.getSingleMetric("tokenbill_control_audit_wallets_checked")!.get();
    expect(values).toContainEqual({ labels: { depth: "quick" }, value: 20 });
    expect(await breaksMetric(INVARIANTS.escrowed)).toBe(0);
  });

  it("joins the audit of the same depth that is under way", async () => {
    const there = (await claimRun(db, { id: "aud_under_way", deep: true, unlessWithinMs: 0 }))!;
    const joined = await Promise.all([a.start(true), b.start(true)]);
    expect(joined.map(({ run }) => run.id)).toEqual([there.id, there.id]);
    const quick = await b.start(false);
    expect(quick.run.id).not.toBe(there.id);
    await quick.ended;
    await endRun(db, there.id, { state: "clean", wallets: 20, events: 0, breaks: [], reason: "" });
    const other = await b.start(true);
    expect(other.run.id).not.toBe(there.id);
    await other.ended;
  });

  it("does what a replica that died left undone, which no longer has a say", async () => {
    const dead = (await claimRun(db, { id: "aud_dead", deep: false, unlessWithinMs: 0 }))!;
    expect(await b.startIfDue(false, HOURLY_MS)).toBeNull();
    await db.query("update audit_run set beat_at = beat_at - interval '61 seconds' where id = 'aud_dead'");
    const started = (await b.start(false))!;
    await started.ended;
    expect(await readRun(db, started.run.id)).toMatchObject({ state: "clean" });
    expect(await readRun(db, dead.id)).toMatchObject({ state: "failed", reason: "the process that ran it died" });
    expect(await beatRun(db, dead.id, { wallets: 1, events: 0 })).toBe(false);
  });

  it("raises one alarm for a break, however often it is found, and resolves it when it is mended", async () => {
    const once = async () => {
      const { run, ended } = await a.start(false);
      await ended;
      return readRun(db, run.id);
    };
    await db.query("update wallet set escrowed = escrowed + 1 where ve_id = 've_3'");
    const found = await once();
    expect(found).toMatchObject({
      state: "broken",
      break_count: 1,
      breaks: [{ invariant: INVARIANTS.escrowed, subject: "ve_3", expected: "0", found: "1" }],
    });
    await once();
    expect(await alarms()).toMatchObject([{ subject: "ve_3", resolved_at: null }]);
    expect(await breaksMetric(INVARIANTS.escrowed)).toBe(1);
    await db.query("update wallet set escrowed = escrowed - 1 where ve_id = 've_3'");
    expect(await once()).toMatchObject({ state: "clean" });
    expect(await alarms()).toMatchObject([{ subject: "ve_3", resolved_at: expect.any(Date) }]);
    expect(await breaksMetric(INVARIANTS.escrowed)).toBe(0);
    // Another time is another alarm.
    await db.query("update wallet set escrowed = escrowed + 2 where ve_id = 've_3'");
    await once();
    await db.query("update wallet set escrowed = escrowed - 2 where ve_id = 've_3'");
    await once();
    expect(await alarms()).toHaveLength(2);
  });

  it("leaves alarms that a quick audit cannot judge to deep ones", async () => {
    const deep = async () => (await a.start(true)).ended;
    await db.query(
      "insert into node_boot (boot_id, node_id, last_record_no, last_report_at) values ('boot_x', 'n', 3, now())",
    );
    await deep();
    await (
      await a.start(false)
    ).ended;
    const open = (await alarms()).filter(({ resolved_at: at }) => at === null);
    expect(open).toMatchObject([{ subject: "boot_x", key: `${INVARIANTS.records}\nboot_x` }]);
    await db.query("delete from node_boot where boot_id = 'boot_x'");
    await deep();
    expect((await alarms()).every(({ resolved_at: at }) => at !== null)).toBe(true);
  });

  it("stops when it is asked to, or when its process ends", async () => {
    const closing = new Auditor(world.deps);
    const { run } = await closing.start(true);
    await closing.close();
    expect(await readRun(db, run.id)).toMatchObject({ state: "stopped" });
    const there = (await claimRun(db, { id: "aud_there", deep: true, unlessWithinMs: 0 }))!;
    expect(await a.stop(there.id)).toMatchObject({ state: "running" });
    expect(await beatRun(db, there.id, { wallets: 1, events: 0 })).toBe(false);
    await db.query("update audit_run set state = 'stopped' where id = 'aud_there'");
    expect(await a.stop("aud_none")).toBeNull();
  });

  it("says so when it cannot go on", async () => {
    await db.query("alter table limit_lease rename to limit_lease_away");
    const { run, ended } = await a.start(false);
    await ended;
    await db.query("alter table limit_lease_away rename to limit_lease");
    const failed = await readRun(db, run.id);
    expect(failed).toMatchObject({ state: "failed", wallets: 20n });
    expect(failed!.reason).not.toContain("limit_lease");
    // The next look tries again.
    await db.query("update audit_run set started_at = started_at - interval '61 minutes' where id <> $1", [run.id]);
    const again = await a.startIfDue(false, HOURLY_MS);
    await again!.ended;
    expect(await readRun(db, again!.run.id)).toMatchObject({ state: "clean" });
  });
});
