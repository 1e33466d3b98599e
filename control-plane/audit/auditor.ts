/** Runs audits: one of each depth at a time among all replicas, with its result, alarms and metrics. */

import type { Logger } from "pino";
import { type AuditOptions, type AuditResult, runAudit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { ALL_INVARIANTS, QUICK_INVARIANTS } from "../domain/audit.ts";
import { raiseBreaks, resolveMended } from "../store/audit_alarm.ts";
import { askToStop, beatRun, claimRun, endRun, readRun, readRunning, type RunRow } from "../store/audit_run.ts";
import { refreshAuditMetrics } from "./metrics.ts";

/** Progress is written at most this often. */
const BEAT_EVERY_MS = 1_000;
/** Times to try to begin or to find the run that is under way: it may end in between. */
const TRIES_MAX = 5;

export interface AuditorDeps {
  readonly db: Database;
  now(): number;
  newId(prefix: string): string;
  readonly log: Logger;
}

export interface Started {
  readonly run: RunRow;
  /** Whether it runs in this process. */
  readonly here: boolean;
  /** Resolves when it has ended; at once if another process runs it. Never rejects. */
  readonly ended: Promise<void>;
}

export class Auditor {
  readonly #deps: AuditorDeps;
  readonly #running = new Map<string, Promise<void>>();
  readonly #options: Pick<AuditOptions, "pageRows">;
  #closing = false;

  constructor(deps: AuditorDeps, options: Pick<AuditOptions, "pageRows"> = {}) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Begins an audit unless one of this depth began within `everyMs` and did not fail, on any replica: then null. */
  async startIfDue(deep: boolean, everyMs: number): Promise<Started | null> {
    const run = await claimRun(this.#deps.db, { id: this.#deps.newId("aud_"), deep, unlessWithinMs: everyMs });
    return run === null ? null : this.#begin(run);
  }

  /** Begins an audit, or joins the one of this depth that is under way. */
  async start(deep: boolean): Promise<Started> {
    const { db, newId } = this.#deps;
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const run = await claimRun(db, { id: newId("aud_"), deep, unlessWithinMs: 0 });
      if (run !== null) return this.#begin(run);
      const other = await readRunning(db, deep);
      if (other === null) continue;
      const ended = this.#running.get(other.id);
      return { run: other, here: ended !== undefined, ended: ended ?? Promise.resolve() };
    }
    throw new Error("audits begin and end faster than one can be joined");
  }

  #begin(run: RunRow): Started {
    const ended = this.#run(run)
      .catch((error: unknown) => {
        this.#deps.log.error({ audit: run.id, reason: (error as Error).message }, "the audit's result was not written");
      })
      .finally(() => this.#running.delete(run.id));
    this.#running.set(run.id, ended);
    return { run, here: true, ended };
  }

  async #run({ id, deep }: RunRow): Promise<void> {
    const { db } = this.#deps;
    let beatAt = performance.now();
    let failure = "";
    const seen = { wallets: 0, events: 0 };
    const result = await runAudit(db, {
      ...this.#options,
      deep,
      onPage: async (progress) => {
        Object.assign(seen, progress);
        if (this.#closing) return false;
        if (performance.now() - beatAt < BEAT_EVERY_MS) return true;
        beatAt = performance.now();
        return beatRun(db, id, progress);
      },
    }).catch((error: unknown): AuditResult => {
      failure = (error as Error).message;
      return { ...seen, breaks: [], complete: false, stopped: false };
    });
    await this.#end(id, deep, result, failure);
  }

  async #end(id: string, deep: boolean, result: AuditResult, failure: string): Promise<void> {
    const { db, log } = this.#deps;
    const { breaks, wallets, events, complete, stopped } = result;
    if (failure !== "") log.error({ audit: id, reason: failure }, "the audit could not go on");
    // Its text may hold more than a person should see; the log has it.
    const reason = stopped ? "it was stopped" : failure === "" ? "" : "the database failed: see the log";
    const bad = breaks.length > 0 ? "broken" : "clean";
    const state = failure !== "" ? "failed" : stopped ? "stopped" : bad;
    const at = this.#deps.now();
    const { fresh, mended } = await db.tx(async (tx) => {
      const ours = await endRun(tx, id, { state, wallets, events, breaks, reason });
      if (!ours || state === "failed") return { fresh: [], mended: [] };
      const checked = deep ? ALL_INVARIANTS : QUICK_INVARIANTS;
      return {
        fresh: await raiseBreaks(tx, at, breaks),
        mended: complete ? await resolveMended(tx, at, checked, breaks) : [],
      };
    });
    for (const found of fresh) log.error({ ...found, audit: id }, "the audit found a broken invariant");
    for (const whole of mended) log.warn({ ...whole, audit: id }, "the audit found an invariant mended");
    await refreshAuditMetrics(db);
  }

  /** Asks a run to stop, wherever it runs. Null: there is no such run. */
  async stop(id: string): Promise<RunRow | null> {
    const { db } = this.#deps;
    await askToStop(db, id);
    await this.#wait(id, 2 * BEAT_EVERY_MS);
    return readRun(db, id);
  }

  /** Waits for a run of this process, at most `ms`. */
  async #wait(id: string, ms: number): Promise<void> {
    const ended = this.#running.get(id);
    if (ended !== undefined) await endedWithin(ended, ms);
  }

  /** Stops what runs here. Before the database is closed. */
  async close(): Promise<void> {
    this.#closing = true;
    await Promise.all(this.#running.values());
  }
}

/** Resolves when `ended` does, or after `ms`. */
export async function endedWithin(ended: Promise<void>, ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([ended, promise]);
  clearTimeout(timer);
}
