/**
 * PURE. What records that the ledger has not confirmed used of limits, by record number: so much of the leases of these
 * limits is spent until then. The record itself says the same, but not which limits its Physical Model had.
 */

import type { Credits } from "../../core/credits.ts";
import type { LimitUse } from "./journal.ts";

/** Entries beyond which those of one account are put together. */
export const LIMIT_USES_MAX = 100_000;
/** Records whose entries of one account become one, at first; doubled until they are few enough. */
const SPAN_RECORDS = 1_000;

interface Entry {
  /** Confirmed with this record: the last of those it stands for. */
  readonly recordNo: number;
  readonly account: string;
  readonly amount: Credits;
}

export class LimitUses {
  /** In the order of their record numbers. */
  #entries: Entry[] = [];
  readonly #max: number;
  #mergeAt: number;
  /** A report with the records up to this one was cut: their entries stay as they are. */
  #cutNo = 0;

  constructor(max = LIMIT_USES_MAX) {
    this.#max = max;
    this.#mergeAt = max;
  }

  get size(): number {
    return this.#entries.length;
  }

  push(recordNo: number, uses: readonly LimitUse[]): void {
    for (const { account, amount } of uses) if (amount > 0n) this.#entries.push({ recordNo, account, amount });
    if (this.#entries.length > this.#mergeAt) this.#mergeAll(recordNo);
  }

  /** Adds up what the records up to `recordNo`, which are about to be reported, used of each limit. */
  addTo(spent: Map<string, Credits>, recordNo: number): void {
    this.#cutNo = Math.max(this.#cutNo, recordNo);
    for (const entry of this.#entries) {
      if (entry.recordNo > recordNo) return;
      spent.set(entry.account, (spent.get(entry.account) ?? 0n) + entry.amount);
    }
  }

  dropUpTo(recordNo: number): void {
    const first = this.#entries.findIndex((entry) => entry.recordNo > recordNo);
    if (first !== 0) this.#entries = first < 0 ? [] : this.#entries.slice(first);
  }

  #mergeAll(lastNo: number): void {
    for (let span = SPAN_RECORDS; ; span *= 2) {
      this.#merge(span);
      if (this.#entries.length * 2 <= this.#max || span > lastNo) break;
    }
    // Where there are very many limits, one entry for each is as few as there can be.
    this.#mergeAt = Math.max(this.#max, this.#entries.length * 2);
  }

  /** Entries of one account and of records near each other become one, which is confirmed late rather than early. */
  #merge(span: number): void {
    const kept = this.#entries.filter((entry) => entry.recordNo <= this.#cutNo);
    const merged = new Map<string, Entry>();
    for (const entry of this.#entries.slice(kept.length)) {
      const key = `${Math.floor(entry.recordNo / span)} ${entry.account}`;
      const same = merged.get(key);
      merged.set(key, same === undefined ? entry : { ...entry, amount: same.amount + entry.amount });
    }
    this.#entries = [...kept, ...[...merged.values()].sort((a, b) => a.recordNo - b.recordNo)];
  }
}
