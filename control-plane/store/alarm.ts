/** Things that must never happen, and did: kept for a person to look at. */

import type { Tx } from "../db/database.ts";
import type { NewAlarm } from "../domain/alarm.ts";

export type { AlarmKind, NewAlarm } from "../domain/alarm.ts";

export async function raiseAlarms(tx: Tx, now: number, alarms: readonly NewAlarm[]): Promise<void> {
  if (alarms.length === 0) return;
  await tx.query(
    `insert into alarm (kind, subject, detail, raised_at)
     select d.kind, d.subject, d.detail::jsonb, $4::timestamptz
     from unnest($1::text[], $2::text[], $3::text[]) as d (kind, subject, detail)`,
    [
      alarms.map((alarm) => alarm.kind),
      alarms.map((alarm) => alarm.subject),
      // PostgreSQL's jsonb has no NUL.
      alarms.map((alarm) => JSON.stringify(alarm.detail).replaceAll("\\u0000", "\\ufffd")),
      new Date(now),
    ],
  );
}
