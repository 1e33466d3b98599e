/** The health of targets: a Physical Model and its Provider together. `health.ts` holds what each of them is like. */

import type { FailureKind, HealthSettings } from "./health.ts";
import type { RoutePm } from "./route_types.ts";

export class TargetHealth {
  readonly settings: HealthSettings;

  constructor(settings: HealthSettings) {
    this.settings = settings;
  }

  /** True if a request may go there without need: well, or due for a trial with none under way. */
  available(pm: RoutePm, now: number): boolean {
    return pm.health.available(now);
  }

  /** Call when an attempt begins; its end must call `succeed`, `fail` or `release`. */
  begin(pm: RoutePm, now: number): void {
    pm.health.begin(now);
  }

  /** The attempt ended without a verdict, as when the client went away. */
  release(pm: RoutePm): void {
    pm.health.release();
  }

  /** It has content, or refused the client's own fault. `firstContentMs`: after sending; 0: that says nothing. */
  succeed(pm: RoutePm, _now: number, _stream: boolean, _firstContentMs: number): void {
    pm.health.succeed();
  }

  /** `retryAfterMs` is the upstream's wish, 0 if it had none. */
  fail(pm: RoutePm, kind: FailureKind, retryAfterMs: number, now: number): void {
    pm.health.fail(kind, retryAfterMs, now, this.settings);
  }
}
