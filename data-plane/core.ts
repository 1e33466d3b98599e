/** What all requests of a pipeline share. */

import type { PipelineDeps } from "./deps.ts";
import { Drains } from "./drains.ts";
import { HEALTH_DEFAULTS } from "./health.ts";
import type { RoutePm } from "./route_types.ts";
import { TargetHealth } from "./target_health.ts";
import { TimerWheel } from "./timers.ts";

/** How often running streams note how far they are. */
export const PROGRESS_MS = 1000;

/** Below this the wall clock and the monotonic one agree. */
const WALL_JITTER_MS = 1000;

/** A shortage of connections is told of this often. */
export const SHORTAGE_LOG_MS = 5000;

/** And so is usage without a price. */
export const UNPRICED_LOG_MS = 60_000;

/** A request under way. */
export interface Live {
  /** Its place among those under way, -1: none. */
  liveAt: number;
  /** A second passed. */
  onProgressTick(): void;
  /** The node stops: end now. */
  abort(): void;
}

export class Core {
  readonly deps: PipelineDeps;
  readonly wheel: TimerWheel;
  readonly health: TargetHealth;
  /**
   * A list whose places are known, and no Set: the tables of a Set that much passes through are replaced again and again,
   * and the dead ones, once old, keep requests that ended from being collected.
   */
  private readonly live: Live[] = [];
  readonly drains = new Drains();
  private waiting: (() => void)[] = [];
  private shortageAt = Number.NEGATIVE_INFINITY;
  private unpricedAt = Number.NEGATIVE_INFINITY;
  private progress: NodeJS.Timeout | null = null;

  constructor(deps: PipelineDeps) {
    this.deps = deps;
    this.wheel = new TimerWheel(() => deps.now());
    this.health = deps.health ?? new TargetHealth({ ...HEALTH_DEFAULTS, ...deps.settings.health });
  }

  get liveCount(): number {
    return this.live.length;
  }

  /** Milliseconds since 1970, for what another machine compares with its own clock. */
  wallNow(): number {
    return (this.deps.wallNow ?? this.deps.now)();
  }

  /** How far the wall clock is ahead of `now`, in microseconds; 0 while the two agree but for their jitter. */
  wallLeadUs(): number {
    const { wallNow, now } = this.deps;
    if (wallNow === undefined) return 0;
    const leadMs = wallNow() - now();
    return Math.abs(leadMs) < WALL_JITTER_MS ? 0 : Math.round(leadMs * 1000);
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

  /** An upstream used what the model's price says nothing of. */
  unpriced(pmId: string): void {
    const now = this.deps.now();
    if (now - this.unpricedAt < UNPRICED_LOG_MS) return;
    this.unpricedAt = now;
    this.deps.log.warn({ pm: pmId }, "what a model used has no price, and was free");
  }

  opened(live: Live): void {
    live.liveAt = this.live.push(live) - 1;
    if (this.progress !== null) return;
    this.progress = setInterval(() => this.tick(), PROGRESS_MS);
    this.progress.unref();
  }

  closed(live: Live): void {
    const at = live.liveAt;
    if (at < 0) return;
    live.liveAt = -1;
    const last = this.live.pop()!;
    if (last !== live) {
      this.live[at] = last;
      last.liveAt = at;
    }
    if (this.live.length > 0) return;
    for (const resolve of this.waiting) resolve();
    this.waiting = [];
  }

  idle(): Promise<void> {
    return this.live.length === 0 ? Promise.resolve() : new Promise((resolve) => this.waiting.push(resolve));
  }

  abortAll(): void {
    for (const live of this.live.slice()) if (live.liveAt >= 0) live.abort();
  }

  close(): void {
    if (this.progress !== null) clearInterval(this.progress);
    this.progress = null;
    this.wheel.stop();
  }

  private tick(): void {
    // From behind, since one that ends is replaced by the last.
    for (let at = this.live.length - 1; at >= 0; at--) this.live[at]?.onProgressTick();
    if (this.live.length > 0 || this.progress === null) return;
    clearInterval(this.progress);
    this.progress = null;
  }
}
