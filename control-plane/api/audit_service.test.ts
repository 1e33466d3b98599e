/** AuditService as an operator calls it, also with curl. */

import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AuditState } from "../../proto/gen/tokenbill/v1/audit_pb.ts";
import { AlarmFilter } from "../../proto/gen/tokenbill/v1/audit_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { raiseAlarms } from "../store/alarm.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf, makeCatalogue, reportUsage } from "./test_fixture.ts";

describe.each(openTestDatabases())("AuditService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let audit: Clients["audit"];
  let veId: string;

  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    const merchant = clientsOf(cp, cp.merchantToken);
    const catalogue = await makeCatalogue(merchant, "a");
    veId = catalogue.veId;
    await reportUsage(cp, merchant, catalogue);
    ({ audit } = clientsOf(cp, cp.operatorToken));
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("there is no result before the first audit", async () => {
    expect(await failureOf(audit.getAuditRun({}))).toMatchObject({ code: Code.NotFound, reason: "not_found" });
    expect((await audit.listAuditRuns({})).auditRuns).toEqual([]);
  });

  test("an audit that is quick is in the answer", async () => {
    const { auditRun } = await audit.runAudit({ deep: true });
    expect(auditRun).toMatchObject({
      deep: true,
      state: AuditState.CLEAN,
      walletsChecked: auditRun!.walletsTotal,
      eventsChecked: 1n,
      breakCount: 0,
      breaks: [],
    });
    expect(auditRun!.endTime).toBeDefined();
    expect((await audit.getAuditRun({})).auditRun).toEqual(auditRun);
    expect((await audit.stopAudit({ id: auditRun!.id })).auditRun).toEqual(auditRun);
  });

  test("curl can do it", async () => {
    const call = async (method: string, body: object) => {
      const response = await fetch(`${cp.url}/tokenbill.v1.AuditService/${method}`, {
        method: "POST",
        headers: { authorization: `Bearer ${cp.operatorToken}`, "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      return response.json() as Promise<Record<string, any>>;
    };
    const { auditRun } = await call("RunAudit", {});
    expect(auditRun).toMatchObject({ state: "AUDIT_STATE_CLEAN", id: expect.stringMatching(/^aud_/) });
    expect((await call("GetAuditRun", { id: auditRun.id })).auditRun.id).toBe(auditRun.id);
    const { nodes } = await call("ListNodes", {});
    expect(nodes).toMatchObject([{ id: "node-1", leasedCredits: "0", boots: [{ recordCount: "1" }] }]);
  });

  test("what is broken is in the run and among the alarms, until it is mended", async () => {
    await db.query("update wallet set debt = debt + 0.25, purchased = purchased + 1 where ve_id = $1", [veId]);
    const { auditRun } = await audit.runAudit({});
    expect(auditRun).toMatchObject({ state: AuditState.BROKEN, breakCount: 3 });
    expect(auditRun!.breaks).toContainEqual(
      expect.objectContaining({ invariant: "debt = debt transfers", subject: veId, expected: "0", found: "0.25" }),
    );
    const { alarms } = await audit.listAlarms({});
    expect(alarms).toHaveLength(3);
    expect(alarms[0]).toMatchObject({ kind: "audit", subject: veId, detail: { subject: veId }, note: "" });
    const { alarm } = await audit.acknowledgeAlarm({ id: alarms[0]!.id, note: "known" });
    expect(alarm).toMatchObject({ note: "known" });
    expect((await audit.listAlarms({ filter: AlarmFilter.OPEN })).alarms).toHaveLength(2);
    await db.query("update wallet set debt = debt - 0.25, purchased = purchased - 1 where ve_id = $1", [veId]);
    expect((await audit.runAudit({})).auditRun).toMatchObject({ state: AuditState.CLEAN });
    expect((await audit.listAlarms({})).alarms).toEqual([]);
    const all = await audit.listAlarms({ filter: AlarmFilter.ALL });
    expect(all.alarms.every(({ resolveTime }) => resolveTime !== undefined)).toBe(true);
  });

  test("alarms of other kinds stay open until a person has seen them", async () => {
    await raiseAlarms(db, cp.deps.now(), [{ kind: "quarantine", subject: "boot:1", detail: { records: 2 } }]);
    await audit.runAudit({ deep: true });
    const { alarms } = await audit.listAlarms({});
    expect(alarms).toMatchObject([{ kind: "quarantine", subject: "boot:1", detail: { records: 2 } }]);
    const first = await audit.acknowledgeAlarm({ id: alarms[0]!.id, note: "seen" });
    const second = await audit.acknowledgeAlarm({ id: alarms[0]!.id, note: "and fixed" });
    expect(second.alarm).toMatchObject({ note: "and fixed", acknowledgeTime: first.alarm!.acknowledgeTime });
    expect((await audit.listAlarms({})).alarms).toEqual([]);
    expect((await failureOf(audit.acknowledgeAlarm({ id: "999999" }))).reason).toBe("not_found");
  });

  test("lists come in pages", async () => {
    const runs = (await audit.listAuditRuns({})).auditRuns.map(({ id }) => id);
    const paged: string[] = [];
    for (let pageToken = ""; ;) {
      const page = await audit.listAuditRuns({ pageSize: 2, pageToken });
      paged.push(...page.auditRuns.map(({ id }) => id));
      if (page.nextPageToken === "") break;
      pageToken = page.nextPageToken;
    }
    expect(paged).toEqual(runs);
    expect(runs.length).toBeGreaterThan(3);
    const alarms = await audit.listAlarms({ filter: AlarmFilter.ALL, pageSize: 1 });
    expect(alarms.nextPageToken).not.toBe("");
    const wrong = { filter: AlarmFilter.OPEN, pageToken: alarms.nextPageToken };
    expect((await failureOf(audit.listAlarms(wrong))).reason).toBe("bad_page_token");
  });

  test("nodes come with their boots that matter, and what they hold", async () => {
    await db.query(
      `insert into node_boot (boot_id, node_id, last_record_no, last_report_at, closed)
       select 'boot_' || i, 'node-' || (2 + i / 30), 0, now() - i * interval '1 minute', i < 20 from generate_series(0, 59) as i`,
    );
    await db.query("insert into lease (ve_id, boot_id, credits, ttl_ms) values ($1, 'boot_20', 1.5, 60000)", [veId]);
    await db.query("update wallet set escrowed = escrowed + 1.5 where ve_id = $1", [veId]);
    const first = await audit.listNodes({ pageSize: 2 });
    expect(first.nodes).toMatchObject([{ id: "node-1" }, { id: "node-2", leaseCount: 1n, leasedCredits: "1.5" }]);
    // Closed ones that hold nothing are left out.
    expect(first.nodes[1]!.boots.map(({ id }) => id)).toEqual(Array.from({ length: 10 }, (_, i) => `boot_${20 + i}`));
    expect(first.nodes[1]!.boots[0]).toMatchObject({ closed: false, leaseCount: 1n, leasedCredits: "1.5" });
    const second = await audit.listNodes({ pageSize: 2, pageToken: first.nextPageToken });
    expect(second.nodes.map(({ id, boots }) => [id, boots.length])).toEqual([["node-3", 20]]);
    expect(second.nextPageToken).toBe("");
  });

  test("a node that is gone for good is written off, with a reason that is kept", async () => {
    const writeOff = (nodeId: string) =>
      audit.writeOffNode({ target: { case: "nodeId", value: nodeId }, reason: "disk lost" });
    expect((await failureOf(writeOff("node-9"))).reason).toBe("not_found");
    // Its boots are silent by the clock of the leases.
    await db.query("update service_clock set ms = ms + 3600000");
    await db.query("update node_boot set last_report_ms = (select ms from service_clock) where boot_id = 'boot_20'");
    expect(await failureOf(writeOff("node-2"))).toMatchObject({
      code: Code.FailedPrecondition,
      reason: "not_available",
    });
    await db.query("update service_clock set ms = ms + 31000");
    expect(await writeOff("node-2")).toMatchObject({ bootIds: ["boot_20"], veCount: 1, releasedCredits: "1.5" });
    expect(await writeOff("node-2")).toMatchObject({ bootIds: [], veCount: 0, releasedCredits: "0" });
    const { alarms } = await audit.listAlarms({});
    expect(alarms).toMatchObject([
      { kind: "node_written_off", subject: "boot_20", detail: { nodeId: "node-2", reason: "disk lost" } },
    ]);
    expect((await audit.runAudit({ deep: false })).auditRun!.state).toBe(AuditState.CLEAN);
  });
});
