/** Alarms of broken invariants, which last until they are mended; and what people do about alarms of any kind. */

import type { Tx } from "../db/database.ts";
import type { AuditBreak } from "../domain/audit.ts";

function keyOf({ invariant, subject }: AuditBreak): string {
  return `${invariant}\n${subject}`;
}

/**
 * Raises an alarm for each break that has none, and notes of the others that they were seen again. Returns the breaks that
 * are new.
 */
export async function raiseBreaks(tx: Tx, now: number, breaks: readonly AuditBreak[]): Promise<AuditBreak[]> {
  if (breaks.length === 0) return [];
  const byKey = new Map(breaks.map((found) => [keyOf(found), found]));
  const rows = await tx.query<{ key: string; fresh: boolean }>(
    `insert into alarm (kind, subject, detail, key, raised_at, seen_at)
     select 'audit', d.subject, d.detail::jsonb, d.key, $4::timestamptz, $4::timestamptz
     from unnest($1::text[], $2::text[], $3::text[]) as d (key, subject, detail)
     on conflict (kind, key) where key is not null and resolved_at is null do update set seen_at = excluded.seen_at
     returning key, xmax = 0 as fresh`,
    [
      [...byKey.keys()],
      [...byKey.values()].map((found) => found.subject),
      [...byKey.values()].map((found) => JSON.stringify(found)),
      new Date(now),
    ],
  );
  return rows.filter((row) => row.fresh).map((row) => byKey.get(row.key)!);
}

/** Resolves the alarms of these invariants that were not found broken now. Returns what was mended. */
export async function resolveMended(
  tx: Tx,
  now: number,
  checked: readonly string[],
  breaks: readonly AuditBreak[],
): Promise<{ invariant: string; subject: string }[]> {
  return tx.query(
    `update alarm set resolved_at = $1 where kind = 'audit' and resolved_at is null and key is not null
       and split_part(key, chr(10), 1) = any($2::text[]) and key <> all($3::text[])
     returning split_part(key, chr(10), 1) as invariant, subject`,
    [new Date(now), checked, breaks.map(keyOf)],
  );
}

/** Broken invariants now, acknowledged or not, by invariant. */
export async function countBroken(tx: Tx): Promise<{ invariant: string; count: bigint }[]> {
  return tx.query(
    `select split_part(key, chr(10), 1) as invariant, count(*) as count from alarm
     where kind = 'audit' and key is not null and resolved_at is null group by 1`,
  );
}

/** Alarms that nobody has acknowledged and nothing resolved, by kind. */
export async function countOpen(tx: Tx): Promise<{ kind: string; count: bigint }[]> {
  return tx.query(
    "select kind, count(*) as count from alarm where acknowledged_at is null and resolved_at is null group by kind",
  );
}

export interface AlarmRow {
  readonly n: bigint;
  readonly kind: string;
  readonly subject: string;
  readonly detail: Record<string, unknown>;
  readonly raised_at: Date;
  readonly seen_at: Date | null;
  readonly acknowledged_at: Date | null;
  readonly note: string;
  readonly resolved_at: Date | null;
}

const COLUMNS = "n, kind, subject, detail, raised_at, seen_at, acknowledged_at, note, resolved_at";

/** Alarms before row `before` (null: from the newest), newest first. */
export async function listAlarms(tx: Tx, open: boolean, before: bigint | null, limit: number): Promise<AlarmRow[]> {
  const filter = open ? "acknowledged_at is null and resolved_at is null" : "true";
  return tx.query<AlarmRow>(
    `select ${COLUMNS} from alarm where ${filter} and ($1::bigint is null or n < $1) order by n desc limit $2`,
    [before, limit],
  );
}

/** Notes that a person has seen it; the first time stays. Null: there is no such alarm. */
export async function acknowledgeAlarm(tx: Tx, n: bigint, note: string, now: number): Promise<AlarmRow | null> {
  const [row] = await tx.query<AlarmRow>(
    `update alarm set acknowledged_at = coalesce(acknowledged_at, $2), note = $3 where n = $1 returning ${COLUMNS}`,
    [n, new Date(now), note],
  );
  return row ?? null;
}
