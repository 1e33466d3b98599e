/** The pages of an audit: each checks a few wallets, boots or references in one short look at the database. */

import type { Database, Tx } from "../db/database.ts";
import {
  type AuditBreak,
  auditEvents,
  auditRecords,
  auditWallet,
  INVARIANTS,
  type LedgerSums,
} from "../domain/audit.ts";
import {
  type Evidence,
  nextWallets,
  readEvidence,
  readLedgerPage,
  type NamesVes,
  readLimitFaults,
  readWalletless,
  type WalletSize,
  writeCheckpoints,
} from "../store/audit.ts";
import {
  type BootCursor,
  duplicateReferences,
  endOfEventPage,
  type EventPosition,
  EVENTS_BEGIN,
  type EventSpan,
  type EventSums,
  paymentsUnlikeLedger,
  readBootCursors,
  sumEvents,
  transfersWithoutCause,
  transfersWithoutEvents,
} from "../store/audit_deep.ts";

/** Wallets of one page at most, and at first: a page that takes long makes the next one smaller. */
export const PAGE_WALLETS_MAX = 500;
const PAGE_WALLETS_FIRST = 50;
/** A page of a deep audit reads about this many events or transfers. */
export const PAGE_ROWS = 10_000;
const PAGE_SLOW_MS = 500;
const PAGE_FAST_MS = 100;
/** A checkpoint is worth its row after this many transfers. */
const CHECKPOINT_TRANSFERS_MIN = 100;
/** Faults of one kind that a page names. */
const FAULTS_MAX = 100;

export interface Page {
  readonly breaks: readonly AuditBreak[];
  readonly wallets: number;
  readonly events: number;
}

export interface PageOptions {
  readonly db: Database;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
  /** Instead of PAGE_ROWS. */
  readonly pageRows: number;
}

/** Grows and shrinks with the time that pages take. */
class PageSize {
  wallets = PAGE_WALLETS_FIRST;
  adapt(tookMs: number): void {
    if (tookMs > PAGE_SLOW_MS) this.wallets = Math.max(1, this.wallets >> 1);
    else if (tookMs < PAGE_FAST_MS) this.wallets = Math.min(PAGE_WALLETS_MAX, this.wallets * 2);
  }
}

/** What every audit checks. The sums of the ledger go on where the last audit left them. */
export async function* quickWallets({ db, now }: PageOptions): AsyncGenerator<Page> {
  const size = new PageSize();
  for (let after = ""; ;) {
    const start = now();
    const veIds = (await nextWallets(db, after, size.wallets)).map(({ veId }) => veId);
    if (veIds.length === 0) return;
    const page = await readEvidence(db, veIds, "checkpoint");
    const breaks = page.flatMap(auditWallet);
    const broken = new Set(breaks.map(({ subject }) => subject));
    const worth = page.filter((each) => each.transfersRead >= CHECKPOINT_TRANSFERS_MIN && !broken.has(each.veId));
    await writeCheckpoints(db, worth);
    yield { breaks, wallets: page.length, events: 0 };
    after = veIds.at(-1)!;
    size.adapt(now() - start);
  }
}

/** Adds up the records of each boot that a deep audit comes across. */
class RecordTally {
  readonly #cursors: ReadonlyMap<string, BootCursor>;
  readonly #found = new Map<string, { records: bigint; numbers: bigint }>();

  constructor(cursors: ReadonlyMap<string, BootCursor>) {
    this.#cursors = cursors;
  }

  lastOf(bootId: string): bigint {
    return this.#cursors.get(bootId)?.last ?? 0n;
  }

  add(sums: readonly EventSums[]): void {
    for (const { bootId, events, numbers } of sums) {
      const found = this.#found.get(bootId) ?? { records: 0n, numbers: 0n };
      this.#found.set(bootId, { records: found.records + events, numbers: found.numbers + numbers });
    }
  }

  audit(): AuditBreak[] {
    return [...this.#cursors].flatMap(([bootId, { last, quarantined, quarantinedNumbers }]) => {
      const { records, numbers } = this.#found.get(bootId) ?? { records: 0n, numbers: 0n };
      return auditRecords({ bootId, last, records: records + quarantined, numbers: numbers + quarantinedNumbers });
    });
  }
}

