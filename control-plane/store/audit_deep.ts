/** What only a deep audit reads: usage events, the records of each boot, and what each transfer refers to. */

import { parseCredits } from "../../core/credits.ts";
import type { Tx } from "../db/database.ts";
import { PROCESSOR_WORDS } from "../domain/fulfilment.ts";
import { PaymentState, RefundState } from "../domain/checkout.ts";
import { DisputeRowState } from "./dispute.ts";

/** A boot, how many records it had reported, and which of them were set aside. */
export interface BootCursor {
  readonly last: bigint;
  readonly quarantined: bigint;
  readonly quarantinedNumbers: bigint;
}

/**
 * All boots at one moment. A report moves its boot's cursor in the transaction that stores its records, so events up to
 * a cursor that was read are complete and never change: this is what makes pages of a moving table add up.
 */
export async function readBootCursors(tx: Tx): Promise<Map<string, BootCursor>> {
  const rows = await tx.query<{ boot_id: string; last: bigint; count: bigint; numbers: string }>(
    `select b.boot_id, b.last_record_no as last, count(q.record_no) as count, coalesce(sum(q.record_no), 0) as numbers
     from node_boot b left join usage_quarantine q on q.boot_id = b.boot_id
     group by b.boot_id, b.last_record_no`,
  );
  return new Map(
    rows.map((row) => [
      row.boot_id,
      { last: row.last, quarantined: row.count, quarantinedNumbers: BigInt(row.numbers) },
    ]),
  );
}

/** Events of one VE and one boot. */
export interface EventSums {
  readonly veId: string;
  readonly bootId: string;
  readonly credits: bigint;
  readonly events: bigint;
  /** Events beyond the first of one record. */
  readonly duplicates: bigint;
  readonly lastNo: bigint;
  /** Sum of the record numbers. */
  readonly numbers: bigint;
}

/** A stretch of one VE's events in the order of their arrival. */
export interface EventSpan {
  /** Not in it. */
  readonly after: EventPosition;
  /** In it; null: to the end. */
  readonly upTo: EventPosition | null;
}

export interface EventPosition {
  readonly arriveUs: bigint;
  readonly n: bigint;
}

export const EVENTS_BEGIN: EventPosition = { arriveUs: -1n, n: 0n };

interface EventColumns {
  ve_id: string;
  boot_id: string;
  credits: string;
  events: bigint;
  duplicates: bigint;
  last_no: bigint;
  numbers: string;
}

const INT64_MAX = 9_223_372_036_854_775_807n;
const POSITION_MAX: EventPosition = { arriveUs: INT64_MAX, n: INT64_MAX };

/** Sums of the events of these VEs; with `caps` only those of the boots in it, up to a record number each. */
export async function sumEvents(
  tx: Tx,
  veIds: readonly string[],
  span: EventSpan | null,
  caps: ReadonlyMap<string, bigint> | null,
): Promise<EventSums[]> {
  const params: (readonly (string | bigint)[] | bigint)[] = [veIds];
  let where = "e.ve_id = any($1::text[])";
  if (span !== null) {
    const upTo = span.upTo ?? POSITION_MAX;
    params.push(span.after.arriveUs, span.after.n, upTo.arriveUs, upTo.n);
    where += " and (e.arrive_us, e.n) > ($2::bigint, $3::bigint) and (e.arrive_us, e.n) <= ($4::bigint, $5::bigint)";
  }
  let capped = "";
  if (caps !== null) {
    params.push([...caps.keys()], [...caps.values()]);
    capped = `join unnest($${params.length - 1}::text[], $${params.length}::bigint[]) as c (boot_id, last)
      on c.boot_id = e.boot_id and e.record_no <= c.last`;
  }
  const rows = await tx.query<EventColumns>(
    `select e.ve_id, e.boot_id, sum(e.credits) as credits, count(*) as events,
       count(*) - count(distinct e.record_no) as duplicates, max(e.record_no) as last_no, sum(e.record_no) as numbers
     from usage_event e ${capped} where ${where} group by e.ve_id, e.boot_id`,
    params,
  );
  return rows.map((row) => ({
    veId: row.ve_id,
    bootId: row.boot_id,
    credits: parseCredits(row.credits),
    events: row.events,
    duplicates: row.duplicates,
    lastNo: row.last_no,
    numbers: BigInt(row.numbers),
  }));
}

