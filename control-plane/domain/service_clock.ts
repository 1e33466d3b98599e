/**
 * PURE: the time that counts against a silent boot. It goes on only while a replica is at work, so that an outage of the
 * control plane or its database takes nobody's leases, and by a little at each tick, so that no clock's jump does.
 */

import { BOOT_LIVE_MS } from "./leases.ts";

/** One tick counts for no more. A sweep ticks more often. */
export const SERVICE_TICK_MAX_MS = 15_000;

export interface ServiceClock {
  readonly ms: number;
  /** When it was advanced last, in milliseconds since 1970. */
  readonly tickedAtMs: number;
}

/** A clock that jumped back only loses the time of one tick. */
export function tick({ ms, tickedAtMs }: ServiceClock, nowMs: number): ServiceClock {
  return { ms: ms + Math.min(Math.max(nowMs - tickedAtMs, 0), SERVICE_TICK_MAX_MS), tickedAtMs: nowMs };
}

/** Whether a boot that reported last at `reportMs` shares its accounts, and can be asked to give back. */
export function isLive(serviceMs: number, reportMs: number): boolean {
  return serviceMs - reportMs <= BOOT_LIVE_MS;
}

/** Whether a lease is taken back. The report may have come as late as a tick after the clock that it was noted with. */
export function isOver(serviceMs: number, reportMs: number, ttlMs: number, holdMs: number): boolean {
  return serviceMs - reportMs > ttlMs + holdMs + SERVICE_TICK_MAX_MS;
}
