/** Checks the invariants of the money, page by page: it never holds a long transaction, and locks nothing. */

import { setImmediate as nextTurn } from "node:timers/promises";
import { DEEP_PAGES, PAGE_ROWS, QUICK_PAGES } from "./audit/pages.ts";
import type { Database } from "./db/database.ts";
import type { AuditBreak } from "./domain/audit.ts";

/** After this many broken invariants there is no need to look for more. */
export const BREAKS_MAX = 1000;

export interface AuditProgress {
  wallets: number;
  events: number;
}

export interface AuditOptions {
  /** True: from the first transfer and event on. False: the ledger since the last audit, and the rollups. */
  readonly deep: boolean;
  readonly now?: () => number;
  /** Rows that one page of a deep audit reads. */
  readonly pageRows?: number;
  /** Called after each page; false stops the audit. */
  readonly onPage?: (progress: AuditProgress) => Promise<boolean>;
}

export interface AuditResult extends AuditProgress {
  readonly breaks: readonly AuditBreak[];
  /** False: it was stopped, or gave up after BREAKS_MAX; what is not in `breaks` may be broken too. */
  readonly complete: boolean;
  readonly stopped: boolean;
}

/** Goes through everything. @throws when the database does */
export async function runAudit(db: Database, options: AuditOptions): Promise<AuditResult> {
  const { deep, now = () => performance.now(), pageRows = PAGE_ROWS, onPage } = options;
  const breaks: AuditBreak[] = [];
  const progress: AuditProgress = { wallets: 0, events: 0 };
  for (const part of deep ? DEEP_PAGES : QUICK_PAGES) {
    for await (const page of part({ db, now, pageRows })) {
      breaks.push(...page.breaks);
      progress.wallets += page.wallets;
      progress.events += page.events;
      if (breaks.length >= BREAKS_MAX)
        return { ...progress, breaks: breaks.slice(0, BREAKS_MAX), complete: false, stopped: false };
      if (onPage !== undefined && !(await onPage(progress)))
        return { ...progress, breaks, complete: false, stopped: true };
      // The embedded database answers within a turn of the event loop: calls must get theirs in between.
      await nextTurn();
    }
  }
  return { ...progress, breaks, complete: true, stopped: false };
}

/** What is broken; empty when everything agrees. For tests. */
export async function audit(db: Database, { deep }: { readonly deep: boolean }): Promise<readonly AuditBreak[]> {
  return (await runAudit(db, { deep })).breaks;
}
