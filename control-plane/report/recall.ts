/** A node waits for what other nodes hold of a wallet or a limit: they are asked to give back, for RECALL_WAIT_MS at most. */

import type { Deps } from "../api/context.ts";
import { type CreditHints, recallUntil } from "../credit_recall.ts";
import type { LimitAnswer, LimitRecall } from "../domain/limit_plan.ts";
import { limitKey } from "../domain/limits.ts";
import { notifyWallets } from "../store/feed_state.ts";
import { grantAgain, type LeaseAnswer, type Recall, type Report } from "./ingest.ts";
import { grantLimitAgain } from "./limits.ts";
import { recallsTotal } from "./metrics.ts";

interface Waiting<Answer> {
  /** What hints name it by. */
  readonly subject: string;
  /** Asks the others. */
  recall(): Promise<void>;
  /** Grants once more; null when the boot has gone on. */
  again(last: boolean): Promise<{ answer: Answer; met: boolean } | null>;
}

/** The answer after others were asked to give back; null when the boot has gone on. Does no I/O of its own. */
export function recallOne<Answer>(
  hints: CreditHints,
  { subject, recall, again }: Waiting<Answer>,
): Promise<Answer | null> {
  return recallUntil<Answer | null>({ hints, subject, recall, tryFirst: false }, async (isLast) => {
    const granted = await again(isLast);
    if (granted === null) return { result: null };
    if (!granted.met && !isLast) return undefined;
    recallsTotal.inc({ result: granted.met ? "met" : "unmet" });
    return { result: granted.answer };
  });
}

/** The answers of the recalled VEs; a VE is missing when the boot has gone on in the meantime. */
export async function awaitRecalls(
  deps: Deps,
  hints: CreditHints,
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
  hints: CreditHints,
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
