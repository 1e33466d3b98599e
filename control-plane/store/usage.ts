/** Usage as it comes in: events, daily sums, key use, quarantine. Each is one statement, however many records there are. */

import { formatCredits } from "../../core/credits.ts";
import { METER_SLOTS } from "../../core/meters.ts";
import { dictionary, lines, numberLines, textLines } from "../db/columns.ts";
import type { Tx } from "../db/database.ts";
import type { DailyUsage, PricedUsage, Quarantined } from "../domain/report.ts";
import type { VeTerms } from "../domain/report_plan.ts";

/** A key's last use is written at most this often. */
export const KEY_USE_INTERVAL_S = 60;

export interface EventOrigin {
  readonly bootId: string;
  readonly nodeId: string;
}

/** The events of one report. */
export interface NewEvents extends EventOrigin {
  /** Transfer by VE; a VE whose usage cost nothing is not in it. */
  readonly transfers: ReadonlyMap<string, string>;
  readonly priced: readonly PricedUsage[];
}

/** Inserts the events of several reports. */
export async function insertEvents(tx: Tx, reports: readonly NewEvents[]): Promise<void> {
  const priced = reports.flatMap((report) => report.priced);
  if (priced.length === 0) return;
  let places = "";
  let transfers = "";
  for (const [index, report] of reports.entries()) {
    places += `${index + 1}\n`.repeat(report.priced.length);
    transfers += textLines(report.priced, (usage) => report.transfers.get(usage.veId) ?? "");
  }
  const models = dictionary(priced, (usage) => usage.logicalModel);
  let end = 1;
  const starts = numberLines(priced, (usage) => (end += usage.body.byteLength) - usage.body.byteLength);
  await tx.query(
    `insert into usage_event (arrive_us, id, merchant_id, ve_id, access_key_id, logical_model, physical_model_id, credits,
       boot_id, record_no, node_id, transfer_id, body)
     select t, i, m, v, k, ($3::text[])[l], p, c, ($1::text[])[o], r, ($2::text[])[o], case when c = 0 then '' else f end,
       substr($4::bytea, s, z)
     from unnest(${lines(5, "bigint")}, ${lines(6)}, ${lines(7)}, ${lines(8)}, ${lines(9)}, ${lines(10, "int")}, ${lines(11)},
       ${lines(12, "numeric")}, ${lines(13, "bigint")}, ${lines(14)}, ${lines(15, "int")}, ${lines(16, "int")}, ${lines(17, "int")})
       as d (t, i, m, v, k, l, p, c, r, f, s, z, o) where t is not null`,
    [
      reports.map((report) => report.bootId),
      reports.map((report) => report.nodeId),
      models.texts,
      Buffer.concat(priced.map((usage) => usage.body)),
      numberLines(priced, (usage) => usage.arriveUs),
      textLines(priced, (usage) => usage.id),
      textLines(priced, (usage) => usage.merchantId),
      textLines(priced, (usage) => usage.veId),
      textLines(priced, (usage) => usage.accessKeyId),
      numberLines(priced, models.placeOf),
      textLines(priced, (usage) => usage.physicalModelId),
      numberLines(priced, (usage) => formatCredits(usage.credits)),
      numberLines(priced, (usage) => usage.recordNo),
      transfers,
      starts,
      numberLines(priced, (usage) => usage.body.byteLength),
      places.trimEnd(),
    ],
  );
}

const METERS = Array.from({ length: METER_SLOTS - 1 }, (_, index) => index + 1);
const UNIT_COLUMNS = METERS.map((meter) => `units_${meter}`).join(", ");
/** Parameters 11 and on; null when no row has anything of the meter. */
const UNIT_LINES = METERS.map((meter) => lines(10 + meter, "numeric")).join(", ");
const UNIT_VALUES = METERS.map((meter) => `coalesce(units_${meter}, 0)`).join(", ");
const UNIT_SUMS = METERS.map((meter) => `units_${meter} = usage_daily.units_${meter} + excluded.units_${meter}`).join(
  ", ",
);

