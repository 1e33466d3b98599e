/**
 * PURE. How long the phases of a request may take, in milliseconds: as the target says, else as the Logical Model says, else
 * the defaults.
 */

import type { RouteDeadlines, RoutePm, RouteSpec } from "./route_types.ts";

export const CONNECT_MS = 5_000;
/** To the head of an answer, and to its first content. */
export const FIRST_STREAM_MS = 60_000;
export const FIRST_JSON_MS = 600_000;
export const IDLE_MS = 120_000;
export const TOTAL_MS = 1_800_000;
/** A client that reads nothing for so long is as good as gone. */
export const CLIENT_STALL_MS = 120_000;
/** An upstream that does not end its answer after `[DONE]` is cut off. */
export const AFTER_DONE_MS = 2_000;
/** A form with files must be on its way to the upstream within this. */
export const UPLOAD_MS = 600_000;
/** The body of a refusal must come within this; its status alone decides otherwise. */
export const REFUSAL_MS = 10_000;

/** The deadlines of an attempt at a target. */
export function deadlinesOf(spec: RouteSpec, pm: RoutePm): RouteDeadlines {
  return spec.targetDeadlines?.get(pm) ?? spec.deadlines;
}

/** What a target says itself wins, field by field, but for the deadline of the whole. */
export function mergeDeadlines(own: RouteDeadlines, all: RouteDeadlines): RouteDeadlines {
  return {
    connectMs: own.connectMs || all.connectMs,
    firstByteMs: own.firstByteMs || all.firstByteMs,
    firstContentMs: own.firstContentMs || all.firstContentMs,
    idleMs: own.idleMs || all.idleMs,
    totalMs: all.totalMs,
  };
}

export function connectMs(deadlines: RouteDeadlines): number {
  return deadlines.connectMs || CONNECT_MS;
}

export function firstByteMs(deadlines: RouteDeadlines, stream: boolean): number {
  return deadlines.firstByteMs || (stream ? FIRST_STREAM_MS : FIRST_JSON_MS);
}

/** Who allows a long time for the head allows it for the content too. */
export function firstContentMs(deadlines: RouteDeadlines, stream: boolean): number {
  return deadlines.firstContentMs || Math.max(deadlines.firstByteMs, stream ? FIRST_STREAM_MS : FIRST_JSON_MS);
}

export function idleMs(deadlines: RouteDeadlines): number {
  return deadlines.idleMs || IDLE_MS;
}

export function totalMs(deadlines: RouteDeadlines): number {
  return deadlines.totalMs || TOTAL_MS;
}