/**
 * Where a page of about `limit` events of a VE ends; null when there are fewer. Events of one microsecond stay together, so
 * that two of one record, which arrived at the same time, are seen in one page.
 */
export async function endOfEventPage(
  tx: Tx,
  veId: string,
  after: EventPosition,
  limit: number,
): Promise<EventPosition | null> {
  const [row] = await tx.query<{ arrive_us: bigint }>(
    `select arrive_us from usage_event where ve_id = $1 and (arrive_us, n) > ($2::bigint, $3::bigint)
     order by arrive_us, n offset $4 limit 1`,
    [veId, after.arriveUs, after.n, limit - 1],
  );
  return row === undefined ? null : { arriveUs: row.arrive_us, n: INT64_MAX };
}

/** Use transfers of these VEs that are not the sum of the events that name them. */
export async function transfersWithoutEvents(
  tx: Tx,
  veIds: readonly string[],
  limit: number,
): Promise<{ reference: string; credits: string; events: string }[]> {
  return tx.query(
    `select t.reference, t.credits::text, coalesce(e.credits, 0)::text as events
     from transfer t left join (select transfer_id, sum(credits) as credits from usage_event
       where ve_id = any($1::text[]) group by transfer_id) e on e.transfer_id = t.id
     where t.ve_id = any($1::text[]) and t.credit_account = 'usage' and e.credits is distinct from t.credits
     order by t.n limit $2`,
    [veIds, limit],
  );
}

/** A reference of the form `<kind>:<boot>:<seq>:<ve>`, whose boot has reported that far. */
const BY_REPORT = `exists (select 1 from regexp_match(left(t.reference, -1 - length(t.ve_id)), '^[a-z]+:(.+):([0-9]{1,18})$') as m
  join node_boot b on b.boot_id = m[1] and b.last_seq >= m[2]::bigint where right(t.reference, length(t.ve_id) + 1) = ':' || t.ve_id)`;
/** The ledger's name for the money of a payment `p`, as domain/fulfilment.ts makes it. */
const PAY_REFERENCE = `'pay:' || case p.processor ${Object.entries(PROCESSOR_WORDS)
  .map(([number, word]) => `when ${number} then '${word}'`)
  .join(" ")} end || ':' || p.account_id || ':' || p.settled_reference`;
/** A refund or lost dispute `c` of this VE that the reference names. */
const TAKEN_BY = (table: "refund" | "dispute", holds: string): string =>
  `exists (select 1 from ${table} c join payment p on p.id = c.payment_id and p.ve_id = t.ve_id
     where c.id = split_part(t.reference, ':', 2) and (${holds}))`;
const MOVES = (debit: string, credit: string): string =>
  `t.debit_account = '${debit}' and t.credit_account = '${credit}'`;

/** What leaves with the money, or became debt because it was spent. */
const TAKES = (kind: string): string =>
  `(t.reference = '${kind}:' || c.id and ${MOVES("wallet", "payment")} and c.taken = t.credits)
   or (t.reference = '${kind}:' || c.id || ':debt' and ${MOVES("debt", "wallet")} and c.became_debt = t.credits)`;

/** All that a lost dispute took: at once, and of refunds that failed afterwards (`dispute:<id>:<refund>`). */
const TOOK_IN_ALL = (debit: string, credit: string): string =>
  `(select sum(t.credits) from transfer t where t.ve_id = p.ve_id and ${MOVES(debit, credit)}
     and (t.reference = 'dispute:' || c.id or starts_with(t.reference, 'dispute:' || c.id || ':')))`;

/**
 * What each kind of reference must look like. A new kind of transfer gets its line here; a reference of no known kind is
 * a transfer without a cause.
 */
