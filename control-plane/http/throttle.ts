/** How much one address, and all together, may ask for. In the process: each replica counts for itself. */

const WINDOW_MS = 60_000;

export interface ThrottleLimits {
  /** Within a minute, from one address. */
  readonly perMinuteMax: number;
  /** At the same time, from one address. */
  readonly atOncePerAddressMax: number;
  /** At the same time, from all. */
  readonly atOnceMax: number;
  /** Addresses that are remembered; beyond, those that are idle are forgotten before their minute is over. */
  readonly addressesMax: number;
}

interface Counts {
  windowStart: number;
  inWindow: number;
  inLastWindow: number;
  atOnce: number;
}

export type Refusal = { readonly status: 429 | 503; readonly retryAfterS: number };

/** Counts by a window that slides: the last minute's count fades while the present one grows. */
export class Throttle {
  readonly #limits: ThrottleLimits;
  readonly #now: () => number;
  readonly #counts = new Map<string, Counts>();
  #atOnce = 0;

  constructor(limits: ThrottleLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Gives what ends the request, to be called once; or why it may not begin. */
  enter(key: string): (() => void) | Refusal {
    const counts = this.#countsOf(key);
    const elapsed = this.#now() - counts.windowStart;
    const recent = counts.inWindow + counts.inLastWindow * (1 - elapsed / WINDOW_MS);
    if (recent + 1 > this.#limits.perMinuteMax) {
      return { status: 429, retryAfterS: Math.max(1, Math.ceil((WINDOW_MS - elapsed) / 1000)) };
    }
    if (this.#atOnce >= this.#limits.atOnceMax || counts.atOnce >= this.#limits.atOncePerAddressMax) {
      return { status: 503, retryAfterS: 1 };
    }
    counts.inWindow += 1;
    counts.atOnce += 1;
    this.#atOnce += 1;
    return () => {
      counts.atOnce -= 1;
      this.#atOnce -= 1;
    };
  }

  #countsOf(key: string): Counts {
    const now = this.#now();
    let counts = this.#counts.get(key);
    if (counts === undefined) {
      if (this.#counts.size >= this.#limits.addressesMax) this.#forget();
      counts = { windowStart: now, inWindow: 0, inLastWindow: 0, atOnce: 0 };
      this.#counts.set(key, counts);
    }
    // A clock that was set back must not count against anybody for long.
    const windows = Math.floor((now - counts.windowStart) / WINDOW_MS);
    if (windows !== 0) {
      counts.inLastWindow = windows === 1 ? counts.inWindow : 0;
      counts.inWindow = 0;
      counts.windowStart = windows < 0 ? now : counts.windowStart + windows * WINDOW_MS;
    }
    return counts;
  }

  /** The oldest half of those with nothing under way. */
  #forget(): void {
    let left = Math.ceil(this.#limits.addressesMax / 2);
    for (const [key, { atOnce }] of this.#counts) {
      if (left === 0) return;
      if (atOnce > 0) continue;
      this.#counts.delete(key);
      left -= 1;
    }
  }
}
