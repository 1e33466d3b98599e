/** Reads usage for people: sums from the daily rollups, and the request log. Always limited to one merchant. */

import { type Credits, parseCredits } from "../../core/credits.ts";
import { METER_SLOTS } from "../../core/meters.ts";
import type { SqlValue, Tx } from "../db/database.ts";

export interface UsageFilter {
  readonly merchantId: string;
  /** Empty: all. The same for the other ids and the name. */
  readonly veId: string;
  readonly logicalModel: string;
  readonly physicalModelId: string;
  readonly accessKeyId: string;
  /** Microseconds since 1970, inclusive; null: no bound. */
  readonly startUs: bigint | null;
  /** Exclusive. */
  readonly endUs: bigint | null;
}

/** Columns of the rollup that sums can be grouped by, in the order rows are sorted by. */
export const SUMMARY_DIMENSIONS = ["ve_id", "logical_model", "physical_model_id", "access_key_id", "day"] as const;
export type SummaryDimension = (typeof SUMMARY_DIMENSIONS)[number];

export interface SummaryRow {
  /** The values of the dimensions that were asked for; a day is YYYY-MM-DD. */
  readonly key: Readonly<Partial<Record<SummaryDimension, string>>>;
  readonly requests: bigint;
  readonly estimatedRequests: bigint;
  readonly credits: Credits;
  /** By meter number; index 0 is not used. */
  readonly units: readonly bigint[];
}

const METERS = Array.from({ length: METER_SLOTS - 1 }, (_, index) => index + 1);
const DAY_US = 86_400_000_000n;

/** Gathers conditions and their parameters. */
class Conditions {
  readonly texts: string[] = [];
  readonly params: SqlValue[] = [];

  param(value: SqlValue): string {
    this.params.push(value);
    return `$${this.params.length}`;
  }

  equal(column: string, value: string): void {
    if (value !== "") this.texts.push(`${column} = ${this.param(value)}`);
  }

  toString(): string {
    return this.texts.join(" and ");
  }
}

function whereIds(filter: UsageFilter): Conditions {
  const where = new Conditions();
  where.equal("merchant_id", filter.merchantId);
  where.equal("ve_id", filter.veId);
  where.equal("logical_model", filter.logicalModel);
  where.equal("physical_model_id", filter.physicalModelId);
  where.equal("access_key_id", filter.accessKeyId);
  return where;
}

function dimensionExpression(dimension: SummaryDimension): string {
  return dimension === "day" ? "day::text" : dimension;
}

/**
 * Sums by `dimensions`, sorted by them; those after the row whose dimension values are `after` (null: from the start).
 * A time bound counts every day it touches.
 */
export async function summarize(
  tx: Tx,
  filter: UsageFilter,
  dimensions: readonly SummaryDimension[],
  after: readonly string[] | null,
  limit: number,
): Promise<SummaryRow[]> {
  const where = whereIds(filter);
  if (filter.startUs !== null)
    where.texts.push(`day >= date '1970-01-01' + ${where.param(filter.startUs / DAY_US)}::int`);
  if (filter.endUs !== null)
    where.texts.push(`day < date '1970-01-01' + ${where.param((filter.endUs + DAY_US - 1n) / DAY_US)}::int`);
  if (after !== null && dimensions.length > 0) {
    const marks = after.map(
      (value, index) => `${where.param(value)}::${dimensions[index] === "day" ? "date" : "text"}`,
    );
    where.texts.push(`(${dimensions.join(", ")}) > (${marks.join(", ")})`);
  }
  const columns = dimensions.map((dimension) => `${dimensionExpression(dimension)} as ${dimension}_key`);
  const sums = METERS.map((meter) => `coalesce(sum(units_${meter}), 0) as units_${meter}`);
  const group = dimensions.length === 0 ? "" : `group by ${dimensions.join(", ")} order by ${dimensions.join(", ")}`;
  const rows = await tx.query<Record<string, string>>(
    `select ${[...columns, ...sums].join(", ")}, coalesce(sum(requests), 0)::text as requests,
       coalesce(sum(estimated_requests), 0)::text as estimated, coalesce(sum(credits), 0) as credits
     from usage_daily where ${where.toString()} ${group} limit ${where.param(limit)}`,
    where.params,
  );
  return rows.map((row) => ({
    key: Object.fromEntries(dimensions.map((dimension) => [dimension, row[`${dimension}_key`]!])),
    requests: BigInt(row["requests"]!),
    estimatedRequests: BigInt(row["estimated"]!),
    credits: parseCredits(row["credits"]!),
    units: [0n, ...METERS.map((meter) => BigInt(row[`units_${meter}`]!))],
  }));
}