const CAUSES: Readonly<Record<string, string>> = {
  adj: `t.reference = 'adj:' || t.id and ((${MOVES("adjustment", "wallet")}) or (${MOVES("wallet", "adjustment")}))`,
  // A budget that was filled up at the start of a period.
  reset: `starts_with(t.reference, 'reset:' || t.ve_id || ':') and ${MOVES("adjustment", "wallet")}`,
  use: `${MOVES("wallet", "usage")} and ${BY_REPORT}`,
  debt: `${MOVES("debt", "wallet")} and ${BY_REPORT}`,
  pay: `${MOVES("payment", "wallet")} and exists (select 1 from payment p where p.ve_id = t.ve_id and p.transfer_id = t.id
    and p.state = ${PaymentState.FULFILLED} and t.reference = ${PAY_REFERENCE})`,
  refund: TAKEN_BY("refund", TAKES("refund")),
  refund_back: `${MOVES("payment", "wallet")} and t.reference = 'refund_back:' || split_part(t.reference, ':', 2)
    and ${TAKEN_BY("refund", `c.state = ${RefundState.FAILED} and c.taken = t.credits`)}`,
  dispute: TAKEN_BY(
    "dispute",
    `c.state = ${DisputeRowState.lost} and ((${MOVES("wallet", "payment")} and c.taken = ${TOOK_IN_ALL("wallet", "payment")})
       or (${MOVES("debt", "wallet")} and c.became_debt = ${TOOK_IN_ALL("debt", "wallet")}))`,
  ),
  // By whatever made Credits available: a report, a top-up, a lease that was taken back.
  repay: MOVES("wallet", "debt"),
};

/** References of these VEs' transfers from number `after` to `upTo` that do not fit their transfer. */
export async function transfersWithoutCause(
  tx: Tx,
  veIds: readonly string[],
  { after, upTo }: { readonly after: bigint; readonly upTo: bigint },
  limit: number,
): Promise<string[]> {
  const cases = Object.entries(CAUSES).map(([kind, holds]) => `when '${kind}' then ${holds}`);
  const rows = await tx.query<{ reference: string }>(
    `select t.reference from transfer t where t.ve_id = any($1::text[]) and t.n > $2 and t.n <= $3
       and not (case split_part(t.reference, ':', 1) ${cases.join(" ")} else false end)
     order by t.n limit $4`,
    [veIds, after, upTo, limit],
  );
  return rows.map((row) => row.reference);
}

/** References that occur more than once, among the `limit` after `after`; the ledger's index should make that impossible. */
export async function duplicateReferences(
  tx: Tx,
  after: string,
  limit: number,
): Promise<{ duplicates: string[]; last: string | null }> {
  // The last one is looked up by itself: its other half may be on the next page, which begins behind it.
  const [row] = await tx.query<{ duplicates: string[]; last: string | null }>(
    `with page as materialized (select reference from transfer where reference > $1 order by reference limit $2),
       last as (select max(reference) as reference from page)
     select (select reference from last) as last, array(
       select reference from page group by reference having count(*) > 1
       union select t.reference from transfer t join last on t.reference = last.reference
       group by t.reference having count(*) > 1) as duplicates`,
    [after, limit],
  );
  return row!;
}

/**
 * Payments of these VEs that are not what the ledger says: FULFILLED without exactly their transfer, a transfer without
 * that, or other Credits taken back than by their refunds and disputes.
 */
export async function paymentsUnlikeLedger(
  tx: Tx,
  veIds: readonly string[],
  limit: number,
): Promise<{ id: string; expected: string; found: string }[]> {
  return tx.query(
    `select p.id,
       case when p.state = ${PaymentState.FULFILLED} then (p.credits + p.bonus)::text else '0' end || ' granted, ' || b.taken || ' taken' as expected,
       coalesce(t.credits, 0) || ' granted, ' || p.taken || ' taken' as found
     from payment p left join transfer t on t.reference = ${PAY_REFERENCE},
       lateral (select coalesce((select sum(r.taken) from refund r where r.payment_id = p.id and r.state <> ${RefundState.FAILED}), 0)
         + coalesce((select sum(d.taken) from dispute d where d.payment_id = p.id and d.state = ${DisputeRowState.lost}), 0) as taken) b
     where p.ve_id = any($1::text[]) and not (p.taken = b.taken and case when p.state = ${PaymentState.FULFILLED}
       then t.id is not distinct from p.transfer_id and t.credits = p.granted and p.granted = p.credits + p.bonus
       else t.id is null and p.transfer_id is null and p.granted = 0 end is true)
     order by p.n limit $2`,
    [veIds, limit],
  );
}
