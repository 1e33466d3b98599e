/**
 * Reads what the audit compares. Each function is one statement, so that it shows one moment and locks nothing. Transfers
 * of one VE are posted under the lock of its wallet, one after the other: those up to a number that was seen are complete.
 */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { LedgerSums, WalletEvidence } from "../domain/audit.ts";

/** As nodes name them. */
const LIMIT_KINDS: Readonly<Record<number, string>> = { 1: "units", 2: "credits" };
const ACCOUNTS = ["wallet", "usage", "debt", "adjustment", "payment"] as const;
type AccountColumns = Record<(typeof ACCOUNTS)[number], string>;

interface EvidenceColumns extends AccountColumns {
  ve_id: string;
  purchased: string;
  settled: string;
  escrowed: string;
  wallet_debt: string;
  leases: string;
  daily: string;
  daily_requests: bigint;
  paid: string;
  last: bigint;
  fresh: bigint;
}

/** What goes into each account less what leaves it, over the transfers `t`. */
const BALANCES = ACCOUNTS.map(
  (account) =>
    `coalesce(sum(t.credits) filter (where t.credit_account = '${account}'), 0)
     - coalesce(sum(t.credits) filter (where t.debit_account = '${account}'), 0) as ${account}`,
).join(", ");

function toSums(row: AccountColumns): LedgerSums {
  return {
    wallet: parseCredits(row.wallet),
    usage: parseCredits(row.usage),
    debt: parseCredits(row.debt),
    adjustment: parseCredits(row.adjustment),
    payment: parseCredits(row.payment),
  };
}

export async function countWallets(tx: Tx): Promise<number> {
  const [row] = await tx.query<{ count: bigint }>("select count(*) as count from wallet");
  return Number(row!.count);
}

export interface WalletSize {
  readonly veId: string;
  /** Requests by the daily rollups. */
  readonly requests: number;
}

/** Up to `limit` wallets after the VE id `after`, and how much there is to read of each. */
export async function nextWallets(tx: Tx, after: string, limit: number): Promise<WalletSize[]> {
  const rows = await tx.query<{ ve_id: string; requests: string }>(
    `select w.ve_id, coalesce((select sum(d.requests) from usage_daily d where d.ve_id = w.ve_id), 0) as requests
     from (select ve_id from wallet where ve_id > $1 order by ve_id limit $2) w order by w.ve_id`,
    [after, limit],
  );
  return rows.map((row) => ({ veId: row.ve_id, requests: Number(row.requests) }));
}

/** Which transfers are added up: those after the checkpoint and its sums, all of them, or none. */
export type LedgerRange = "checkpoint" | "all" | "none";

const RANGES: Readonly<Record<LedgerRange, string>> = {
  checkpoint: "t.n > coalesce(c.n, 0)",
  all: "true",
  none: "false",
};

export interface Evidence extends WalletEvidence {
  readonly dailyRequests: bigint;
  /** The number of the newest transfer; 0 when there is none. */
  readonly lastTransfer: bigint;
  /** Transfers that were read. */
  readonly transfersRead: number;
}

/** The evidence of these wallets, in the order of their ids. */
export async function readEvidence(tx: Tx, veIds: readonly string[], range: LedgerRange): Promise<Evidence[]> {
  const sums = ACCOUNTS.map((account) => `coalesce(c.${account}, 0) + t.${account} as ${account}`).join(", ");
  const rows = await tx.query<EvidenceColumns>(
    `select w.ve_id, w.purchased, w.settled, w.escrowed, w.debt as wallet_debt,
       coalesce((select sum(l.credits) from lease l where l.ve_id = w.ve_id), 0) as leases,
       coalesce((select sum(p.granted - p.taken) from payment p where p.ve_id = w.ve_id), 0) as paid,
       d.daily, d.daily_requests, ${sums}, t.fresh,
       coalesce((select t.n from transfer t where t.ve_id = w.ve_id order by t.n desc limit 1), 0) as last
     from wallet w
       left join audit_checkpoint c on c.ve_id = w.ve_id and ${range === "checkpoint"},
       lateral (select coalesce(sum(d.credits), 0) as daily, coalesce(sum(d.requests), 0)::bigint as daily_requests
         from usage_daily d where d.ve_id = w.ve_id) d,
       lateral (select ${BALANCES}, count(*) as fresh from transfer t where t.ve_id = w.ve_id and ${RANGES[range]}) t
     where w.ve_id = any($1::text[]) order by w.ve_id`,
    [veIds],
  );
  return rows.map((row) => ({
    veId: row.ve_id,
    wallet: {
      purchased: parseCredits(row.purchased),
      settled: parseCredits(row.settled),
      escrowed: parseCredits(row.escrowed),
      debt: parseCredits(row.wallet_debt),
    },
    leases: parseCredits(row.leases),
    daily: parseCredits(row.daily),
    dailyRequests: row.daily_requests,
    paid: parseCredits(row.paid),
    ledger: toSums(row),
    lastTransfer: row.last,
    transfersRead: Number(row.fresh),
  }));
}