/** `sums` without what came after the cursors: boots that went on since are read again, up to them. */
async function capped(
  tx: Tx,
  { veIds, span }: { readonly veIds: readonly string[]; readonly span: EventSpan | null },
  sums: readonly EventSums[],
  lastOf: (bootId: string) => bigint,
): Promise<EventSums[]> {
  const beyond = sums.filter(({ bootId, lastNo }) => lastNo > lastOf(bootId));
  const caps = new Map<string, bigint>();
  for (const { bootId } of beyond) if (lastOf(bootId) > 0n) caps.set(bootId, lastOf(bootId));
  const kept = sums.filter(({ bootId, lastNo }) => lastNo <= lastOf(bootId) && !caps.has(bootId));
  return caps.size === 0 ? kept : [...kept, ...(await sumEvents(tx, veIds, span, caps))];
}

function auditSums(evidence: Evidence, sums: readonly EventSums[]): AuditBreak[] {
  const total = (pick: (each: EventSums) => bigint): bigint => sums.reduce((sum, each) => sum + pick(each), 0n);
  return auditEvents({
    veId: evidence.veId,
    settled: evidence.wallet.settled,
    credits: total((each) => each.credits),
    events: total((each) => each.events),
    dailyRequests: evidence.dailyRequests,
    duplicates: total((each) => each.duplicates),
  });
}

function withoutCause(references: readonly string[]): AuditBreak[] {
  return references.map((subject) => ({
    invariant: INVARIANTS.cause,
    subject,
    expected: "what the reference names",
    found: "nothing like it",
  }));
}

async function unlikeLedger(tx: Tx, veIds: readonly string[]): Promise<AuditBreak[]> {
  const faults = await paymentsUnlikeLedger(tx, veIds, FAULTS_MAX);
  return faults.map(({ id: subject, expected, found }) => ({ invariant: INVARIANTS.paid, subject, expected, found }));
}

/** Several wallets with few events, whole, at one moment. */
function deepSmall(db: Database, veIds: readonly string[], tally: RecordTally): Promise<Page> {
  return db.snapshot(async (tx) => {
    const evidence = await readEvidence(tx, veIds, "all");
    const sums = await sumEvents(tx, veIds, null, null);
    const upTo = evidence.reduce((max, { lastTransfer }) => (lastTransfer > max ? lastTransfer : max), 0n);
    const strays = await transfersWithoutCause(tx, veIds, { after: 0n, upTo }, FAULTS_MAX);
    const unequal = await transfersWithoutEvents(tx, veIds, FAULTS_MAX);
    const unpaid = await unlikeLedger(tx, veIds);
    tally.add(await capped(tx, { veIds, span: null }, sums, (bootId) => tally.lastOf(bootId)));
    const byVe = Map.groupBy(sums, ({ veId }) => veId);
    return {
      breaks: [
        ...evidence.flatMap((each) => [...auditWallet(each), ...auditSums(each, byVe.get(each.veId) ?? [])]),
        ...withoutCause(strays),
        ...unpaid,
        ...unequal.map((each) => ({
          invariant: INVARIANTS.cause,
          subject: each.reference,
          expected: each.events,
          found: each.credits,
        })),
      ],
      wallets: evidence.length,
      events: Number(sums.reduce((sum, each) => sum + each.events, 0n)),
    };
  });
}

function addSums(a: LedgerSums, b: LedgerSums): LedgerSums {
  return {
    wallet: a.wallet + b.wallet,
    usage: a.usage + b.usage,
    debt: a.debt + b.debt,
    adjustment: a.adjustment + b.adjustment,
    payment: a.payment + b.payment,
  };
}

/**
 * One wallet with many events, page by page: what it looked like at one moment, and then what had been posted by that
 * moment, which no longer changes, however long the reading takes.
 */
