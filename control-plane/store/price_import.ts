/** Prices of many Physical Models at once, each in one statement. */

import { lines, numberLines, textLines } from "../db/columns.ts";
import type { Tx } from "../db/database.ts";
import { listPhysicalModels, type NewPrice, type PhysicalModelRow } from "./physical_model.ts";

/** Locks up to `limit` models of the merchant against changes and reads them, oldest first. */
export async function lockAllPhysicalModels(tx: Tx, merchantId: string, limit: number): Promise<PhysicalModelRow[]> {
  const locked = await tx.query<{ id: string }>(
    "select id from physical_model where merchant_id = $1 order by id for no key update",
    [merchantId],
  );
  // Read by another statement, which sees the prices that were set while this one waited, and models that came since.
  const ids = new Set(locked.map((row) => row.id));
  return (await listPhysicalModels(tx, merchantId, "", 0n, limit)).filter((row) => ids.has(row.id));
}

/** Those of `ids` that are Providers of the merchant. */
export async function readProviderIds(tx: Tx, merchantId: string, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await tx.query<{ id: string }>(
    "select id from provider where merchant_id = $1 and id = any($2::text[])",
    [merchantId, ids],
  );
  return new Set(rows.map((row) => row.id));
}

export async function insertPrices(tx: Tx, prices: readonly NewPrice[]): Promise<void> {
  if (prices.length === 0) return;
  await tx.query(
    `insert into price (id, merchant_id, physical_model_id, body, created_at)
     select d.id, d.merchant_id, d.physical_model_id, d.body, $5::timestamptz
     from unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) as d (id, merchant_id, physical_model_id, body)`,
    [
      prices.map((price) => price.id),
      prices.map((price) => price.merchantId),
      prices.map((price) => price.physicalModelId),
      prices.map((price) => price.body),
      prices[0]!.now,
    ],
  );
}

export interface PricedModel {
  readonly id: string;
  readonly priceId: string;
  readonly maxOutputTokens: bigint;
}

/** Writes locked rows as new versions. */
export async function updatePrices(tx: Tx, rows: readonly PricedModel[], revision: bigint, now: Date): Promise<void> {
  if (rows.length === 0) return;
  await tx.query(
    `update physical_model m set price_id = d.price_id, max_output_tokens = d.max_output_tokens, revision = $4,
       updated_at = $5, version = version + 1
     from unnest(${lines(1)}, ${lines(2)}, ${lines(3, "bigint")}) as d (id, price_id, max_output_tokens)
     where m.id = d.id and d.max_output_tokens is not null`,
    [
      textLines(rows, (row) => row.id),
      textLines(rows, (row) => row.priceId),
      numberLines(rows, (row) => row.maxOutputTokens),
      revision,
      now,
    ],
  );
}
