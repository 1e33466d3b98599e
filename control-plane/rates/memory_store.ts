/** The figures of all nodes in this process, for when there is one control plane. */

import {
  figureOf,
  grantRate,
  isForgotten,
  isTight,
  keepMs,
  NODE_KEEP_MS,
  type RateDecision,
  type RateFigure,
  type RateKind,
  type RateMoment,
  type RateReport,
  TIGHT_KEEP_MS,
  TIGHT_MAX,
} from "../domain/rates.ts";
import type { RateLimitOf, RateShare, RateShared, RateStore, RateTight } from "./store.ts";

/** What is too old is looked for this often. */
const SWEEP_EVERY_MS = 10_000;

/** Limits with figures; those beyond are granted as if no other node used them. */
const LIMITS_MAX = 1_000_000;

/** The figures of one limit, by boot. */
type Figures = Map<string, RateFigure>;

export class MemoryRateStore implements RateStore {
  readonly #now: () => number;
  readonly #draw: () => number;
  readonly #limits = new Map<string, { readonly kind: RateKind; readonly figures: Figures }>();
  /** When each boot reported last. */
  readonly #boots = new Map<string, number>();
  /** Those that are tight, the last reported one last. */
  readonly #tight = new Map<string, RateTight & { readonly at: number }>();
  #sweptAt = 0;

  /** `now`: milliseconds of a clock that only goes forward. `draw`: in [0, 1). */
  constructor(now: () => number, draw: () => number) {
    this.#now = now;
    this.#draw = draw;
  }

  async share({ bootId, reports, final, withTight }: RateShare): Promise<RateShared> {
    const now = this.#now();
    this.#sweep(now);
    if (final) this.#boots.delete(bootId);
    else this.#boots.set(bootId, now);
    for (const [boot, at] of this.#boots) if (now - at >= NODE_KEEP_MS) this.#boots.delete(boot);
    const nodes = this.#boots.size;
    const grants = reports.map((report) => {
      const decision = this.#take(bootId, report, { now, draw: this.#draw(), nodes, since: now, final });
      this.#noteTight(report, isTight(report.limit, decision, nodes), now);
      return { allowance: decision.allowance, remaining: decision.remaining };
    });
    return { grants, nodes, tight: withTight ? this.#listTight(now) : [] };
  }

  async remaining(subjectId: string, limits: readonly RateLimitOf[]): Promise<number[]> {
    const now = this.#now();
    return limits.map(({ kind, limit }) => {
      const figures = this.#limits.get(keyOf(subjectId, kind))?.figures ?? new Map<string, RateFigure>();
      const report = { subjectId, kind, limit, used: 0, held: 0, want: 0 };
      return grantRate(report, figures.values(), { now, draw: 0, nodes: 1, since: now, final: false }).remaining;
    });
  }

  async close(): Promise<void> {}

  #take(bootId: string, report: RateReport, moment: RateMoment): RateDecision {
    const key = keyOf(report.subjectId, report.kind);
    const figures: Figures = this.#limits.get(key)?.figures ?? new Map<string, RateFigure>();
    const mine = figures.get(bootId);
    figures.delete(bootId);
    const at = { ...moment, since: mine === undefined ? moment.now : mine.since };
    const decision = grantRate(report, figures.values(), at);
    if (!isForgotten(report)) figures.set(bootId, figureOf(report, decision, at));
    if (figures.size === 0) this.#limits.delete(key);
    else if (!this.#limits.has(key) && this.#limits.size < LIMITS_MAX)
      this.#limits.set(key, { kind: report.kind, figures });
    return decision;
  }

  #noteTight({ subjectId, kind }: RateReport, tight: boolean, now: number): void {
    const key = keyOf(subjectId, kind);
    this.#tight.delete(key);
    if (tight) this.#tight.set(key, { subjectId, kind, at: now });
  }

  #listTight(now: number): RateTight[] {
    for (const [key, { at }] of this.#tight) {
      if (now - at < TIGHT_KEEP_MS) break;
      this.#tight.delete(key);
    }
    return [...this.#tight.values()].slice(-TIGHT_MAX).map(({ subjectId, kind }) => ({ subjectId, kind }));
  }

  #sweep(now: number): void {
    if (now - this.#sweptAt < SWEEP_EVERY_MS) return;
    this.#sweptAt = now;
    for (const [key, { kind, figures }] of this.#limits) {
      for (const [boot, { at }] of figures) if (now - at >= keepMs(kind)) figures.delete(boot);
      if (figures.size === 0) this.#limits.delete(key);
    }
  }
}

function keyOf(subjectId: string, kind: RateKind): string {
  return `${kind}:${subjectId}`;
}
