import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { normalTimeZone, Period, periodOf } from "./periods.ts";

const { DAILY, WEEKLY, MONTHLY } = Period;
const HOUR_MS = 3_600_000;

const iso = (ms: number) => new Date(ms).toISOString().replace(".000Z", "Z");
function period(kind: Period, zone: string, now: string): string {
  const { startMs, endMs } = periodOf(kind, zone, Date.parse(now));
  return `${iso(startMs)}/${iso(endMs)}`;
}

describe("periodOf", () => {
  it.each([
    [DAILY, "UTC", "2026-11-24T20:00:00Z", "2026-11-24T00:00:00Z/2026-11-25T00:00:00Z"],
    [DAILY, "UTC", "2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z/2026-11-25T00:00:00Z"],
    [DAILY, "UTC", "2026-11-23T23:59:59.999Z", "2026-11-23T00:00:00Z/2026-11-24T00:00:00Z"],
    [DAILY, "Asia/Tokyo", "2026-11-24T20:00:00Z", "2026-11-24T15:00:00Z/2026-11-25T15:00:00Z"],
    [DAILY, "Asia/Kathmandu", "2026-11-24T18:14:59Z", "2026-11-23T18:15:00Z/2026-11-24T18:15:00Z"],
    // Summer time: a day of 23 hours, and one of 25.
    [DAILY, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z/2026-03-29T22:00:00Z"],
    [DAILY, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z/2026-10-25T23:00:00Z"],
    // Both times that it is 02:30 belong to one day.
    [DAILY, "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-24T22:00:00Z/2026-10-25T23:00:00Z"],
    [DAILY, "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-24T22:00:00Z/2026-10-25T23:00:00Z"],
    // Midnight itself is skipped in Beirut, and comes twice in Havana.
    [DAILY, "Asia/Beirut", "2026-03-28T22:30:00Z", "2026-03-28T22:00:00Z/2026-03-29T21:00:00Z"],
    [DAILY, "America/Havana", "2026-11-01T05:30:00Z", "2026-11-01T04:00:00Z/2026-11-02T05:00:00Z"],
    // At 00:01 the clocks of St John's went back to 23:01: the evening's second time is in the new day.
    [DAILY, "America/St_Johns", "2010-11-07T02:45:00Z", "2010-11-07T02:30:00Z/2010-11-08T03:30:00Z"],
    // Apia went over the date line: there was no 30 December.
    [DAILY, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z/2011-12-30T10:00:00Z"],
    [DAILY, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z/2011-12-31T10:00:00Z"],
    // Weeks begin on Monday: Sunday evening is the end, not the beginning.
    [WEEKLY, "UTC", "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z/2026-11-23T00:00:00Z"],
    [WEEKLY, "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z/2026-11-30T00:00:00Z"],
    [WEEKLY, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-18T22:00:00Z/2026-10-25T23:00:00Z"],
    [WEEKLY, "America/New_York", "2027-01-01T12:00:00Z", "2026-12-28T05:00:00Z/2027-01-04T05:00:00Z"],
    [MONTHLY, "UTC", "2026-11-24T20:00:00Z", "2026-11-01T00:00:00Z/2026-12-01T00:00:00Z"],
    [MONTHLY, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z/2027-01-01T00:00:00Z"],
    // From the 31st on, through a short month and a leap year's.
    [MONTHLY, "UTC", "2027-01-31T12:00:00Z", "2027-01-01T00:00:00Z/2027-02-01T00:00:00Z"],
    [MONTHLY, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z/2028-03-01T00:00:00Z"],
    [MONTHLY, "Europe/Berlin", "2026-03-31T22:30:00Z", "2026-03-31T22:00:00Z/2026-04-30T22:00:00Z"],
    [MONTHLY, "Europe/Berlin", "2026-10-31T23:30:00Z", "2026-10-31T23:00:00Z/2026-11-30T23:00:00Z"],
    [MONTHLY, "America/Los_Angeles", "2026-12-01T07:59:59Z", "2026-11-01T07:00:00Z/2026-12-01T08:00:00Z"],
  ] as const)("period %d of %s at %s", (kind, zone, now, expected) => {
    expect(period(kind, zone, now)).toBe(expected);
  });

  it("holds the moment, and its end is the start of the next", () => {
    const zones = Intl.supportedValuesOf("timeZone");
    expect(zones.length).toBeGreaterThan(300);
    const bound = { [DAILY]: 50 * HOUR_MS, [WEEKLY]: 9 * 24 * HOUR_MS, [MONTHLY]: 33 * 24 * HOUR_MS };
    const sample = fc.record({
      kind: fc.constantFrom(DAILY, WEEKLY, MONTHLY),
      zone: fc.constantFrom(...zones),
      now: fc.integer({ min: 0, max: Date.UTC(2100, 0, 1) }),
    });
    fc.assert(
      fc.property(sample, ({ kind, zone, now }) => {
        const { startMs, endMs } = periodOf(kind, zone, now);
        expect(startMs).toBeLessThanOrEqual(now);
        expect(endMs).toBeGreaterThan(now);
        expect(endMs - startMs).toBeLessThanOrEqual(bound[kind]);
        expect(periodOf(kind, zone, endMs).startMs).toBe(endMs);
        expect(periodOf(kind, zone, endMs - 1)).toEqual({ startMs, endMs });
        expect(periodOf(kind, zone, startMs)).toEqual({ startMs, endMs });
      }),
      { numRuns: 2000 },
    );
  });
});

describe("normalTimeZone", () => {
  it.each([
    ["Europe/Berlin", "Europe/Berlin"],
    ["europe/berlin", "Europe/Berlin"],
    ["utc", "UTC"],
    ["America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"],
    ["Etc/GMT+5", "Etc/GMT+5"],
    ["", null],
    ["+01:00", null],
    ["-05", null],
    ["Z", null],
    ["UTC+1", null],
    ["Europe/Atlantis", null],
    ["Europe/Berlin[u-ca=hebrew]", null],
    ["2026-01-01T00:00[Europe/Berlin]", null],
    [" Europe/Berlin", null],
    ["Europe/Berlin\0", null],
  ])("%j is %j", (name, expected) => {
    expect(normalTimeZone(name)).toBe(expected);
  });
});
