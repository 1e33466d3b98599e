/** What has to be done from time to time. Each job is safe to run on several replicas at once. */

import type { Deps } from "./api/context.ts";
import type { Auditor } from "./audit/auditor.ts";
import { refreshAuditMetrics } from "./audit/metrics.ts";
import { dayOf } from "./domain/report.ts";
import type { Job } from "./checkout/parts.ts";
import { beginPeriods } from "./period_jobs.ts";
import { sweepLeases } from "./report/sweep.ts";
import { deleteOldRuns } from "./store/audit_run.ts";
import { pruneTombstones } from "./store/feed_state.ts";
import { deleteExpiredAnswers } from "./store/idempotency.ts";
import { makePartition } from "./store/partitions.ts";
import { cleanWebhooks } from "./webhooks/webhooks.ts";

export const SWEEP_EVERY_MS = 10_000;
/** How soon after midnight wallets are filled and limits start again. */
export const PERIODS_EVERY_MS = 1000;
export const HOURLY_MS = 3_600_000;
/** The first audit waits until the start, and what waited for it, is over. */
export const FIRST_AUDIT_AFTER_MS = 60_000;
/** How often each replica looks whether the hourly audit is due: if the one that ran it died, another does it. */
export const AUDIT_LOOK_EVERY_MS = 60_000;
/** Audits and their results are kept this long. */
export const AUDIT_KEEP_MS = 90 * 86_400_000;
/** Partitions are made for today and this many days more. */
export const PARTITION_DAYS_AHEAD = 7;
/** A node that was away for longer gets a snapshot. */
export const TOMBSTONE_KEEP_MS = 7 * 86_400_000;
/** First answers of creating calls are remembered this long. */
export const ANSWER_KEEP_MS = 86_400_000;
/** Rows that one run of a clean-up deletes at most. */
const DELETE_ROWS_MAX = 10_000;

export interface Maintenance {
  /** Stops, after the job that runs. */
  close(): Promise<void>;
}

export async function makePartitions(deps: Deps): Promise<void> {
  const today = dayOf(deps.now() * 1000);
  for (let day = today; day <= today + PARTITION_DAYS_AHEAD; day += 1) {
    if (!(await makePartition(deps.db, day)))
      deps.log.info({ day }, "usage of this day stays in the default partition");
  }
}

/** Runs the hourly audit if no replica has within the hour, and shows the result of whoever ran the last. */
export async function auditHourly({ db }: Deps, auditor: Auditor): Promise<void> {
  const started = await auditor.startIfDue(false, HOURLY_MS);
  await started?.ended;
  if (started === null) await refreshAuditMetrics(db);
}

async function cleanUp(deps: Deps): Promise<void> {
  const now = deps.now();
  await deps.db.tx((tx) => pruneTombstones(tx, new Date(now - TOMBSTONE_KEEP_MS), DELETE_ROWS_MAX));
  await deleteExpiredAnswers(deps.db, new Date(now - ANSWER_KEEP_MS), DELETE_ROWS_MAX);
  await deleteOldRuns(deps.db, new Date(now - AUDIT_KEEP_MS), DELETE_ROWS_MAX);
  await cleanWebhooks(deps);
}

/**
 * Runs `job` after `firstMs` (0: now) and then every `everyMs`, never twice at a time. A failure is logged, and tried again
 * the next time.
 */
function repeat(
  deps: Deps,
  name: string,
  { firstMs = 0, everyMs }: { readonly firstMs?: number; readonly everyMs: number },
  job: () => Promise<unknown>,
): Maintenance {
  let running: Promise<unknown> | null = null;
  const run = () => {
    running ??= job()
      .catch((error: unknown) => deps.log.error({ job: name, reason: (error as Error).message }, "maintenance failed"))
      .finally(() => {
        running = null;
      });
  };
  let timer: NodeJS.Timeout;
  const begin = () => {
    run();
    timer = setInterval(run, everyMs);
  };
  if (firstMs === 0) begin();
  else timer = setTimeout(begin, firstMs);
  return {
    async close() {
      // Timeouts and intervals are cleared alike.
      clearTimeout(timer);
      await running;
    },
  };
}

/** Starts all jobs; each but the audit runs once at once. Close before the database. */
export function startMaintenance(deps: Deps, auditor: Auditor, more: readonly Job[] = []): Maintenance {
  const jobs = [
    repeat(deps, "lease sweep", { everyMs: SWEEP_EVERY_MS }, () => sweepLeases(deps)),
    repeat(deps, "periods", { everyMs: PERIODS_EVERY_MS }, () => beginPeriods(deps)),
    repeat(deps, "partitions", { everyMs: HOURLY_MS }, () => makePartitions(deps)),
    repeat(deps, "clean-up", { everyMs: HOURLY_MS }, () => cleanUp(deps)),
    repeat(deps, "audit", { firstMs: FIRST_AUDIT_AFTER_MS, everyMs: AUDIT_LOOK_EVERY_MS }, () =>
      auditHourly(deps, auditor),
    ),
    ...more.map(({ name, everyMs, run }) => repeat(deps, name, { everyMs }, run)),
  ];
  return {
    async close() {
      await Promise.all(jobs.map((job) => job.close()));
    },
  };
}
