/** Waits for what nodes hold of a wallet or a limit and do not use: they are asked to give it back. */

/** How long nodes are given to return it. */
export const RECALL_WAIT_MS = 500;

/** Where hints about wallets are heard: the feed. */
export interface CreditHints {
  /**
   * Calls back when something of a wallet (by its VE) or a limit (by its `limitKey`) became available, on whichever
   * replica; returns the way to stop.
   */
  onCredits(subject: string, callback: () => void): () => void;
}

/** Resolves at the next `ring` (or at once if it rang since the last wait), or when time is up. */
class Bell {
  #rung = false;
  #wake: (() => void) | null = null;
  over = false;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  end(): void {
    this.over = true;
    this.#wake?.();
  }

  async wait(): Promise<void> {
    if (!this.#rung && !this.over) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
    this.#rung = false;
  }
}

export interface Recall {
  readonly hints: CreditHints;
  /** What hints name it by. */
  readonly subject: string;
  /** Asks the nodes. */
  recall(): Promise<void>;
  /** True: `attempt` is made once before they are asked, who then may not have to be. */
  readonly tryFirst: boolean;
}

/**
 * Tries whenever something became available, and a last time when RECALL_WAIT_MS are over. `attempt` gives undefined where
 * waiting may still help; the last time it has to give a result, or throw. Does no I/O of its own: no lock is held between
 * two tries.
 */
export async function recallUntil<T>(
  { hints, subject, recall, tryFirst }: Recall,
  attempt: (isLast: boolean) => Promise<{ readonly result: T } | undefined>,
): Promise<T> {
  const bell = new Bell();
  // Heard before asked: an answer can be faster than the statement that asks.
  const stop = hints.onCredits(subject, () => bell.ring());
  let timer: NodeJS.Timeout | undefined;
  try {
    let done = tryFirst ? await attempt(false) : undefined;
    if (done !== undefined) return done.result;
    timer = setTimeout(() => bell.end(), RECALL_WAIT_MS);
    await recall();
    for (;;) {
      await bell.wait();
      done = await attempt(bell.over);
      if (done !== undefined) return done.result;
    }
  } finally {
    clearTimeout(timer);
    stop();
  }
}
