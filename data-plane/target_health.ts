/** The health of targets: a Physical Model and its Provider together. `health.ts` holds what each of them is like. */

import type { FailureKind, Health, HealthSettings } from "./health.ts";
import type { RoutePm } from "./route_types.ts";

/** True if a request may go there without need: Physical Model and Provider are well, or due for a trial. */
export function available(pm: RoutePm, now: number): boolean {
  return pm.health.available(now) && pm.provider.health.available(now);
}

/** When a target that cools down will be due for a trial; 0: it is well. */
export function coolUntil(pm: RoutePm): number {
  return Math.max(pm.health.coolUntil, pm.provider.health.coolUntil);
}

/** Hears what other nodes should know. `id` is of a Physical Model or Provider. */
export interface HealthListener {
  /** `cooldown`: it began to cool down, or anew, or is well again; else only its averages moved. */
  changed(id: string, health: Health, cooldown: boolean, now: number): void;
}

export class TargetHealth {
  readonly settings: HealthSettings;
  private readonly listener: HealthListener | null;

  /** `listener` null: nobody hears. */
  constructor(settings: HealthSettings, listener: HealthListener | null = null) {
    this.settings = settings;
    this.listener = listener;
  }

  available(pm: RoutePm, now: number): boolean {
    return available(pm, now);
  }

  /** Call when an attempt begins; its end must call `succeed`, `fail` or `release`. */
  begin(pm: RoutePm, now: number): void {
    pm.health.begin(now);
    pm.provider.health.begin(now);
  }

  /** The attempt ended without a verdict, as when the client went away. */
  release(pm: RoutePm): void {
    pm.health.release();
    pm.provider.health.release();
  }

  /** It has content, or refused the client's own fault. `firstContentMs`: after sending; 0: that says nothing. */
  succeed(pm: RoutePm, now: number, stream: boolean, firstContentMs: number): void {
    const { health, provider } = pm;
    const cooled = health.coolUntil;
    const providerCooled = provider.health.coolUntil;
    health.succeed(now);
    health.took(stream, firstContentMs, now);
    provider.health.succeed(now);
    this.tell(pm.id, health, cooled, now);
    this.tell(provider.id, provider.health, providerCooled, now);
  }

  /** `retryAfterMs` is the upstream's wish, 0 if it had none. */
  fail(pm: RoutePm, kind: FailureKind, retryAfterMs: number, now: number): void {
    const { health, provider } = pm;
    const cooled = health.coolUntil;
    const providerCooled = provider.health.coolUntil;
    if (kind === "account") {
      // Refused credentials are the Provider's, and say nothing of the model.
      health.release();
      provider.health.fail(kind, retryAfterMs, now, this.settings);
    } else {
      health.fail(kind, retryAfterMs, now, this.settings);
      if (kind === "failure" || kind === "connection")
        provider.health.failThrough(pm.id, kind === "connection", now, this.settings);
      else provider.health.release();
    }
    this.tell(pm.id, health, cooled, now);
    this.tell(provider.id, provider.health, providerCooled, now);
  }

  private tell(id: string, health: Health, cooledUntil: number, now: number): void {
    const { listener } = this;
    if (listener === null) return;
    const cooldown = health.coolUntil !== cooledUntil;
    if (cooldown) health.told(now);
    if (cooldown || health.hasNews(now)) listener.changed(id, health, cooldown, now);
  }
}
