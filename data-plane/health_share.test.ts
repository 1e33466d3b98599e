import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import { HealthNoteSchema, type ShareHealthRequest } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { Health, HEALTH_DEFAULTS, HealthCause } from "./health.ts";
import { AVERAGES_EVERY_MS, HealthShare, NOTES_MAX, SHARE_EVERY_MS } from "./health_share.ts";
import { SILENT } from "./journal/testing.ts";

type Call = Pick<ShareHealthRequest, "nodeId" | "bootId" | "notes">;

let calls: Call[];
let times: number[];
/** What becomes of each call. */
let answer: () => Promise<void>;
let health: Map<string, Health>;
let share: HealthShare;

beforeEach(() => {
  calls = [];
  times = [];
  answer = async () => undefined;
  health = new Map();
  share = new HealthShare({
    client: {
      async shareHealth(request) {
        calls.push(request as Call);
        times.push(now());
        await answer();
        return undefined as never;
      },
    },
    table: { healthOf: (id) => health.get(id) },
    nodeId: "node_a",
    bootId: "boot_a",
    log: SILENT,
    now,
  });
});
afterEach(() => share.stop());

function now(): number {
  return performance.now();
}

function of(id: string): Health {
  let known = health.get(id);
  if (known === undefined) health.set(id, (known = new Health()));
  return known;
}

function cool(id: string): void {
  of(id).fail("rate_limit", 30_000, now(), HEALTH_DEFAULTS);
  share.changed(id, of(id), true);
}

const note = (fields: object) => create(HealthNoteSchema, { bootId: "boot_b", ...fields });

test("tells at once what changed, and what changes then a moment later, together", async () => {
  cool("pm_a");
  await expect.poll(() => calls.length).toBe(1);
  expect(calls[0]).toMatchObject({ nodeId: "node_a", bootId: "boot_a" });
  const [first] = calls[0]!.notes;
  expect(first).toMatchObject({ subjectId: "pm_a", cause: HealthCause.RATE_LIMIT, failurePercent: 10 });
  expect(first!.coolMs).toBeGreaterThan(29_000);
  for (let i = 0; i < 50; i++) {
    cool(`pm_${i % 5}`);
    await sleep(1);
  }
  of("pm_a").retry();
  of("pm_a").succeed(now());
  share.changed("pm_a", of("pm_a"), true);
  await expect.poll(() => calls.flatMap(({ notes }) => notes).at(-1)?.subjectId).toBe("pm_a");
  expect(calls.flatMap(({ notes }) => notes).at(-1)).toMatchObject({ coolMs: 0, cause: HealthCause.RATE_LIMIT });
  for (let i = 1; i < times.length; i++) expect(times[i]! - times[i - 1]!).toBeGreaterThan(SHARE_EVERY_MS - 5);
  for (const { notes } of calls) expect(new Set(notes.map(({ subjectId }) => subjectId)).size).toBe(notes.length);
});

test("says when only averages moved", async () => {
  of("pm_a").took(true, 812.4, now());
  of("pm_a").fail("failure", 0, now(), HEALTH_DEFAULTS);
  const begin = now();
  share.changed("pm_a", of("pm_a"), false);
  await expect.poll(() => calls.length).toBe(1);
  expect(times[0]! - begin).toBeGreaterThan(AVERAGES_EVERY_MS - 5);
  expect(calls[0]!.notes).toEqual([
    { subjectId: "pm_a", coolMs: 0, cause: 0, failurePercent: 10, firstContentMs: 812 },
  ]);
});

test("does not let a cooldown wait for averages", async () => {
  of("pm_a").took(true, 800, now());
  const begin = now();
  share.changed("pm_a", of("pm_a"), false);
  cool("pm_b");
  await expect.poll(() => calls.length).toBe(1);
  expect(times[0]! - begin).toBeLessThan(AVERAGES_EVERY_MS);
  expect(calls[0]!.notes.map(({ subjectId, cause }) => [subjectId, cause])).toEqual([
    ["pm_a", 0],
    ["pm_b", HealthCause.RATE_LIMIT],
  ]);
});

test("makes one call at a time, and forgets what a failed one held", async () => {
  const held = Promise.withResolvers<void>();
  answer = () => held.promise;
  cool("pm_a");
  await expect.poll(() => calls.length).toBe(1);
  cool("pm_b");
  await sleep(2 * SHARE_EVERY_MS);
  expect(calls).toHaveLength(1);
  answer = async () => undefined;
  held.reject(new Error("away"));
  await expect.poll(() => calls.length, { timeout: 5_000 }).toBe(2);
  expect(calls[1]!.notes.map(({ subjectId }) => subjectId)).toEqual(["pm_b"]);
});

test("keeps no more than one call may bring, and stops", async () => {
  for (let i = 0; i < NOTES_MAX + 50; i++) cool(`pm_${i}`);
  await expect.poll(() => calls.length).toBe(1);
  expect(calls[0]!.notes).toHaveLength(NOTES_MAX);
  cool("pm_a");
  share.stop();
  cool("pm_b");
  await sleep(2 * SHARE_EVERY_MS);
  expect(calls).toHaveLength(1);
});

test("takes in what others saw of what it knows, never its own, and tells nobody of it", async () => {
  of("pm_a");
  of("pm_b");
  const fields = { coolMs: 5_000, cause: HealthCause.FAILURE, failurePercent: 80, firstContentMs: 700 };
  share.apply([
    note({ subjectId: "pm_a", ...fields }),
    note({ subjectId: "pm_b", ...fields, bootId: "boot_a" }),
    note({ subjectId: "pm_unknown", ...fields }),
  ]);
  expect(of("pm_a").available(now())).toBe(false);
  expect(of("pm_a").hasNews(now())).toBe(false);
  expect(of("pm_a").latencyMs(true, now())).toBe(700);
  expect(of("pm_b").available(now())).toBe(true);
  await sleep(2 * SHARE_EVERY_MS);
  expect(calls).toEqual([]);
});
