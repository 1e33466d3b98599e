/** `npm run audit` as an operator uses it: beside a control plane, and without one. */

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../db/database.ts";
import { migrate } from "../db/migrate.ts";
import { openPglite, openPgliteInMemory } from "../db/pglite.ts";
import { OPERATOR_TOKEN_FILE, writeHomeFile } from "../home.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type AuditReport, exitCodeOf, reportText } from "./report_text.ts";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));
/** A port where nothing listens. */
const NOBODY = "127.0.0.1:9";

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the command with nothing in its environment but `env`. */
async function run(env: Record<string, string>, ...args: string[]): Promise<Ended> {
  const options = { env: { PATH: process.env["PATH"], CONTROL_PLANE_ADDR: NOBODY, ...env } };
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [MAIN, ...args], options);
    return { code: 0, out: stdout, err: stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, out: stdout, err: stderr };
  }
}

const addWallet = (db: Database, purchased: number) =>
  db.query(
    "insert into wallet (ve_id, merchant_id, purchased, created_at, updated_at) values ('ve_x', 'mer_x', $1, now(), now())",
    [purchased],
  );

describe("npm run audit", () => {
  let home: string;
  beforeAll(() => {
    home = mkdtempSync(join(tmpdir(), "tokenbill-audit-"));
  });
  afterAll(() => rmSync(home, { recursive: true, force: true }));

  it("explains itself", async () => {
    expect(await run({}, "--help")).toMatchObject({ code: 0, out: expect.stringContaining("--deep") });
    expect(await run({}, "--depp")).toMatchObject({ code: 2, err: expect.stringContaining("Unknown option '--depp'") });
    expect(await run({ DATABASE_POOL_MAX: "x" })).toMatchObject({
      code: 2,
      err: expect.stringContaining("tokenbill audit: DATABASE_POOL_MAX"),
    });
  });

  it("opens the embedded store where no control plane runs", async () => {
    const env = { TOKENBILL_HOME: home };
    expect(await run(env)).toMatchObject({ code: 2, err: expect.stringContaining("there is nothing to audit") });
    const open = async (fn: (db: Database) => Promise<unknown>) => {
      const db = await openPglite(home);
      try {
        return await fn(db);
      } finally {
        await db.close();
      }
    };
    await open(async () => {});
    expect(await run(env)).toMatchObject({ code: 2, err: expect.stringContaining("no control plane has used it yet") });
    await open(migrate);
    expect(await run(env, "--deep")).toMatchObject({ code: 0, out: expect.stringContaining("Everything agrees.") });
    await open((db) => addWallet(db, 5));
    const broken = await run(env);
    expect(broken).toMatchObject({ code: 1, err: "" });
    expect(broken.out).toContain("BROKEN purchased = adjustment and payment transfers: ve_x: expected 0, found 5");
    expect(broken.out).toContain("2 invariants broken.");
    // The results are kept, as those of the hourly audit are.
    await open(async (db) =>
      expect(await db.query("select state from audit_run order by n")).toEqual([
        { state: "clean" },
        { state: "broken" },
      ]),
    );
    await open((db) => db.query("delete from migration where name = (select max(name) from migration)"));
    expect(await run(env)).toMatchObject({ code: 2, err: expect.stringContaining("schema of an older release") });
    const taken = await open(() => run(env));
    expect(taken).toMatchObject({ code: 2, err: expect.stringContaining("set CONTROL_PLANE_URL to where it listens") });
  });

  describe("beside a control plane", () => {
    let db: Database;
    let cp: TestControlPlane;
    beforeAll(async () => {
      db = await openPgliteInMemory();
      await migrate(db);
      cp = await startTestControlPlane(db);
    });
    afterAll(async () => {
      await cp.close();
      await db.close();
    });

    it("asks it, with the operator's token", async () => {
      const env = { TOKENBILL_HOME: cp.deps.settings.home, CONTROL_PLANE_URL: cp.url };
      expect(await run(env, "--deep")).toMatchObject({ code: 0, err: "" });
      await addWallet(db, 7);
      expect(await run(env)).toMatchObject({ code: 1, out: expect.stringContaining("expected 0, found 7") });
    });

    it("says what stands in its way", async () => {
      const env = { TOKENBILL_HOME: home, CONTROL_PLANE_URL: cp.url };
      expect(await run(env)).toMatchObject({
        code: 2,
        err: expect.stringContaining("copy the operator's token there"),
      });
      writeHomeFile(home, OPERATOR_TOKEN_FILE, "tbo_wrong");
      expect(await run(env)).toMatchObject({ code: 2, err: expect.stringContaining("does not take the token in") });
      writeHomeFile(home, OPERATOR_TOKEN_FILE, cp.merchantToken);
      expect(await run(env)).toMatchObject({ code: 2, err: expect.stringContaining("does not take the token in") });
      expect(await run({ ...env, CONTROL_PLANE_URL: `http://${NOBODY}` })).toMatchObject({
        code: 2,
        err: expect.stringContaining("nothing answers"),
      });
    });
  });
});

describe("the text of a result", () => {
  const report: AuditReport = {
    id: "aud_a",
    deep: false,
    state: "clean",
    durationMs: 1234,
    walletsTotal: 1,
    wallets: 1,
    events: 0,
    breakCount: 0,
    breaks: [],
    reason: "",
  };

  it("says what was not reached, and does not call it right", () => {
    const stopped: AuditReport = { ...report, state: "stopped", wallets: 0, reason: "it was stopped" };
    expect(reportText(stopped)).not.toContain("ok");
    expect(exitCodeOf(stopped)).toBe(2);
    expect(exitCodeOf({ ...report, state: "failed" })).toBe(2);
    expect(exitCodeOf({ ...stopped, breakCount: 1 })).toBe(1);
    expect(reportText({ ...report, state: "broken", breakCount: 150 })).toContain("… and 150 more");
  });
});