async function* deepLarge({ db, pageRows }: PageOptions, veId: string, tally: RecordTally): AsyncGenerator<Page> {
  const { evidence, cursors, unpaid } = await db.snapshot(async (tx) => {
    const [row] = await readEvidence(tx, [veId], "none");
    return { evidence: row, cursors: await readBootCursors(tx), unpaid: await unlikeLedger(tx, [veId]) };
  });
  if (evidence === undefined) return;
  let ledger = evidence.ledger;
  for (let after = 0n; ;) {
    const { sums, last } = await readLedgerPage(db, veId, after, evidence.lastTransfer, pageRows);
    if (last === null) break;
    ledger = addSums(ledger, sums);
    const strays = await transfersWithoutCause(db, [veId], { after, upTo: last }, FAULTS_MAX);
    yield { breaks: withoutCause(strays), wallets: 0, events: 0 };
    after = last;
  }
  const events: EventSums[] = [];
  let upTo: EventPosition | null = EVENTS_BEGIN;
  for (let after = EVENTS_BEGIN; upTo !== null; after = upTo ?? after) {
    upTo = await endOfEventPage(db, veId, after, pageRows);
    const what = { veIds: [veId], span: { after, upTo } };
    const sums = await sumEvents(db, what.veIds, what.span, null);
    events.push(...(await capped(db, what, sums, (bootId) => cursors.get(bootId)?.last ?? 0n)));
    tally.add(await capped(db, what, sums, (bootId) => tally.lastOf(bootId)));
    yield { breaks: [], wallets: 0, events: Number(sums.reduce((sum, each) => sum + each.events, 0n)) };
  }
  const sums = [...auditWallet({ ...evidence, ledger }), ...auditSums(evidence, events)];
  yield { breaks: [...sums, ...unpaid], wallets: 1, events: 0 };
}

/** The first wallets that have up to `rows` requests between them; none if the first alone has more. */
function together(sizes: readonly WalletSize[], rows: number): string[] {
  const veIds: string[] = [];
  let sum = 0;
  for (const { veId, requests } of sizes) {
    sum += requests;
    if (sum > rows) break;
    veIds.push(veId);
  }
  return veIds;
}

/** Everything of every wallet from the beginning, and then whether every boot's records were among it. */
export async function* deepWallets(options: PageOptions): AsyncGenerator<Page> {
  const { db, now, pageRows } = options;
  const tally = new RecordTally(await readBootCursors(db));
  const size = new PageSize();
  for (let after = ""; ;) {
    const start = now();
    const sizes = await nextWallets(db, after, size.wallets);
    if (sizes.length === 0) break;
    const small = together(sizes, pageRows);
    if (small.length > 0) {
      yield await deepSmall(db, small, tally);
      after = small.at(-1)!;
      size.adapt(now() - start);
    } else {
      after = sizes[0]!.veId;
      yield* deepLarge(options, after, tally);
    }
  }
  yield { breaks: tally.audit(), wallets: 0, events: 0 };
}

/** Whether any reference of the ledger is there twice. */
export async function* references({ db, pageRows }: PageOptions): AsyncGenerator<Page> {
  for (let after = ""; ;) {
    const { duplicates, last } = await duplicateReferences(db, after, pageRows);
    if (last === null) return;
    const breaks = duplicates.map((subject) => ({
      invariant: INVARIANTS.references,
      subject,
      expected: "1",
      found: "more",
    }));
    yield { breaks, wallets: 0, events: 0 };
    after = last;
  }
}

/** Whether the leases of every limit of a Physical Model add up. */
export async function* limits({ db }: PageOptions): AsyncGenerator<Page> {
  for (let after = { pmId: "", kind: 0 }; ;) {
    const { faults, last } = await readLimitFaults(db, after, PAGE_WALLETS_MAX);
    if (last === null) return;
    yield { breaks: faults.map((fault) => ({ invariant: INVARIANTS.limits, ...fault })), wallets: 0, events: 0 };
    after = last;
  }
}

/** Whether the wallets are all there: what belongs to one that is lost would be looked at by nobody. */
function walletsOf(tables: readonly NamesVes[]) {
  return async function* ({ db }: PageOptions): AsyncGenerator<Page> {
    for (const table of tables) {
      for (let after = ""; ;) {
        const { veIds, last } = await readWalletless(db, table, after, PAGE_WALLETS_MAX);
        if (last === null) break;
        const fault = { invariant: INVARIANTS.wallets, expected: "a wallet", found: "none" };
        yield { breaks: veIds.map((subject) => ({ ...fault, subject })), wallets: 0, events: 0 };
        after = last;
      }
    }
  };
}

/** What an audit goes through. Another kind of account gets its own generator in both lists. */
export const QUICK_PAGES = [quickWallets, limits, walletsOf(["virtual_endpoint"])];
const NAMING_VES = ["virtual_endpoint", "transfer", "usage_daily", "payment"] as const;
export const DEEP_PAGES = [deepWallets, limits, references, walletsOf(NAMING_VES)];