/** Remembers sums that were found right, up to the newest transfer of each VE. */
export async function writeCheckpoints(tx: Tx, evidence: readonly Evidence[]): Promise<void> {
  if (evidence.length === 0) return;
  const column = (pick: (sums: LedgerSums) => bigint) => evidence.map(({ ledger }) => formatCredits(pick(ledger)));
  await tx.query(
    `insert into audit_checkpoint (ve_id, n, wallet, usage, debt, adjustment, payment)
     select * from unnest($1::text[], $2::bigint[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[])
     on conflict (ve_id) do update set n = excluded.n, wallet = excluded.wallet, usage = excluded.usage,
       debt = excluded.debt, adjustment = excluded.adjustment, payment = excluded.payment where audit_checkpoint.n < excluded.n`,
    [
      evidence.map(({ veId }) => veId),
      evidence.map(({ lastTransfer }) => lastTransfer),
      column((sums) => sums.wallet),
      column((sums) => sums.usage),
      column((sums) => sums.debt),
      column((sums) => sums.adjustment),
      column((sums) => sums.payment),
    ],
  );
}

/** Transfers of one VE after number `after` up to `upTo`, `limit` at most: their sums, and where to go on. */
export async function readLedgerPage(
  tx: Tx,
  veId: string,
  after: bigint,
  upTo: bigint,
  limit: number,
): Promise<{ sums: LedgerSums; last: bigint | null }> {
  const [row] = await tx.query<AccountColumns & { last: bigint | null }>(
    `select ${BALANCES}, max(t.n) as last
     from (select * from transfer where ve_id = $1 and n > $2 and n <= $3 order by n limit $4) t`,
    [veId, after, upTo, limit],
  );
  return { sums: toSums(row!), last: row!.last };
}

/** Where VEs are named, and by what; each begins an index. */
const NAMED_BY = { virtual_endpoint: "id", transfer: "ve_id", usage_daily: "ve_id", payment: "ve_id" } as const;
export type NamesVes = keyof typeof NAMED_BY;

/**
 * Among the next `limit` VEs after `after` that this table names: those without a wallet. It goes from VE to VE by the
 * index, however many rows each has.
 */
export async function readWalletless(
  tx: Tx,
  table: NamesVes,
  after: string,
  limit: number,
): Promise<{ veIds: string[]; last: string | null }> {
  const next = (than: string): string =>
    `select min(${NAMED_BY[table]}) from ${table} where ${NAMED_BY[table]} > ${than}`;
  const rows = await tx.query<{ ve_id: string; whole: boolean }>(
    `with recursive ids (ve_id) as ((${next("$1")}) union all
       select (${next("ids.ve_id")}) from ids where ids.ve_id is not null)
     select ids.ve_id, exists (select from wallet w where w.ve_id = ids.ve_id) as whole
     from ids where ids.ve_id is not null limit $2`,
    [after, limit],
  );
  return { veIds: rows.filter(({ whole }) => !whole).map((row) => row.ve_id), last: rows.at(-1)?.ve_id ?? null };
}

/** Limits of Physical Models after the key `after` whose leases do not add up, among the next `limit`. */
export async function readLimitFaults(
  tx: Tx,
  after: { readonly pmId: string; readonly kind: number },
  limit: number,
): Promise<{ faults: { subject: string; expected: string; found: string }[]; last: typeof after | null }> {
  const rows = await tx.query<{ pm_id: string; kind: number; leased: string; leases: string }>(
    `select a.physical_model_id as pm_id, a.kind, a.leased, coalesce((select sum(l.amount) from limit_lease l
       where l.physical_model_id = a.physical_model_id and l.kind = a.kind), 0) as leases
     from limit_account a where (a.physical_model_id, a.kind) > ($1, $2)
     order by a.physical_model_id, a.kind limit $3`,
    [after.pmId, after.kind, limit],
  );
  const faults = rows
    .map((row) => ({
      subject: `${row.pm_id}/${LIMIT_KINDS[row.kind] ?? row.kind}`,
      expected: formatCredits(parseCredits(row.leases)),
      found: formatCredits(parseCredits(row.leased)),
    }))
    .filter(({ expected, found }) => expected !== found);
  const end = rows.at(-1);
  return { faults, last: end === undefined ? null : { pmId: end.pm_id, kind: end.kind } };
}
