import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { appendFileSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { connectControlPlane, type ControlPlane } from "../control_plane.ts";
import { FakeControlPlane, NODE_TOKEN } from "../testing_control_plane.ts";
import {
  createBootDir,
  FOREIGN_DEAD_MS,
  listBoots,
  type Owner,
  removeBootDir,
  takeOver,
  thisProcess,
  touchClaim,
} from "./boot_dir.ts";
import { FileJournal } from "./file_journal.ts";
import { Recovery, Runs } from "./recovery.ts";
import { countingIds, settle, settlement, SILENT, temporaryDir } from "./testing.ts";

const BOOT = "boot_dead";
/** A process that is long gone: its start time is nobody's. */
const DEAD: Owner = { ...thisProcess("node_old"), pid: process.pid, start: "never" };

let root: ReturnType<typeof temporaryDir>;
let server: FakeControlPlane;
let control: ControlPlane;

beforeEach(async () => {
  root = temporaryDir();
  server = new FakeControlPlane();
  await server.start();
  control = connectControlPlane(server.url, NODE_TOKEN);
});
afterEach(async () => {
  control.close();
  await server.stop();
  root.remove();
});

function recovery(): Recovery {
  return new Recovery({
    client: control.reports,
    root: root.path,
    owner: thisProcess("node_new"),
    log: SILENT,
    now: () => performance.now(),
    wallNow: Date.now,
    random: () => 0,
    newId: countingIds(),
    scanEveryMs: 5,
  });
}

/** The journal of a boot whose process is gone. */
async function deadJournal(write: (journal: FileJournal) => Promise<unknown>, segmentBytes?: number): Promise<string> {
  const dir = createBootDir(root.path, BOOT, DEAD);
  const journal = new FileJournal({ dir, log: SILENT, now: Date.now, newId: countingIds(), segmentBytes });
  await write(journal);
  await journal.close();
  return dir;
}

function ids(): string[] {
  return server.records.map(({ id }) => id);
}

describe("ownership", () => {
  test("a living owner keeps its directory; a dead one's is taken by exactly one", () => {
    const self = thisProcess("node_new");
    const mine = createBootDir(root.path, "boot_mine", self);
    expect(takeOver(mine, self, Date.now())).toBeNull();
    const dead = createBootDir(root.path, BOOT, DEAD);
    expect(takeOver(dead, self, Date.now())).toEqual({ nodeId: "node_old" });
    expect(takeOver(dead, self, Date.now())).toBeNull();
    expect(listBoots(root.path).toSorted()).toEqual([BOOT, "boot_mine"]);
    removeBootDir(root.path, BOOT);
    expect(listBoots(root.path)).toEqual(["boot_mine"]);
    expect(takeOver(dead, self, Date.now())).toBeNull();
  });

  test("whoever took a directory over and died loses it again", () => {
    const dead = createBootDir(root.path, BOOT, DEAD);
    expect(takeOver(dead, { ...DEAD, start: "nor this" }, Date.now())).not.toBeNull();
    expect(takeOver(dead, thisProcess("node_new"), Date.now())).toEqual({ nodeId: "node_old" });
  });

  test("an owner elsewhere is dead when it has not touched its claim for long", () => {
    const self = thisProcess("node_new");
    const dir = createBootDir(root.path, BOOT, { ...self, machine: "another" });
    touchClaim(dir, Date.now());
    expect(takeOver(dir, self, Date.now())).toBeNull();
    const old = (Date.now() - FOREIGN_DEAD_MS - 1_000) / 1000;
    utimesSync(join(dir, "owner.0.json"), old, old);
    expect(takeOver(dir, self, Date.now())).toEqual({ nodeId: "node_new" });
  });

  test("a directory that nobody claimed is taken", () => {
    mkdirSync(join(root.path, BOOT));
    writeFileSync(join(root.path, BOOT, "owner.0.json"), "not json");
    expect(takeOver(join(root.path, BOOT), thisProcess("node_new"), Date.now())).toEqual({ nodeId: "node_new" });
  });
});

test("runs of numbers know what is missing", () => {
  const runs = new Runs();
  for (const n of [5, 6, 9, 7, 12]) runs.add(n);
  expect([3, 7, 8, 9, 12, 14].map((upTo) => runs.missingUpTo(upTo))).toEqual([0, 0, 1, 1, 3, 5]);
  expect(new Runs().missingUpTo(9)).toBe(0);
});

describe("a dead boot's journal", () => {
  test("goes to the ledger under its own name, final, and is deleted", async () => {
    await deadJournal((journal) => Promise.all([1, 2, 3].map((n) => settle(journal, settlement(n)))));
    await recovery().scan();
    expect(ids()).toEqual(["usg_1", "usg_2", "usg_3"]);
    expect(server.boot(BOOT)).toMatchObject({ final: true, lastSeq: 1 });
    expect(server.reports.map(({ seq, nodeId, leases }) => [Number(seq), nodeId, leases.length])).toEqual([
      [0, "node_old", 0],
      [1, "node_old", 0],
    ]);
    expect(listBoots(root.path)).toEqual([]);
  });

  test("what the ledger has already is not told again, and lost answers count nothing twice", async () => {
    await deadJournal((journal) => Promise.all([1, 2, 3].map((n) => settle(journal, settlement(n)))));
    server.fates.push("answer", "lose_answer", "lose_call", "lose_answer");
    await recovery().scan();
    expect(ids()).toEqual(["usg_1", "usg_2", "usg_3"]);
    expect(listBoots(root.path)).toEqual([]);
  });

  test("[crash-after-content] [crash-before-content] a live stream is billed from its last progress, estimated; one without progress is told, and costs nothing", async () => {
    const given = settlement(7, { stream: true });
    await deadJournal(async (journal) => {
      journal.intent({ ...given, id: "usg_live" });
      journal.intent({ ...given, id: "usg_silent" });
      journal.intent({ ...given, id: "usg_done" });
      journal.progress({ ...given, id: "usg_live", credits: 1n });
      journal.progress({ ...given, id: "usg_live", credits: 5n });
      await settle(journal, { ...given, id: "usg_done" });
    });
    await recovery().scan();
    expect(ids()).toEqual(["usg_done", "usg_live", "usg_silent"]);
    expect(server.records[2]).toMatchObject({ recordNo: 3n, units: [], credits: "", priceId: "", outcome: 6 });
    expect(server.records[1]).toMatchObject({
      recordNo: 2n,
      veId: "ve_a",
      accessKeyId: "key_a",
      physicalModelId: "pm_a",
      priceId: "price_a",
      credits: "0.000000000005",
      outcome: 6,
      stream: true,
      units: [{ meter: 1, quantity: 7n, source: 2 }],
    });
  });

  test("dying during recovery bills a stream once: the estimate is on disk before it is told", async () => {
    const dir = await deadJournal(async (journal) => {
      journal.intent({ ...settlement(1) });
      journal.progress({ ...settlement(1) });
      await journal.sync();
    });
    const before = segmentsIn(dir);
    server.fates.push("answer", ...Array.from({ length: 1_000 }, () => "lose_call" as const));
    const first = recovery();
    first.start();
    await server.until(() => server.reports.length >= 3);
    await first.stop();
    expect(segmentsIn(dir)).toHaveLength(before.length + 1);
    server.fates.length = 0;
    // The second finder is another process as far as claims go.
    const claims = fs.readdirSync(dir).filter((name) => name.startsWith("owner."));
    writeFileSync(join(dir, `owner.${claims.length}.json`), JSON.stringify(DEAD));
    await recovery().scan();
    expect(ids()).toEqual(["usg_1"]);
    expect(listBoots(root.path)).toEqual([]);
  });

  test("a torn tail is cut, and a damaged record is told as lost without holding up the rest", async () => {
    const dir = await deadJournal(async (journal) => {
      for (let n = 1; n <= 5; n++) await settle(journal, settlement(n));
    });
    const path = join(dir, segmentsIn(dir)[0]!);
    const bytes = readFileSync(path);
    bytes[Math.floor(bytes.length / 2)]! ^= 4;
    writeFileSync(path, bytes);
    appendFileSync(path, bytes.subarray(0, 30));
    await recovery().scan();
    expect(ids()).toEqual(["usg_1", "usg_2", "usg_made1", "usg_4", "usg_5"]);
    expect(server.records.map(({ recordNo }) => Number(recordNo))).toEqual([1, 2, 3, 4, 5]);
  });

  test("where told records are damaged, a live stream is not billed: it might be one of them", async () => {
    const dir = await deadJournal(async (journal) => {
      journal.intent({ ...settlement(9), id: "usg_live" });
      journal.progress({ ...settlement(9), id: "usg_live" });
      for (let n = 1; n <= 3; n++) await settle(journal, settlement(n));
    });
    server.boot(BOOT).records.push(...([{}, {}, {}] as never[]));
    const path = join(dir, segmentsIn(dir)[0]!);
    const bytes = readFileSync(path);
    bytes[bytes.length - 150]! ^= 4;
    writeFileSync(path, bytes);
    await recovery().scan();
    expect(server.boot(BOOT).records).toHaveLength(3);
    expect(listBoots(root.path)).toEqual([]);
  });

  test("waits for a control plane that is away", async () => {
    await deadJournal((journal) => settle(journal, settlement(1)));
    await server.stop();
    const running = recovery();
    running.start();
    await server.start();
    await server.until(() => server.boot(BOOT).final);
    await running.stop();
    expect(ids()).toEqual(["usg_1"]);
  });
});

function segmentsIn(dir: string): string[] {
  return fs
    .readdirSync(dir)
    .filter((name) => name.endsWith(".log"))
    .toSorted();
}

test("kill -9 under load: everything whose `written` ran is recovered exactly once, by one of several", async () => {
  const script = fileURLToPath(new URL("crash_child.ts", import.meta.url));
  const child = spawn(process.execPath, [script, root.path, BOOT], { stdio: ["ignore", "pipe", "inherit"] });
  let told = "";
  const exit = new Promise((done) => child.once("close", done));
  for await (const chunk of child.stdout) {
    told += chunk;
    if (told.length > 100_000) child.kill("SIGKILL");
  }
  await exit;
  const written = told.slice(0, told.lastIndexOf("\n")).split("\n");
  const finders = [recovery(), recovery(), recovery()];
  await Promise.all(finders.map((finder) => finder.scan()));
  const recovered = ids();
  expect(written.length).toBeGreaterThan(5_000);
  expect(new Set(recovered).size).toBe(recovered.length);
  const known = new Set(recovered);
  expect(written.filter((id) => !known.has(id))).toEqual([]);
  expect(recovered.filter((id) => id === "usg_live" || id === "usg_silent")).toEqual(["usg_live", "usg_silent"]);
  expect(finders.map((finder) => finder.recovered).toSorted()).toEqual([0, 0, 1]);
  expect(server.boot(BOOT).final).toBe(true);
  expect(listBoots(root.path)).toEqual([]);
});