/** A place in the request log. */
export interface LogPosition {
  readonly arriveUs: bigint;
  readonly n: bigint;
}

export interface EventRow extends LogPosition {
  readonly id: string;
  readonly credits: Credits;
  readonly nodeId: string;
  readonly transferId: string;
  /** The node's serialized UsageRecord. */
  readonly body: Uint8Array;
}

interface EventColumns {
  arrive_us: bigint;
  n: bigint;
  id: string;
  credits: string;
  node_id: string;
  transfer_id: string;
  body: Uint8Array;
}

const EVENT_COLUMNS = "arrive_us, n, id, credits, node_id, transfer_id, body";

function toEvent(row: EventColumns): EventRow {
  return {
    arriveUs: row.arrive_us,
    n: row.n,
    id: row.id,
    credits: parseCredits(row.credits),
    nodeId: row.node_id,
    transferId: row.transfer_id,
    body: row.body,
  };
}

/** The VE of a key: with it, a search by key runs along the VE's part of the log. Null if the key is not known. */
async function veOfKey(tx: Tx, { merchantId, accessKeyId }: UsageFilter): Promise<string | null> {
  const [row] = await tx.query<{ ve_id: string }>("select ve_id from access_key where id = $1 and merchant_id = $2", [
    accessKeyId,
    merchantId,
  ]);
  return row?.ve_id ?? null;
}

/** Finished requests in order of arrival, after `position` in that order (null: from the end the order starts at). */
export async function readEvents(
  tx: Tx,
  filter: UsageFilter,
  order: "newest first" | "oldest first",
  position: LogPosition | null,
  limit: number,
): Promise<EventRow[]> {
  const narrowed =
    filter.accessKeyId !== "" && filter.veId === "" ? { ...filter, veId: (await veOfKey(tx, filter)) ?? "" } : filter;
  const where = whereIds(narrowed);
  if (filter.startUs !== null) where.texts.push(`arrive_us >= ${where.param(filter.startUs)}`);
  if (filter.endUs !== null) where.texts.push(`arrive_us < ${where.param(filter.endUs)}`);
  const [beyond, direction] = order === "newest first" ? ["<", "desc"] : [">", "asc"];
  if (position !== null) {
    where.texts.push(
      `(arrive_us, n) ${beyond} (${where.param(position.arriveUs)}::bigint, ${where.param(position.n)}::bigint)`,
    );
    // A row comparison alone does not tell the planner which partitions to leave out.
    where.texts.push(`arrive_us ${beyond}= ${where.param(position.arriveUs)}::bigint`);
  }
  const rows = await tx.query<EventColumns>(
    `select ${EVENT_COLUMNS} from usage_event where ${where.toString()}
     order by arrive_us ${direction}, n ${direction} limit ${where.param(limit)}`,
    where.params,
  );
  return rows.map(toEvent);
}

/** One finished request; null if there is none with this id, or it is another merchant's. */
export async function readEvent(tx: Tx, merchantId: string, id: string): Promise<EventRow | null> {
  const [row] = await tx.query<EventColumns>(
    `select ${EVENT_COLUMNS} from usage_event where id = $1 and merchant_id = $2 limit 1`,
    [id, merchantId],
  );
  return row === undefined ? null : toEvent(row);
}

/** Whether a wallet of this merchant exists; also true for the wallet of a deleted VE. */
export async function hasWallet(tx: Tx, merchantId: string, veId: string): Promise<boolean> {
  const rows = await tx.query("select 1 from wallet where ve_id = $1 and merchant_id = $2", [veId, merchantId]);
  return rows.length > 0;
}
