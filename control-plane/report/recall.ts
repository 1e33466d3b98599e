/** A node waits for what other nodes hold of a wallet or a limit: they are asked to give back, for RECALL_WAIT_MS at most. */

import type { Deps } from "../api/context.ts";
import type { LimitAnswer, LimitRecall } from "../domain/limit_plan.ts";
import { limitKey } from "../domain/limits.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { grantAgain, type LeaseAnswer, type Recall, type Report } from "./ingest.ts";
import { grantLimitAgain } from "./limits.ts";
import { recallsTotal } from "./metrics.ts";

export const RECALL_WAIT_MS = 500;

/** Where hints about wallets are heard: the feed. */
export interface WalletHints {
  /**
   * Calls back when something of a wallet (by its VE) or a limit (by its `limitKey`) became available, on whichever
   * replica; returns the way to stop.
   */
  onCredits(subject: string, callback: () => void): () => void;
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

interface Waiting<Answer> {
  /** What hints name it by. */
  readonly subject: string;
  /** Asks the others. */
  recall(): Promise<void>;
  /** Grants once more; null when the boot has gone on. */
  again(last: boolean): Promise<{ answer: Answer; met: boolean } | null>;
}

/** The answer after others were asked to give back; null when the boot has gone on. Does no I/O of its own. */
export async function recallOne<Answer>(
  hints: WalletHints,
  { subject, recall, again }: Waiting<Answer>,
): Promise<Answer | null> {
  const bell = new Bell();
  const stop = hints.onCredits(subject, () => bell.ring());
  const timer = setTimeout(() => bell.end(), RECALL_WAIT_MS);
  try {
    // Heard before asked: an answer can be faster than this statement.
    await recall();
    for (;;) {
      await bell.wait();
      const last = bell.over;
      const result = await again(last);
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
    recalls.map(({ veId, boots }) => {
      const ask = report.asks.find((one) => one.veId === veId);
      if (ask === undefined) return null;
      const again = (last: boolean) => grantAgain(deps, report, ask, last);
      const recall = () => notifyWallets(deps.db, [{ veId, kind: "recall", boots }]);
      return recallOne(hints, { subject: veId, recall, again });
    }),
  );
  return answers.filter((answer) => answer !== null);
}

/** The same of limits. */
export async function awaitLimitRecalls(
  deps: Deps,
  hints: WalletHints,
  report: Report,
  recalls: readonly LimitRecall[],
): Promise<LimitAnswer[]> {
  const answers = await Promise.all(
    recalls.map(({ physicalModelId, kind, boots }) => {
      const ask = report.limitAsks?.find((one) => one.physicalModelId === physicalModelId && one.kind === kind);
      if (ask === undefined) return null;
      const limit = { physicalModelId, kind };
      const recall = () => notifyWallets(deps.db, [{ veId: "", limit, kind: "recall", boots }]);
      const again = (last: boolean) => grantLimitAgain(deps, report, ask, last);
      return recallOne(hints, { subject: limitKey(physicalModelId, kind), recall, again });
    }),
  );
  return answers.filter((answer) => answer !== null);
}
