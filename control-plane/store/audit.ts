/** Reads what the audit compares: each page of wallets in one statement, so that it shows one moment and locks nothing. */

import { parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import type { WalletEvidence } from "../domain/audit.ts";

interface EvidenceColumns {
  ve_id: string;
  purchased: string;
  settled: string;
  escrowed: string;
  debt: string;
  leases: string;
  daily: string;
  events: string | null;
  ledger: string;
  ledger_usage: string;
  ledger_debt: string;
  ledger_purchased: string;
}

function balance(into: string, out: string): string {
  return `coalesce(sum(t.credits) filter (where ${into}), 0) - coalesce(sum(t.credits) filter (where ${out}), 0)`;
}

/**
 * Evidence of up to `limit` wallets after the VE id `after`. `withEvents` also adds the usage events up, which reads
 * every one of them.
 */
export async function readEvidence(
  tx: Tx,
  after: string,
  limit: number,
  withEvents: boolean,
): Promise<WalletEvidence[]> {
  const events = withEvents
    ? "coalesce((select sum(e.credits) from usage_event e where e.ve_id = w.ve_id), 0)"
    : "null::numeric";
  const rows = await tx.query<EvidenceColumns>(
    `select w.ve_id, w.purchased, w.settled, w.escrowed, w.debt,
       coalesce((select sum(l.credits) from lease l where l.ve_id = w.ve_id), 0) as leases,
       coalesce((select sum(d.credits) from usage_daily d where d.ve_id = w.ve_id), 0) as daily,
       ${events} as events, t.*
     from (select * from wallet where ve_id > $1 order by ve_id limit $2) w,
       lateral (select ${balance("t.credit_account = 'wallet'", "t.debit_account = 'wallet'")} as ledger,
         ${balance("t.credit_account = 'usage'", "t.debit_account = 'usage'")} as ledger_usage,
         ${balance("t.debit_account = 'debt'", "t.credit_account = 'debt'")} as ledger_debt,
         ${balance("t.debit_account = 'adjustment'", "t.credit_account = 'adjustment'")} as ledger_purchased
         from transfer t where t.ve_id = w.ve_id) t
     order by w.ve_id`,
    [after, limit],
  );
  return rows.map((row) => ({
    veId: row.ve_id,
    wallet: {
      purchased: parseCredits(row.purchased),
      settled: parseCredits(row.settled),
      escrowed: parseCredits(row.escrowed),
      debt: parseCredits(row.debt),
    },
    leases: parseCredits(row.leases),
    daily: parseCredits(row.daily),
    events: row.events === null ? null : parseCredits(row.events),
    ledger: parseCredits(row.ledger),
    ledgerUsage: parseCredits(row.ledger_usage),
    ledgerDebt: parseCredits(row.ledger_debt),
    ledgerPurchased: parseCredits(row.ledger_purchased),
  }));
}

/** References that occur more than once; the ledger's index should make that impossible. */
export async function duplicateReferences(tx: Tx, limit: number): Promise<string[]> {
  const rows = await tx.query<{ reference: string }>(
    "select reference from transfer group by reference having count(*) > 1 order by reference limit $1",
    [limit],
  );
  return rows.map((row) => row.reference);
}
