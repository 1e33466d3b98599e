/** Audits and their results. Times are the database's: replicas may not agree on theirs. */

import type { Database, Tx } from "../db/database.ts";
import type { AuditBreak } from "../domain/audit.ts";

/** A run that showed no life for this long is of a process that died: it may go on for so long unnoticed. */
export const RUN_SILENT_S = 60;
/** Breaks that a run keeps; their number is kept whatever it is. */
export const BREAKS_KEPT_MAX = 100;
/** Any number, as long as nobody else on the server uses it for another thing. */
const AUDIT_LOCK = 7_306_085_146n;

export type RunState = "running" | "clean" | "broken" | "stopped" | "failed";

export interface RunRow {
  readonly n: bigint;
  readonly id: string;
  readonly deep: boolean;
  readonly state: RunState;
  readonly started_at: Date;
  readonly ended_at: Date | null;
  readonly duration_ms: bigint;
  readonly wallets_total: bigint;
  readonly wallets: bigint;
  readonly events: bigint;
  readonly break_count: number;
  readonly breaks: readonly AuditBreak[];
  readonly reason: string;
}

const LIST_COLUMNS = `n, id, deep, state, started_at, ended_at, wallets_total, wallets, events, break_count, reason,
  (1000 * extract(epoch from coalesce(ended_at, clock_timestamp()) - started_at))::bigint as duration_ms`;
const COLUMNS = `${LIST_COLUMNS}, breaks`;

export interface NewRun {
  readonly id: string;
  readonly deep: boolean;
  /** Not if one of this depth began less than this ago and did not fail; 0: in any case. */
  readonly unlessWithinMs: number;
}

/**
 * Begins a run, unless one of its depth is under way or began lately: then null. A run whose process died is ended here,
 * so that another can begin.
 */
export async function claimRun(db: Database, { id, deep, unlessWithinMs }: NewRun): Promise<RunRow | null> {
  return db.tx(async (tx) => {
    // Replicas take turns, so that two that come at once do not both see no run.
    await tx.query("select pg_advisory_xact_lock($1::bigint)", [AUDIT_LOCK]);
    await tx.query(
      `update audit_run set state = 'failed', ended_at = beat_at, reason = 'the process that ran it died'
       where state = 'running' and deep = $1 and beat_at < clock_timestamp() - ${RUN_SILENT_S} * interval '1 second'`,
      [deep],
    );
    const [row] = await tx.query<RunRow>(
      `insert into audit_run (id, deep, state, started_at, beat_at, wallets_total)
       select $1, $2, 'running', clock_timestamp(), clock_timestamp(), (select count(*) from wallet)
       where not exists (select 1 from audit_run where deep = $2 and (state = 'running' or
         state in ('clean', 'broken') and started_at > clock_timestamp() - $3 * interval '1 millisecond'))
       returning ${COLUMNS}`,
      [id, deep, unlessWithinMs],
    );
    return row ?? null;
  });
}

/** Shows that a run lives, and how far it is. False: it was asked to stop, or was taken for dead. */
export async function beatRun(
  tx: Tx,
  id: string,
  { wallets, events }: { readonly wallets: number; readonly events: number },
): Promise<boolean> {
  const [row] = await tx.query<{ stop_asked: boolean }>(
    `update audit_run set beat_at = clock_timestamp(), wallets = $2, events = $3
     where id = $1 and state = 'running' returning stop_asked`,
    [id, BigInt(wallets), BigInt(events)],
  );
  return row !== undefined && !row.stop_asked;
}

export interface RunEnd {
  readonly state: Exclude<RunState, "running">;
  readonly wallets: number;
  readonly events: number;
  readonly breaks: readonly AuditBreak[];
  readonly reason: string;
}

/** Writes the result. False: another replica took the run for dead before. */
export async function endRun(tx: Tx, id: string, end: RunEnd): Promise<boolean> {
  const rows = await tx.query(
    `update audit_run set state = $2, ended_at = clock_timestamp(), beat_at = clock_timestamp(), wallets = $3, events = $4,
       break_count = $5, breaks = $6::jsonb, reason = $7 where id = $1 and state = 'running' returning id`,
    [
      id,
      end.state,
      BigInt(end.wallets),
      BigInt(end.events),
      end.breaks.length,
      JSON.stringify(end.breaks.slice(0, BREAKS_KEPT_MAX)),
      end.reason,
    ],
  );
  return rows.length > 0;
}

/** Asks a run to stop, wherever it runs. */
export async function askToStop(tx: Tx, id: string): Promise<void> {
  await tx.query("update audit_run set stop_asked = true where id = $1 and state = 'running'", [id]);
}

export async function readRun(tx: Tx, id: string): Promise<RunRow | null> {
  const [row] = await tx.query<RunRow>(`select ${COLUMNS} from audit_run where id = $1`, [id]);
  return row ?? null;
}

/** The run of this depth that is under way. */
export async function readRunning(tx: Tx, deep: boolean): Promise<RunRow | null> {
  const [row] = await tx.query<RunRow>(`select ${COLUMNS} from audit_run where deep = $1 and state = 'running'`, [
    deep,
  ]);
  return row ?? null;
}

/** The latest run that ended with a result; null: of any depth. */
export async function readLatest(tx: Tx, deep: boolean | null): Promise<RunRow | null> {
  const [row] = await tx.query<RunRow>(
    `select ${COLUMNS} from audit_run where state in ('clean', 'broken') and ($1::boolean is null or deep = $1)
     order by n desc limit 1`,
    [deep],
  );
  return row ?? null;
}

/** Runs before row `before` (null: from the newest), newest first, without their breaks. */
export async function listRuns(tx: Tx, before: bigint | null, limit: number): Promise<RunRow[]> {
  return tx.query<RunRow>(
    `select ${LIST_COLUMNS}, '[]'::jsonb as breaks from audit_run where $1::bigint is null or n < $1 order by n desc limit $2`,
    [before, limit],
  );
}

export async function deleteOldRuns(tx: Tx, before: Date, limit: number): Promise<void> {
  await tx.query(
    `delete from audit_run where n in (select n from audit_run where started_at < $1 and state <> 'running' order by n limit $2)`,
    [before, limit],
  );
}
