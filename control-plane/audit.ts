/** Checks the invariants of all wallets, a page at a time. */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Database } from "./db/database.ts";
import { type AuditBreak, auditWallet } from "./domain/audit.ts";
import { duplicateReferences, readEvidence } from "./store/audit.ts";

const PAGE_WALLETS = 500;
/** After this many broken invariants there is no need to look for more. */
export const BREAKS_MAX = 1000;

/**
 * What is broken; empty when everything agrees. `deep` also adds up every usage event and looks for repeated references:
 * for tests and for a person in doubt.
 */
export async function audit(db: Database, { deep }: { readonly deep: boolean }): Promise<AuditBreak[]> {
  const breaks: AuditBreak[] = [];
  let after = "";
  for (;;) {
    const page = await readEvidence(db, after, PAGE_WALLETS, deep);
    for (const evidence of page) breaks.push(...auditWallet(evidence));
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE_WALLETS || breaks.length >= BREAKS_MAX) break;
    after = last.veId;
    // The embedded database answers within a turn of the event loop: calls must get theirs in between.
    await nextTurn();
  }
  if (!deep) return breaks;
  for (const reference of await duplicateReferences(db, BREAKS_MAX)) {
    breaks.push({ invariant: "references are unique", veId: "", expected: "1", found: reference });
  }
  return breaks;
}
