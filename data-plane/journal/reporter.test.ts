import { toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Reservation, ReserveFailure } from "../budget/budget.ts";
import { limitAccount, LimitKind } from "../budget/accounts.ts";
import { Wallets } from "../budget/wallets.ts";
import { connectControlPlane, type ControlPlane } from "../control_plane.ts";
import { ReportUsageRequestSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { FakeControlPlane, NODE_TOKEN } from "../testing_control_plane.ts";
import { FileJournal } from "./file_journal.ts";
import { REPORT_RECORDS_MAX, Reporter } from "./reporter.ts";
import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, backoffMs } from "./report_sender.ts";
import { countingIds, settle, settlement, SILENT, temporaryDir } from "./testing.ts";

const BOOT = "boot_a";
const VE = "ve_a";

let dir: ReturnType<typeof temporaryDir>;
let server: FakeControlPlane;
let control: ControlPlane;
let journal: FileJournal;
let wallets: Wallets;
let reporter: Reporter;

beforeEach(async () => {
  dir = temporaryDir();
  server = new FakeControlPlane();
  await server.start();
  control = connectControlPlane(server.url, NODE_TOKEN);
  const now = (): number => performance.now();
  journal = new FileJournal({
    dir: dir.path,
    log: SILENT,
    now: Date.now,
    newId: countingIds(),
    recentBytesMax: 300_000,
  });
  wallets = new Wallets(now, (ms, fn) => {
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  });
  reporter = new Reporter({
    client: control.reports,
    journal,
    wallets,
    nodeId: "node_a",
    bootId: BOOT,
    log: SILENT,
    now,
    random: () => 0,
  });
  reporter.start();
});
afterEach(async () => {
  await reporter.stop(100);
  await journal.close();
  control.close();
  await server.stop();
  dir.remove();
});

function reserve(amount: bigint): Promise<Reservation | ReserveFailure> {
  return new Promise((done) => wallets.reserveSlow(VE, amount, amount, done));
}

/** A whole request: admitted, journaled, settled. */
async function serve(n: number): Promise<void> {
  const reservation = wallets.reserve(VE, 1_000n) ?? (await reserve(1_000n));
  if (typeof reservation === "string") throw new Error(reservation);
  const written = settle(journal, settlement(n, { credits: BigInt(n) }));
  wallets.settle(reservation, BigInt(n));
  await written;
}

function ids(): string[] {
  return server.boot(BOOT).records.map(({ id }) => id);
}

