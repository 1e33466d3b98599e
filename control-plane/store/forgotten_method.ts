/** Payment methods that processors are still to forget. */

import type { Tx } from "../db/database.ts";

export interface ForgottenMethod {
  readonly n: bigint;
  readonly ve_id: string;
  readonly account_id: string;
  /** As it was sealed in `auto_top_up`. */
  readonly credentials: Uint8Array;
  /** How often the processor was asked before. */
  readonly tries: number;
}

export interface MethodToForget {
  readonly merchantId: string;
  readonly veId: string;
  readonly accountId: string;
  readonly credentials: Uint8Array;
}

export async function addForgottenMethod(tx: Tx, method: MethodToForget, now: Date): Promise<void> {
  await tx.query(
    "insert into forgotten_method (merchant_id, ve_id, account_id, credentials, try_at) values ($1, $2, $3, $4, $5)",
    [method.merchantId, method.veId, method.accountId, method.credentials, now],
  );
}

/** Takes those that are due, so that nobody else does until `again`. */
export async function claimForgottenMethods(tx: Tx, now: Date, again: Date, limit: number): Promise<ForgottenMethod[]> {
  return tx.query<ForgottenMethod>(
    `update forgotten_method f set try_at = $2, tries = tries + 1 from (select n from forgotten_method
       where try_at <= $1 order by try_at, n limit $3 for update skip locked) as due
     where f.n = due.n returning f.n, f.ve_id, f.account_id, f.credentials, f.tries - 1 as tries`,
    [now, again, limit],
  );
}

export async function dropForgottenMethod(tx: Tx, n: bigint): Promise<void> {
  await tx.query("delete from forgotten_method where n = $1", [n]);
}
