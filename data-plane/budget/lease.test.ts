import { describe, expect, test } from "vitest";
import { BURN_MS, EXPIRY_MARGIN_MS, IDLE_RELEASE_MS, Lease } from "./lease.ts";

function granted(credits: bigint, ttlMs = 60_000, now = 0): Lease {
  const lease = new Lease(now);
  lease.renew(credits, ttlMs, now);
  return lease;
}

describe("free", () => {
  test("what is held and what is spent but not acknowledged is not free", () => {
    const lease = granted(100n);
    lease.hold(30n, 0);
    expect(lease.free(0, false)).toBe(70n);
    lease.settle(30n, 10n, 0);
    expect(lease.free(0, false)).toBe(90n);
    lease.acknowledge(10n);
    expect([lease.lease, lease.unacked, lease.free(0, false)]).toEqual([90n, 0n, 90n]);
  });

  test("a record that is reported before its reservation is settled never frees anything twice", () => {
    const lease = granted(100n);
    lease.hold(30n, 0);
    lease.acknowledge(20n);
    lease.renew(80n, 60_000, 0);
    expect(lease.free(0, false)).toBe(70n);
    lease.settle(30n, 20n, 0);
    expect(lease.free(0, false)).toBe(80n);
  });

  test("ends the margin before the ttl does, counted from sending", () => {
    const lease = granted(100n, 60_000, 1_000);
    const end = 61_000 - EXPIRY_MARGIN_MS;
    lease.hold(10n, 1_000);
    expect(lease.free(end - 1, false)).toBe(90n);
    expect(lease.free(end, false)).toBe(0n);
    // What was held stays covered, but what it gives back is not free again.
    lease.settle(10n, 4n, end);
    expect(lease.free(end, false)).toBe(0n);
    expect(lease.unacked).toBe(4n);
  });

  test("a short ttl keeps a margin of a tenth", () => {
    const lease = granted(100n, 1_000);
    expect([lease.free(899, false), lease.free(900, false)]).toEqual([100n, 0n]);
  });

  test("grace counts while the control plane is away only, and once", () => {
    const lease = granted(100n, 1_000);
    lease.grace = 50n;
    expect([lease.free(0, false), lease.free(0, true)]).toEqual([100n, 150n]);
    lease.hold(120n, 0);
    expect([lease.free(0, false), lease.free(0, true)]).toEqual([-20n, 30n]);
    lease.settle(120n, 120n, 0);
    expect(lease.free(5_000, true)).toBe(30n);
  });
});

describe("burn and want", () => {
  test("a steady burn is what is spent in ten seconds, and fades when it stops", () => {
    const lease = granted(10n ** 12n);
    for (let now = 0; now <= 60_000; now += 100) {
      lease.hold(10n, now);
      lease.settle(10n, 10n, now);
      lease.burn(now);
    }
    const burn = lease.burn(60_000);
    expect(Number(burn)).toBeGreaterThan(900);
    expect(Number(burn)).toBeLessThan(1_100);
    expect(lease.burn(60_000 + BURN_MS)).toBe(0n);
  });

  test("before a burn is known, room for some requests like the last; nothing while half of it is there", () => {
    const lease = granted(100n);
    lease.hold(10n, 0);
    expect(lease.want(0, 0n)).toBe(0n);
    lease.hold(60n, 0);
    expect(lease.want(0, 0n)).toBe(8n * 60n - 30n);
  });

  test("who waits is added", () => {
    expect(new Lease(0).want(0, 25n)).toBe(25n);
  });
});

describe("giving back", () => {
  test("idle is nothing held and nothing used for a while", () => {
    const lease = granted(100n);
    lease.hold(10n, 0);
    expect(lease.isIdle(IDLE_RELEASE_MS)).toBe(false);
    lease.settle(10n, 10n, 5);
    expect(lease.isIdle(IDLE_RELEASE_MS)).toBe(false);
    expect(lease.isIdle(IDLE_RELEASE_MS + 5)).toBe(true);
  });

  test("only what is free is released, and no longer counted on", () => {
    const lease = granted(100n);
    lease.hold(30n, 0);
    lease.settle(10n, 10n, 0);
    expect(lease.release(0)).toBe(70n);
    expect([lease.lease, lease.free(0, false), lease.release(0)]).toEqual([30n, 0n, 0n]);
  });

  test("low is less than half of the lease free", () => {
    const lease = granted(100n);
    lease.hold(50n, 0);
    expect(lease.isLow(0)).toBe(false);
    lease.hold(1n, 0);
    expect(lease.isLow(0)).toBe(true);
  });
});
