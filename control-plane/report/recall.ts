/** A node waits for Credits that other nodes hold: they are asked to give back, for at most RECALL_WAIT_MS. */

import type { Deps } from "../api/context.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { grantAgain, type LeaseAnswer, type LeaseAsk, type Recall, type Report } from "./ingest.ts";
import { recallsTotal } from "./metrics.ts";

export const RECALL_WAIT_MS = 500;

/** Where hints about wallets are heard: the feed. */
export interface WalletHints {
  /** Calls back when Credits of a VE became available, on whichever replica; returns the way to stop. */
  onCredits(veId: string, callback: () => void): () => void;
}

/** Resolves true at the next `ring` (or at once if it rang since the last wait), false when time is up. */
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

async function recallOne(
  deps: Deps,
  hints: WalletHints,
  report: Report,
  ask: LeaseAsk,
  recall: Recall,
): Promise<LeaseAnswer | null> {
  const bell = new Bell();
  const stop = hints.onCredits(ask.veId, () => bell.ring());
  const timer = setTimeout(() => bell.end(), RECALL_WAIT_MS);
  try {
    // Heard before asked: an answer can be faster than this statement.
    await notifyWallets(deps.db, [{ veId: recall.veId, kind: "recall", boots: recall.boots }]);
    for (;;) {
      await bell.wait();
      const last = bell.over;
      const result = await grantAgain(deps, report, ask, last);
      if (result === null) return null;
      if (result.met || last) {
        recallsTotal.inc({ result: result.met ? "met" : "unmet" });
        return result.answer;
      }
    }
  } finally {
    clearTimeout(timer);
    stop();
  }
}

/** The answers of the recalled VEs; a VE is missing when the boot has gone on in the meantime. */
export async function awaitRecalls(
  deps: Deps,
  hints: WalletHints,
  report: Report,
  recalls: readonly Recall[],
): Promise<LeaseAnswer[]> {
  const answers = await Promise.all(
    recalls.map((recall) => {
      const ask = report.asks.find(({ veId }) => veId === recall.veId);
      return ask === undefined ? null : recallOne(deps, hints, report, ask, recall);
    }),
  );
  return answers.filter((answer) => answer !== null);
}