describe("reports", () => {
  test("a waiting request is told at once, and gets its lease", async () => {
    const reservation = await reserve(10n);
    expect(reservation).toMatchObject({ account: VE, held: 10n });
    expect(server.reports.at(-1)!.leases[0]).toMatchObject({ veId: VE, need: "0.00000000001" });
    expect(wallets.totals()).toMatchObject({ leased: server.grant, reserved: 10n });
  });

  test("what was settled arrives by itself, in order, once, and the figures agree", async () => {
    for (let n = 1; n <= 20; n++) await serve(n);
    await server.until(() => ids().length === 20);
    await reporter.flush(2_000);
    expect(ids()).toEqual(Array.from({ length: 20 }, (_, n) => `usg_${n + 1}`));
    expect(wallets.totals()).toMatchObject({ unacked: 0n, leased: server.boot(BOOT).leases.get(VE) });
    expect(journal.backlog).toBe(0);
  });

  test("lost calls and lost answers: the same bytes again, nothing twice", async () => {
    await serve(1);
    await reporter.flush(5_000);
    server.fates.push("lose_call", "lose_answer", "lose_answer");
    for (const n of [2, 3, 4, 5]) {
      await serve(n);
      await reporter.flush(5_000);
    }
    expect(ids()).toEqual(["usg_1", "usg_2", "usg_3", "usg_4", "usg_5"]);
    const bySeq = Map.groupBy(server.reports, ({ seq }) => seq);
    expect([...bySeq.values()].some((same) => same.length > 1)).toBe(true);
    for (const same of bySeq.values()) {
      const forms = new Set(
        same.map((report) => Buffer.from(toBinary(ReportUsageRequestSchema, report)).toString("hex")),
      );
      expect(forms.size).toBe(1);
    }
    expect(reporter.stats.duplicate).toBeGreaterThanOrEqual(1);
    expect(wallets.totals()).toMatchObject({ unacked: 0n, reserved: 0n, leased: server.boot(BOOT).leases.get(VE) });
  });

  test("lease lines that are refused do not keep the records from the ledger, nor the node from the control plane", async () => {
    await serve(1);
    await reporter.flush(5_000);
    server.fates.push("refuse_leases");
    await serve(2);
    await reporter.flush(5_000);
    expect(ids()).toEqual(["usg_1", "usg_2"]);
    expect(reporter.stats.online).toBe(true);
    await serve(3);
    await reporter.flush(5_000);
    expect(wallets.totals()).toMatchObject({ unacked: 0n, reserved: 0n });
  });

  test("a control plane that was away gets the whole backlog, in full reports, without a pause between them", async () => {
    await serve(1);
    await reporter.flush(2_000);
    await server.stop();
    const count = REPORT_RECORDS_MAX * 2 + 500;
    const written = Array.from({ length: count }, (_, n) => settle(journal, settlement(n + 2, { credits: 0n })));
    await Promise.all(written);
    await journal.sync();
    const before = server.reports.length;
    await server.start();
    await server.until(() => ids().length === count + 1);
    expect(ids().at(-1)).toBe(`usg_${count + 1}`);
    expect(new Set(ids()).size).toBe(count + 1);
    const sizes = server.reports
      .slice(before)
      .map(({ records }) => records.length)
      .filter((size) => size > 0);
    expect(sizes.length).toBeLessThanOrEqual(5);
  });

  test("a ledger that lost what it had is sent everything from where it is", async () => {
    for (let n = 1; n <= 3; n++) await serve(n);
    await reporter.flush(2_000);
    const boot = server.boot(BOOT);
    boot.lastSeq = 0;
    boot.records.length = 1;
    await serve(4);
    await reporter.flush(5_000);
    expect(boot.records.map(({ recordNo }) => Number(recordNo))).toEqual([1, 2, 3, 4]);
    // The journal had let go of 2 and 3, since they had been confirmed; their numbers are filled.
    expect([boot.records[0]!.id, boot.records[3]!.id]).toEqual(["usg_1", "usg_4"]);
    expect(reporter.stats.gap).toBeGreaterThanOrEqual(1);
    expect(wallets.totals()).toMatchObject({ unacked: 0n });
  });

  test("an answer that is held back does not keep others waiting", async () => {
    await serve(1);
    await reporter.flush(5_000);
    const other = (): Promise<Reservation | ReserveFailure> =>
      new Promise((done) => wallets.reserveSlow("ve_b", 5n, 5n, done));
    server.fates.push("hold_answer");
    const waiting = reserve(server.grant * 2n);
    await server.until(() => server.reports.at(-1)!.leases.some(({ need }) => need !== ""));
    const held = server.reports.length;
    // Nobody waits for anything else: the answer may take its time.
    expect(server.reports.at(-1)!.seq).toBe(server.reports[held - 1]!.seq);
    expect(await other()).toMatchObject({ account: "ve_b", held: 5n });
    expect(server.reports[held]!.seq).toBe(server.reports[held - 1]!.seq);
    server.letGo();
    expect(await waiting).toMatchObject({ held: server.grant * 2n });
    expect(reporter.stats.failed).toBe(0);
  });

  test("limits are reported beside wallets, and what records used of them is acknowledged with these", async () => {
    const limit = limitAccount("pm_a", LimitKind.CREDITS);
    const hold = await new Promise<Reservation | ReserveFailure>((done) => wallets.reserveSlow(limit, 10n, 10n, done));
    expect(server.reports.at(-1)!.limits[0]).toMatchObject({
      physicalModelId: "pm_a",
      kind: LimitKind.CREDITS,
      need: "0.00000000001",
    });
    wallets.settle(hold as Reservation, 7n);
    expect(wallets.totals("limits").unacked).toBe(7n);
    server.limitUse = 7n;
    server.fates.push("lose_answer");
    await settle(journal, settlement(1, { limits: [{ account: limit, amount: 7n }] }));
    await reporter.flush(5_000);
    const reports = server.reports.filter(({ records }) => records.length > 0);
    expect(reports.map(({ limits }) => limits.map(({ spent }) => spent))).toEqual([
      ["0.000000000007"],
      ["0.000000000007"],
    ]);
    expect(wallets.totals("limits")).toMatchObject({
      unacked: 0n,
      reserved: 0n,
      leased: server.boot(BOOT).leases.get(limit),
    });
    expect(journal.limitUses.size).toBe(0);
  });

  test("a recall is answered at once, giving back what is not reserved", async () => {
    const held = await reserve(10n);
    wallets.push(VE, { recall: true, toppedUp: false });
    await server.until(() => server.reports.some(({ leases }) => leases.some(({ release }) => release !== "")));
    await reporter.flush(1_000);
    await expect.poll(() => wallets.totals().leased).toBe(10n);
    wallets.settle(held as Reservation, 0n);
  });

  test("while nobody answers, grace is spent and then requests are unavailable; afterwards all is well", async () => {
    wallets.setGrace(VE, 10n);
    await server.stop();
    expect(await reserve(10n)).toMatchObject({ held: 10n });
    expect(await reserve(10n)).toBe("unavailable");
    await server.start();
    // The first request after the outage makes the node try again at once, if it did not by itself.
    await expect.poll(() => reserve(10n)).toMatchObject({ held: 10n });
    expect(reporter.stats.online).toBe(true);
  });

  test("reads a wallet: reports first, then asks", async () => {
    await serve(5);
    const balance = await new Promise((done) => wallets.readBalance(VE, done));
    expect(balance).toEqual({ creditRemaining: 7_500_000_000_000n, creditBudget: 10_000_000_000_000n });
    expect(ids()).toEqual(["usg_5"]);
  });
});

describe("stop", () => {
  test("reports the rest and that the boot is over", async () => {
    await serve(1);
    expect(await reporter.stop(5_000)).toBe(true);
    expect(server.boot(BOOT)).toMatchObject({ final: true });
    expect(ids()).toEqual(["usg_1"]);
  });

  test("gives up at its deadline, for the next start to go on", async () => {
    await serve(1);
    await server.stop();
    expect(await reporter.stop(50)).toBe(false);
    expect(journal.backlog).toBe(1);
    await server.start();
  });
});

test("the pause between attempts doubles up to a limit, with half of it at random", () => {
  expect([1, 2, 3].map((failures) => backoffMs(failures, 1))).toEqual([1, 2, 4].map((n) => n * BACKOFF_MIN_MS));
  expect(backoffMs(1, 0)).toBe(BACKOFF_MIN_MS / 2);
  expect(backoffMs(1_000, 1)).toBe(BACKOFF_MAX_MS);
});
