/** What all requests of a pipeline share. */

import type { PipelineDeps } from "./deps.ts";
import { Drains } from "./drains.ts";
import { HEALTH_DEFAULTS, type HealthSettings } from "./health.ts";
import type { RoutePm } from "./route_types.ts";
import { TimerWheel } from "./timers.ts";

/** How often running streams note how far they are. */
export const PROGRESS_MS = 1000;

/** A shortage of connections is told of this often. */
export const SHORTAGE_LOG_MS = 5000;

/** A request under way. */
export interface Live {
  /** A second passed. */
  onProgressTick(): void;
  /** The node stops: end now. */
  abort(): void;
}

export class Core {
  readonly deps: PipelineDeps;
  readonly wheel: TimerWheel;
  readonly health: HealthSettings;
  readonly live = new Set<Live>();
  readonly drains = new Drains();
  private waiting: (() => void)[] = [];
  private shortageAt = Number.NEGATIVE_INFINITY;
  private progress: NodeJS.Timeout | null = null;

  constructor(deps: PipelineDeps) {
    this.deps = deps;
    this.wheel = new TimerWheel(() => deps.now());
    this.health = { ...HEALTH_DEFAULTS, ...deps.settings.health };
  }

  nowUs(): number {
    return Math.round(this.deps.now() * 1000);
  }

  /** This node has no connection left for a target. */
  shortage(pm: RoutePm, detail: string): void {
    const now = this.deps.now();
    if (now - this.shortageAt < SHORTAGE_LOG_MS) return;
    this.shortageAt = now;
    this.deps.log.warn({ pm: pm.id, provider: pm.provider.id, detail }, "this node has no connection to spare");
  }

  opened(live: Live): void {
    this.live.add(live);
    if (this.progress !== null) return;
    this.progress = setInterval(() => this.tick(), PROGRESS_MS);
    this.progress.unref();
  }

  closed(live: Live): void {
    this.live.delete(live);
    if (this.live.size > 0) return;
    for (const resolve of this.waiting) resolve();
    this.waiting = [];
  }

  idle(): Promise<void> {
    return this.live.size === 0 ? Promise.resolve() : new Promise((resolve) => this.waiting.push(resolve));
  }

  abortAll(): void {
    for (const live of this.live) live.abort();
  }

  close(): void {
    if (this.progress !== null) clearInterval(this.progress);
    this.progress = null;
    this.wheel.stop();
  }

  private tick(): void {
    for (const live of this.live) live.onProgressTick();
    if (this.live.size > 0 || this.progress === null) return;
    clearInterval(this.progress);
    this.progress = null;
  }
}
