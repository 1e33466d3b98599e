/**
 * Reports that wait for the database go together: the next transaction takes all that came while the ones before it were
 * under way. Many nodes that spend from the same wallets then do not queue up for its lock one by one. Nobody waits for
 * company: with nothing under way a report goes at once.
 */

import type { Deps } from "../api/context.ts";
import { isUnavailable } from "../db/errors.ts";
import { DomainError } from "../domain/errors.ts";
import { type Applied, applyGroup, applyReport, type Given } from "./ingest.ts";
import { KeyUses } from "./key_uses.ts";

/** Transactions at a time: while one holds the wallets, the next inserts its events. */
export const GROUPS_UNDER_WAY_MAX = 2;
/** Of one transaction. */
export const GROUP_REPORTS_MAX = 32;
export const GROUP_RECORDS_MAX = 8000;
/** Reports beyond these are refused; their nodes send them again. */
export const REPORTS_WAITING_MAX = 10_000;

interface Waiting extends Given {
  readonly resolve: (applied: Applied) => void;
  readonly reject: (error: unknown) => void;
}

export class ReportGroups {
  readonly #deps: Deps;
  readonly #keyUses = new KeyUses();
  #waiting: Waiting[] = [];
  #underWay = 0;

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** As `applyReport`. */
  apply(given: Given): Promise<Applied> {
    if (given.report.seq === 0n) return this.#alone(given);
    if (this.#waiting.length >= REPORTS_WAITING_MAX) {
      throw new DomainError("unavailable", "too many reports are waiting for the database: send it again later");
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ...given, resolve, reject });
      this.#begin();
    });
  }

  #alone({ report, sorted }: Given): Promise<Applied> {
    return applyReport(this.#deps, report, sorted, this.#keyUses);
  }

  /** In the order of their coming; two reports of one boot never together. */
  #take(): Waiting[] {
    const group: Waiting[] = [];
    const left: Waiting[] = [];
    const boots = new Set<string>();
    let records = 0;
    for (const waiting of this.#waiting) {
      const { bootId, records: own } = waiting.report;
      const fits =
        group.length < GROUP_REPORTS_MAX && (group.length === 0 || records + own.length <= GROUP_RECORDS_MAX);
      if (!fits || boots.has(bootId)) left.push(waiting);
      else {
        group.push(waiting);
        records += own.length;
      }
      // What comes after a report of its boot must not overtake it.
      boots.add(bootId);
    }
    this.#waiting = left;
    return group;
  }

  #begin(): void {
    while (this.#underWay < GROUPS_UNDER_WAY_MAX && this.#waiting.length > 0) {
      const group = this.#take();
      this.#underWay += 1;
      void this.#run(group).finally(() => {
        this.#underWay -= 1;
        this.#begin();
      });
    }
  }

  /** Never rejects. */
  async #run(group: readonly Waiting[]): Promise<void> {
    let answers: (Applied | null)[] = group.map(() => null);
    try {
      if (group.length > 1) answers = await applyGroup(this.#deps, group, this.#keyUses);
    } catch (error) {
      if (isUnavailable(error)) {
        for (const { reject } of group) reject(error);
        return;
      }
      // One of them may be what failed: each alone, the others go on.
      this.#deps.log.warn({ err: error, reports: group.length }, "a group of reports failed; each is tried alone");
    }
    await Promise.all(
      group.map(async (waiting, i) => {
        try {
          waiting.resolve(answers[i] ?? (await this.#alone(waiting)));
        } catch (error) {
          waiting.reject(error);
        }
      }),
    );
  }
}
