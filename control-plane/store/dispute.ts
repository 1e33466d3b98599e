/** Disputes of payments, and the freezing of their VEs. The session and the payment are locked before one is written. */

import type { Tx } from "../db/database.ts";

/** Numbers of the column `state`. */
export const DisputeRowState = { open: 1, won: 2, lost: 3 } as const;

export interface DisputeRow {
  id: string;
  session_id: string;
  payment_id: string;
  merchant_id: string;
  account_id: string;
  /** The processor's name for it. */
  reference: string;
  /** 1 open, 2 won, 3 lost. */
  state: number;
  amount_minor: bigint;
  reason: string;
  /** Its VE was not frozen before. */
  froze: boolean;
  taken: string;
  became_debt: string;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, session_id, payment_id, merchant_id, account_id, reference, state, amount_minor, reason, froze, taken, became_debt, created_at, updated_at";

/** By the processor's name for it, in one account alone. Null: there is none. */
export async function findDispute(tx: Tx, accountId: string, reference: string): Promise<DisputeRow | null> {
  const [row] = await tx.query<DisputeRow>(`select ${COLUMNS} from dispute where account_id = $1 and reference = $2`, [
    accountId,
    reference,
  ]);
  return row ?? null;
}

export type NewDispute = Omit<DisputeRow, "created_at" | "updated_at">;

export async function insertDispute(tx: Tx, row: NewDispute, now: Date): Promise<DisputeRow> {
  const [stored] = await tx.query<DisputeRow>(
    `insert into dispute (id, session_id, payment_id, merchant_id, account_id, reference, state, amount_minor, reason, froze,
       taken, became_debt, created_at, updated_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) returning ${COLUMNS}`,
    [
      row.id,
      row.session_id,
      row.payment_id,
      row.merchant_id,
      row.account_id,
      row.reference,
      row.state,
      row.amount_minor,
      row.reason,
      row.froze,
      row.taken,
      row.became_debt,
      now,
    ],
  );
  return stored!;
}

export type DisputeFields = Pick<DisputeRow, "state" | "amount_minor" | "froze" | "taken" | "became_debt">;

export async function updateDispute(
  tx: Tx,
  row: DisputeRow,
  changes: Partial<DisputeFields>,
  now: Date,
): Promise<DisputeRow> {
  const next = { ...row, ...changes };
  const [stored] = await tx.query<DisputeRow>(
    `update dispute set state = $2, amount_minor = $3, froze = $4, taken = $5, became_debt = $6, updated_at = $7
     where id = $1 returning ${COLUMNS}`,
    [row.id, next.state, next.amount_minor, next.froze, next.taken, next.became_debt, now],
  );
  return stored!;
}

/** Open ones of a VE, oldest first. Its row must be locked, for the answer to stay true. */
export async function listOpenDisputes(tx: Tx, veId: string): Promise<DisputeRow[]> {
  const columns = COLUMNS.split(", ").map((column) => `d.${column}`);
  return tx.query<DisputeRow>(
    `select ${columns.join(", ")} from dispute d join payment p on p.id = d.payment_id
     where p.ve_id = $1 and d.state = ${DisputeRowState.open} order by d.created_at, d.id`,
    [veId],
  );
}

/** Lost ones of a payment, oldest first. The session must be locked, for the answer to stay true. */
export async function listLostDisputes(tx: Tx, paymentId: string): Promise<DisputeRow[]> {
  return tx.query<DisputeRow>(
    `select ${COLUMNS} from dispute where payment_id = $1 and state = ${DisputeRowState.lost} order by created_at, id`,
    [paymentId],
  );
}

/** Whether the VE is there still; then it stays there until the end of the transaction. */
export async function keepVe(tx: Tx, veId: string): Promise<boolean> {
  return (await tx.query("select 1 from virtual_endpoint where id = $1 for key share", [veId])).length > 0;
}

/** Locks the VE; whether it is frozen. Null: it was deleted. */
export async function lockFrozen(tx: Tx, veId: string): Promise<boolean | null> {
  const [row] = await tx.query<{ frozen: boolean }>("select frozen from virtual_endpoint where id = $1 for update", [
    veId,
  ]);
  return row?.frozen ?? null;
}
