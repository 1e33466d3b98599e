/** First answers of creating calls. */

import type { Tx } from "../db/database.ts";

export interface IdempotencyKey {
  /** A merchant's id, or `operator`. */
  readonly owner: string;
  readonly method: string;
  readonly requestId: string;
}

/**
 * Takes a request id for this transaction: true if it was free. A call with the same id that is still running is waited
 * for. An id taken before `expiredBefore` is free again.
 */
export async function takeRequestId(
  tx: Tx,
  key: IdempotencyKey,
  requestDigest: Uint8Array,
  now: Date,
  expiredBefore: Date,
): Promise<boolean> {
  const rows = await tx.query(
    `insert into idempotency (owner, method, request_id, request_digest, created_at) values ($1, $2, $3, $4, $5)
     on conflict (owner, method, request_id) do update
       set request_digest = excluded.request_digest, response = null, created_at = excluded.created_at
       where idempotency.created_at < $6
     returning 1 as one`,
    [key.owner, key.method, key.requestId, requestDigest, now, expiredBefore],
  );
  return rows.length > 0;
}

export interface StoredAnswer {
  request_digest: Uint8Array;
  /** An encrypted envelope. */
  response: Uint8Array;
}

/** The answer under a request id that was not free. */
export async function readAnswer(tx: Tx, key: IdempotencyKey): Promise<StoredAnswer> {
  const [row] = await tx.query<StoredAnswer>(
    "select request_digest, response from idempotency where owner = $1 and method = $2 and request_id = $3",
    [key.owner, key.method, key.requestId],
  );
  return row!;
}

export async function storeAnswer(tx: Tx, key: IdempotencyKey, response: Uint8Array): Promise<void> {
  await tx.query("update idempotency set response = $4 where owner = $1 and method = $2 and request_id = $3", [
    key.owner,
    key.method,
    key.requestId,
    response,
  ]);
}

/** Deletes up to `limit` answers older than `before`; how many went. */
export async function deleteExpiredAnswers(tx: Tx, before: Date, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from idempotency where (owner, method, request_id) in
       (select owner, method, request_id from idempotency where created_at < $1 order by created_at limit $2 for update skip locked)
     returning 1 as one`,
    [before, limit],
  );
  return rows.length;
}
