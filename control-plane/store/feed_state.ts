/** The feed's revision counter, tombstones, and the hints that wake watchers. */

import type { Tx } from "../db/database.ts";
import type { LimitKind } from "../domain/limits.ts";

/** Payload: the revision, as text. */
export const CONFIG_CHANNEL = "tokenbill_config";
/** Payload: a WalletHint as JSON. */
export const WALLET_CHANNEL = "tokenbill_wallet";

/** PostgreSQL refuses a notification of 8,000 bytes; with more boots than this the hint goes to all of them. */
const HINT_BOOTS_MAX = 64;

/** `freed`: a lease was given back, for reports on other replicas that wait for it. */
export type WalletHintKind = "topped_up" | "recall" | "freed";

export interface WalletHint {
  /** Empty for a hint about a limit. */
  readonly veId: string;
  /** The limit that it is about, instead of a wallet. */
  readonly limit?: { readonly physicalModelId: string; readonly kind: LimitKind };
  readonly kind: WalletHintKind;
  /** Only these boots are meant; absent: all. */
  readonly boots?: readonly string[];
}

export interface FeedState {
  readonly epoch: string;
  readonly revision: bigint;
  readonly tombstoneFloor: bigint;
}

/**
 * The next revision, for the rows that this transaction is about to write. It locks the counter until commit: call it
 * last, just before those writes. Watchers are woken by the commit.
 */
export async function nextRevision(tx: Tx): Promise<bigint> {
  const [row] = await tx.query<{ revision: bigint }>(
    `with next as (update feed_state set revision = revision + 1 returning revision)
     select revision, pg_notify('${CONFIG_CHANNEL}', revision::text) from next`,
  );
  return row!.revision;
}

/** Leaves a tombstone for each resource that this transaction deletes. */
export async function addTombstones(tx: Tx, revision: bigint, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  await tx.query(
    `insert into tombstone (id, revision) select distinct unnest($1::text[]), $2::bigint
     on conflict (id) do update set revision = excluded.revision, removed_at = excluded.removed_at`,
    [ids, revision],
  );
}

/** Sends a hint about one wallet when the transaction commits. A lost hint does no harm. */
export async function notifyWallet(
  tx: Tx,
  veId: string,
  kind: WalletHintKind,
  nodeBoots?: readonly string[],
): Promise<void> {
  await notifyWallets(tx, [nodeBoots === undefined ? { veId, kind } : { veId, kind, boots: nodeBoots }]);
}

/** Sends several hints in one statement. */
export async function notifyWallets(tx: Tx, hints: readonly WalletHint[]): Promise<void> {
  if (hints.length === 0) return;
  const payloads = hints.map((hint) =>
    JSON.stringify(
      hint.boots !== undefined && hint.boots.length <= HINT_BOOTS_MAX ? hint : { ...hint, boots: undefined },
    ),
  );
  await tx.query("select pg_notify($1, payload) from unnest($2::text[]) as payload", [WALLET_CHANNEL, payloads]);
}

export async function readFeedState(tx: Tx): Promise<FeedState> {
  const [row] = await tx.query<{ epoch: string; revision: bigint; tombstone_floor: bigint }>(
    "select epoch, revision, tombstone_floor from feed_state",
  );
  return { epoch: row!.epoch, revision: row!.revision, tombstoneFloor: row!.tombstone_floor };
}

/** Deletes tombstones removed before `before`, and raises the floor in the same transaction. Returns how many went. */
export async function pruneTombstones(tx: Tx, before: Date, limit: number): Promise<number> {
  const rows = await tx.query<{ revision: bigint }>(
    `delete from tombstone where id in (select id from tombstone where removed_at < $1 order by removed_at limit $2)
     returning revision`,
    [before, limit],
  );
  if (rows.length === 0) return 0;
  const floor = rows.reduce((max, { revision }) => (revision > max ? revision : max), 0n);
  await tx.query("update feed_state set tombstone_floor = greatest(tombstone_floor, $1::bigint)", [floor]);
  return rows.length;
}
