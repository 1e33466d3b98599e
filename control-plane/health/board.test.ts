import { beforeEach, expect, test } from "vitest";
import { HealthCause } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { ENTRY_MS_MAX, HealthBoard, type SeenNote, SUBJECTS_MAX } from "./board.ts";

const { UNSPECIFIED, FAILURE, RATE_LIMIT } = HealthCause;
const T = 1_764_000_000_000;

let now: number;
let board: HealthBoard;

beforeEach(() => {
  now = T;
  board = new HealthBoard(() => now);
});

const cooling = (coolMs: number, more: Partial<SeenNote> = {}): SeenNote => ({
  subjectId: "pm_a",
  coolMs,
  cause: FAILURE,
  failurePercent: 40,
  firstContentMs: 0,
  ...more,
});
const figures = (more: Partial<SeenNote> = {}): SeenNote => cooling(0, { cause: UNSPECIFIED, ...more });

test("a cooldown holds until its end, the figures for a while, fading", () => {
  board.take(cooling(5_000, { firstContentMs: 700 }), "boot_a");
  expect(board.health("pm_a")).toEqual({
    coolUntilMs: T + 5_000,
    cause: FAILURE,
    failurePercent: 40,
    firstContentMs: 700,
  });
  now += 10_000;
  expect(board.health("pm_a")).toEqual({ coolUntilMs: 0, cause: UNSPECIFIED, failurePercent: 20, firstContentMs: 700 });
  now = T + ENTRY_MS_MAX;
  expect(board.health("pm_a")).toBeNull();
  expect(board.note("pm_a", true)).toBeNull();
  expect(board.size).toBe(1);
  board.prune();
  expect(board.size).toBe(0);
  expect(board.health("pm_b")).toBeNull();
});

test("a long cooldown outlives the figures", () => {
  board.take(cooling(2 * ENTRY_MS_MAX), "boot_a");
  now += ENTRY_MS_MAX + 1;
  board.prune();
  expect(board.health("pm_a")).toMatchObject({ coolUntilMs: T + 2 * ENTRY_MS_MAX });
});

test("of several cooldowns the longest holds, and the first that is well again ends it", () => {
  board.take(cooling(30_000, { cause: RATE_LIMIT }), "boot_a");
  board.take(cooling(5_000), "boot_b");
  expect(board.health("pm_a")).toMatchObject({ coolUntilMs: T + 30_000, cause: RATE_LIMIT });
  board.take(figures({ failurePercent: 3 }), "boot_c");
  expect(board.health("pm_a")).toMatchObject({ coolUntilMs: T + 30_000, failurePercent: 3 });
  board.take(cooling(0), "boot_b");
  expect(board.health("pm_a")).toMatchObject({ coolUntilMs: 0, cause: UNSPECIFIED });
});

test("notes for nodes tell what is left of a cooldown, or that it is over, or nothing of it", () => {
  board.take(cooling(5_000), "boot_a");
  now += 2_000;
  const held = { subjectId: "pm_a", coolMs: 3_000, cause: FAILURE, failurePercent: 35, firstContentMs: 0 };
  expect(board.note("pm_a", true)).toEqual({ ...held, bootId: "boot_a" });
  expect(board.note("pm_a", false)).toMatchObject({ coolMs: 0, cause: UNSPECIFIED });
  now += 3_000;
  // Nobody has said that it is well again.
  expect(board.note("pm_a", true)).toMatchObject({ coolMs: 0, cause: UNSPECIFIED });
  board.take(cooling(0), "boot_b");
  expect(board.note("pm_a", true)).toMatchObject({ coolMs: 0, cause: FAILURE, bootId: "boot_b" });
});

test("all of it says which cooldowns hold", () => {
  board.take(cooling(5_000), "boot_a");
  board.take(figures({ subjectId: "pm_b" }), "boot_a");
  board.take(cooling(1_000, { subjectId: "pm_c" }), "boot_a");
  now += 2_000;
  expect([...board.all()]).toEqual([
    ["pm_a", true],
    ["pm_b", false],
    ["pm_c", false],
  ]);
});

test("it is bounded: what was not heard of for the longest time goes first", () => {
  for (let i = 0; i < SUBJECTS_MAX; i++) board.take(figures({ subjectId: `pm_${i}` }), "boot_a");
  board.take(figures({ subjectId: "pm_0" }), "boot_a");
  board.take(figures({ subjectId: "pm_new" }), "boot_a");
  expect([board.size, board.health("pm_1"), board.health("pm_0") !== null]).toEqual([SUBJECTS_MAX, null, true]);
});