/** Adds to the daily sums. The wallets of the rows' VEs are locked, so no two reports touch one row at once. */
export async function addDaily(tx: Tx, rows: readonly DailyUsage[]): Promise<void> {
  if (rows.length === 0) return;
  const models = dictionary(rows, (row) => row.logicalModel);
  const units = METERS.map((meter) =>
    rows.some((row) => row.units[meter] !== 0n) ? numberLines(rows, (row) => row.units[meter]!) : null,
  );
  await tx.query(
    `insert into usage_daily (merchant_id, ve_id, day, logical_model, physical_model_id, access_key_id, requests,
       estimated_requests, credits, ${UNIT_COLUMNS})
     select m, v, date '1970-01-01' + d, ($1::text[])[l], p, k, r, e, c, ${UNIT_VALUES}
     from unnest(${lines(2)}, ${lines(3)}, ${lines(4, "int")}, ${lines(5, "int")}, ${lines(6)}, ${lines(7)},
       ${lines(8, "bigint")}, ${lines(9, "bigint")}, ${lines(10, "numeric")}, ${UNIT_LINES})
       as u (m, v, d, l, p, k, r, e, c, ${UNIT_COLUMNS}) where d is not null
     on conflict (ve_id, day, logical_model, physical_model_id, access_key_id) do update
       set requests = usage_daily.requests + excluded.requests,
         estimated_requests = usage_daily.estimated_requests + excluded.estimated_requests,
         credits = usage_daily.credits + excluded.credits, ${UNIT_SUMS}`,
    [
      models.texts,
      textLines(rows, (row) => row.merchantId),
      textLines(rows, (row) => row.veId),
      numberLines(rows, (row) => row.day),
      numberLines(rows, models.placeOf),
      textLines(rows, (row) => row.physicalModelId),
      textLines(rows, (row) => row.accessKeyId),
      numberLines(rows, (row) => row.requests),
      numberLines(rows, (row) => row.estimatedRequests),
      numberLines(rows, (row) => formatCredits(row.credits)),
      ...units,
    ],
  );
}

/** Notes when keys were last used; a key of another VE than the one it was used for is left alone. */
export async function touchKeys(
  tx: Tx,
  uses: readonly { keyId: string; veId: string; usedUs: number }[],
): Promise<void> {
  if (uses.length === 0) return;
  await tx.query(
    `update access_key k set last_used_at = d.used_at
     from (select key_id, ve_id, timestamptz '1970-01-01 00:00:00Z' + used_us * interval '1 microsecond' as used_at
       from unnest(${lines(1)}, ${lines(2)}, ${lines(3, "bigint")}) as u (key_id, ve_id, used_us) where used_us is not null) d
     where k.id = d.key_id and k.ve_id = d.ve_id
       and (k.last_used_at is null or k.last_used_at < d.used_at - ${KEY_USE_INTERVAL_S} * interval '1 second')`,
    [textLines(uses, (use) => use.keyId), textLines(uses, (use) => use.veId), numberLines(uses, (use) => use.usedUs)],
  );
}

/** Keeps records that could not be billed. */
export async function quarantine(
  tx: Tx,
  now: number,
  { bootId, nodeId }: EventOrigin,
  records: readonly Quarantined[],
): Promise<void> {
  if (records.length === 0) return;
  await tx.query(
    `insert into usage_quarantine (boot_id, record_no, node_id, reason, body, received_at)
     select $1, d.record_no, $2, d.reason, d.body, $3::timestamptz
     from unnest($4::bigint[], $5::text[], $6::bytea[]) as d (record_no, reason, body)`,
    [
      bootId,
      nodeId,
      new Date(now),
      records.map((record) => record.recordNo),
      records.map((record) => record.reason),
      records.map((record) => record.body),
    ],
  );
}

/** Immutable facts that records refer to: the merchants of VEs (deleted ones included). */
export async function readMerchants(tx: Tx, veIds: readonly string[]): Promise<Map<string, string>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<{ ve_id: string; merchant_id: string }>(
    "select ve_id, merchant_id from wallet where ve_id = any($1::text[])",
    [veIds],
  );
  return new Map(rows.map((row) => [row.ve_id, row.merchant_id]));
}

export interface PriceBody {
  readonly id: string;
  readonly merchantId: string;
  /** A serialized `tokenbill.v1.Price`. */
  readonly body: Uint8Array;
}

/** Immutable facts that records refer to: prices. */
export async function readPrices(tx: Tx, ids: readonly string[]): Promise<PriceBody[]> {
  if (ids.length === 0) return [];
  const rows = await tx.query<{ id: string; merchant_id: string; body: Uint8Array }>(
    "select id, merchant_id, body from price where id = any($1::text[])",
    [ids],
  );
  return rows.map((row) => ({ id: row.id, merchantId: row.merchant_id, body: row.body }));
}

/** What grants depend on; deleted VEs are missing from the map. */
export async function readVeTerms(tx: Tx, veIds: readonly string[]): Promise<Map<string, VeTerms>> {
  if (veIds.length === 0) return new Map();
  const rows = await tx.query<{ id: string; low_balance: string; open: boolean }>(
    `select v.id, v.low_balance, not (v.disabled or v.frozen or v.template or m.disabled) as open
     from virtual_endpoint v join merchant m on m.id = v.merchant_id where v.id = any($1::text[])`,
    [veIds],
  );
  return new Map(rows.map((row) => [row.id, { lowBalance: row.low_balance, open: row.open }]));
}
