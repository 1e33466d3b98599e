/** PURE. How long the phases of a request may take, in milliseconds: as the Logical Model says, or the defaults. */

import type { RouteDeadlines } from "./route_types.ts";

export const CONNECT_MS = 5_000;
export const FIRST_BYTE_STREAM_MS = 60_000;
export const FIRST_BYTE_JSON_MS = 600_000;
export const IDLE_MS = 120_000;
export const TOTAL_MS = 1_800_000;
/** A client that reads nothing for so long is as good as gone. */
export const CLIENT_STALL_MS = 120_000;
/** An upstream that does not end its answer after `[DONE]` is cut off. */
export const AFTER_DONE_MS = 2_000;

export function connectMs(deadlines: RouteDeadlines): number {
  return deadlines.connectMs || CONNECT_MS;
}

export function firstByteMs(deadlines: RouteDeadlines, stream: boolean): number {
  return deadlines.firstByteMs || (stream ? FIRST_BYTE_STREAM_MS : FIRST_BYTE_JSON_MS);
}

export function idleMs(deadlines: RouteDeadlines): number {
  return deadlines.idleMs || IDLE_MS;
}

export function totalMs(deadlines: RouteDeadlines): number {
  return deadlines.totalMs || TOTAL_MS;
}
