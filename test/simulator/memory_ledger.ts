/**
 * The control plane's stores over maps, for millions of operations: the same decisions (control-plane/domain), the same
 * meaning of a transaction. Every call is one transaction: a call that throws changed nothing. memory_ledger.test.ts
 * compares it with the SQL.
 */

import { type Credits, parseCredits } from "../../core/credits.ts";
import type { CompiledPrice } from "../../core/pricing.ts";
import type { NewAlarm } from "../../control-plane/domain/alarm.ts";
import type { EventEvidence, RecordEvidence, WalletEvidence } from "../../control-plane/domain/audit.ts";
import { DomainError, notFound } from "../../control-plane/domain/errors.ts";
import type { PricedUsage, Quarantined, Sorted } from "../../control-plane/domain/report.ts";
import { type Known, type KnownPrice, rollUp, sortRecords } from "../../control-plane/domain/report.ts";
import { withRecalls } from "../../control-plane/domain/report_group.ts";
import {
  alarmsOf,
  type BootRow,
  type Ground,
  type Lease,
  type LeaseAnswer,
  type LeaseAsk,
  type NewId,
  openReport,
  planAgain,
  planReport,
  planTakeBack,
  presentAnswers,
  presentVes,
  type Report,
  type ReportAnswer,
  scopeOf,
  type VeLeases,
  type VeTerms,
  type Writes,
} from "../../control-plane/domain/report_plan.ts";
import { isLive, isOver, type ServiceClock, tick } from "../../control-plane/domain/service_clock.ts";
import type { Account, NewTransfer } from "../../control-plane/domain/transfer.ts";
import {
  initialTransfer,
  type LockedWallet,
  planAdjustment,
  type ToldWallet,
  type WalletAdjustment,
  type WalletRow,
  WalletState,
  walletState,
} from "../../control-plane/domain/wallet.ts";

export interface MemoryBoot extends BootRow {
  /** The service clock at its last report. */
  readonly lastReportMs: number;
}

interface MemoryLease {
  readonly credits: Credits;
  readonly ttlMs: number;
}

export interface MemoryEvent extends PricedUsage {
  readonly bootId: string;
}

export interface MemoryLedgerOptions {
  readonly newId: NewId;
  /** LEASE_HOLD_S in milliseconds. */
  readonly holdMs: number;
  /** Where the service clock begins, in milliseconds since 1970. */
  readonly startMs: number;
  /** VEs of which Credits became available, when a transaction has committed. */
  readonly onFreed?: (veIds: readonly string[]) => void;
}

export interface NewMemoryWallet {
  readonly veId: string;
  readonly merchantId: string;
  readonly initial: Credits;
  readonly transferId: string;
}

const OPEN: VeTerms = { lowBalance: "0", open: true };

export class MemoryLedger {
  readonly wallets = new Map<string, LockedWallet>();
  readonly terms = new Map<string, VeTerms>();
  readonly boots = new Map<string, MemoryBoot>();
  readonly transfers: NewTransfer[] = [];
  readonly events: MemoryEvent[] = [];
  readonly quarantined: (Quarantined & { readonly bootId: string })[] = [];
  readonly alarms: NewAlarm[] = [];
  /** Credits and requests of the rollups, by VE. */
  readonly daily = new Map<string, { credits: Credits; requests: number }>();
  readonly #merchants = new Map<string, string>();
  readonly #prices = new Map<string, KnownPrice>();
  readonly known: Known = { merchants: this.#merchants, prices: this.#prices };
  /** By VE, then by boot. */
  readonly #leases = new Map<string, Map<string, MemoryLease>>();
  readonly #leasedBy = new Map<string, Set<string>>();
  readonly #references = new Set<string>();
  /** What went into each account less what left it, by VE. */
  readonly #sums = new Map<string, Record<Account, Credits>>();
  readonly #options: MemoryLedgerOptions;
  #clock: ServiceClock;

  constructor(options: MemoryLedgerOptions) {
    this.#options = options;
    this.#clock = { ms: 0, tickedAtMs: options.startMs };
  }

  get serviceMs(): number {
    return this.#clock.ms;
  }

  addPrice(id: string, merchantId: string, price: CompiledPrice): void {
    this.#prices.set(id, { merchantId, price });
  }

  createWallet({ veId, merchantId, initial, transferId }: NewMemoryWallet): void {
    this.wallets.set(veId, {
      merchantId,
      purchased: initial,
      settled: 0n,
      escrowed: 0n,
      debt: 0n,
      told: WalletState.OK,
    });
    this.#merchants.set(veId, merchantId);
    this.terms.set(veId, OPEN);
    if (initial > 0n) this.#post([initialTransfer(veId, merchantId, initial, transferId)]);
  }

  /** Null: the VE is deleted. */
  setTerms(veId: string, terms: VeTerms | null): void {
    if (terms === null) this.terms.delete(veId);
    else this.terms.set(veId, terms);
  }

  /** A report as it comes from the wire. */
  report(report: Report, now: number): ReportAnswer {
    return this.applyReport(report, sortRecords(report.firstRecordNo, report.records, this.known), now);
  }

  applyReport(report: Report, sorted: Sorted, _now: number): ReportAnswer {
    const { bootId, nodeId } = report;
    if (report.seq === 0n) {
      const { lastSeq, lastRecordNo } = this.boots.get(bootId) ?? { lastSeq: 0n, lastRecordNo: 0n };
      return { status: "duplicate", lastSeq, lastRecordNo, leases: this.#present(report), recalls: [] };
    }
    const boot = this.#bootOf(bootId, nodeId);
    const { lastSeq, lastRecordNo } = boot;
    const place = openReport(boot, report);
    if (place === "gap") {
      this.boots.set(bootId, boot);
      return { status: "gap", lastSeq, lastRecordNo, leases: [], recalls: [] };
    }
    if (place === "duplicate") {
      this.boots.set(bootId, { ...boot, lastReportMs: this.#clock.ms });
      return { status: "duplicate", lastSeq, lastRecordNo, leases: this.#present(report), recalls: [] };
    }
    return this.#apply(boot, report, sorted);
  }

  #bootOf(bootId: string, nodeId: string): MemoryBoot {
    const fresh = { nodeId, lastSeq: 0n, lastRecordNo: 0n, closed: false, leasesTaken: false };
    return this.boots.get(bootId) ?? { ...fresh, lastReportMs: this.#clock.ms };
  }

  #apply(boot: MemoryBoot, report: Report, sorted: Sorted): ReportAnswer {
    const { bootId } = report;
    const held = report.final ? [...(this.#leasedBy.get(bootId) ?? [])] : [];
    const scope = scopeOf(report, sorted, held, this.#options.newId);
    const plan = planReport(boot, report, scope, this.#ground(scope.veIds, bootId), this.#options.newId);
    this.#check(plan);
    for (const usage of sorted.priced) this.events.push({ ...usage, bootId });
    for (const { veId, credits, requests } of rollUp(sorted.priced)) {
      const day = this.daily.get(veId) ?? { credits: 0n, requests: 0 };
      this.daily.set(veId, { credits: day.credits + credits, requests: day.requests + requests });
    }
    for (const record of sorted.quarantined) this.quarantined.push({ ...record, bootId });
    this.alarms.push(...alarmsOf(report, sorted), ...plan.alarms);
    this.boots.set(bootId, { ...boot, ...plan.progress, lastReportMs: this.#clock.ms });
    this.#write(bootId, plan);
    return withRecalls(plan, bootId, this.#holders(plan.recalls));
  }

  #holders(veIds: readonly string[]): Map<string, string[]> {
    return new Map(
      veIds.map((veId) => {
        const holding = this.#leasesOf([veId]).filter(({ credits, live }) => live && credits > 0n);
        return [veId, holding.map(({ bootId }) => bootId)];
      }),
    );
  }

  /** As report/ingest.ts: a second grant under a report that was applied. */
  grantAgain(report: Report, ask: LeaseAsk, last: boolean, _now: number): { answer: LeaseAnswer; met: boolean } | null {
    const boot = this.#bootOf(report.bootId, report.nodeId);
    const plan = planAgain(boot, report, ask, last, this.#ground([ask.veId], report.bootId));
    if (plan === null) return null;
    this.#write(report.bootId, plan);
    return { answer: plan.answer, met: plan.met };
  }

  /** Ticks the service clock; the boots of which leases were taken back. */
  sweep(now: number): readonly string[] {
    this.#clock = tick(this.#clock, now);
    const taken: string[] = [];
    for (const [bootId, veIds] of this.#leasedBy) {
      const boot = this.boots.get(bootId)!;
      const over = [...veIds].filter((veId) => {
        const { ttlMs } = this.#leases.get(veId)!.get(bootId)!;
        return isOver(this.#clock.ms, boot.lastReportMs, ttlMs, this.#options.holdMs);
      });
      if (over.length > 0) {
        this.#takeBack(bootId, over);
        taken.push(bootId);
      }
    }
    return taken;
  }

  /**
   * As report/write_off.ts: the boots that were written off.
   * @throws DomainError not_found, not_available
   */
  writeOff(nodeOrBootId: string, now: number): readonly string[] {
    const boots = [...this.boots].filter(([bootId, { nodeId }]) => [bootId, nodeId].includes(nodeOrBootId));
    if (boots.length === 0) throw notFound("node");
    const leasing = boots.filter(([bootId]) => this.#leasedBy.has(bootId));
    const silent = leasing.filter(([, { lastReportMs }]) => !isLive(this.#clock.ms, lastReportMs));
    if (silent.length === 0 && leasing.length > 0) throw new DomainError("not_available", `live at ${now}`);
    for (const [bootId, { nodeId }] of silent) {
      const veIds = [...this.#leasedBy.get(bootId)!];
      this.#takeBack(bootId, veIds);
      this.alarms.push({ kind: "node_written_off", subject: bootId, detail: { nodeId, leases: veIds.length } });
    }
    return silent.map(([bootId]) => bootId).toSorted();
  }

  #takeBack(bootId: string, veIds: readonly string[]): void {
    const held = this.#leasesOf(veIds).filter((lease) => lease.bootId === bootId);
    this.boots.set(bootId, { ...this.boots.get(bootId)!, leasesTaken: true });
    this.#write(bootId, planTakeBack(held, this.wallets, this.#options.newId));
  }

  /** As store/wallet.ts. @throws DomainError not_found, insufficient_credits, limit_reached */
  adjust(adjustment: WalletAdjustment): WalletRow {
    const { veId, credits } = adjustment;
    const row = this.wallets.get(veId);
    if (row === undefined) throw notFound("VE");
    const { wallet, transfers } = planAdjustment(row, adjustment);
    this.#refuseKnown(transfers);
    this.#post(transfers);
    const low = parseCredits(this.terms.get(veId)?.lowBalance ?? "0");
    const told = credits > 0n && walletState(wallet, low) < row.told ? walletState(wallet, low) : row.told;
    this.#setWallet(veId, { ...wallet, told });
    if (credits > 0n) this.#options.onFreed?.([veId]);
    return wallet;
  }

  getWallet(veId: string): WalletRow | undefined {
    return this.wallets.get(veId);
  }

  /** Every lease, in no order. */
  leases(): Lease[] {
    return this.#leasesOf(this.#leases.keys());
  }

  #leasesOf(veIds: Iterable<string>): Lease[] {
    const list: Lease[] = [];
    for (const veId of veIds) {
      for (const [bootId, { credits, ttlMs }] of this.#leases.get(veId) ?? []) {
        const { closed, lastReportMs } = this.boots.get(bootId)!;
        list.push({ veId, bootId, credits, ttlMs, live: !closed && isLive(this.#clock.ms, lastReportMs) });
      }
    }
    return list;
  }

  /** The plans look up what they ask for, so whole maps serve as well as the rows that SQL would lock. */
  #ground(veIds: readonly string[], bootId: string): Ground {
    const leases = new Map<string, VeLeases>();
    for (const veId of veIds) {
      const own = new Map<string, Lease>();
      const others = { boots: 0, credits: 0n };
      for (const lease of this.#leasesOf([veId])) {
        if (lease.bootId === bootId) own.set(bootId, lease);
        else if (lease.live) {
          others.boots += 1;
          others.credits += lease.credits;
        }
      }
      leases.set(veId, { own, others });
    }
    return { wallets: this.wallets, terms: this.terms, leases };
  }

  #present(report: Report): LeaseAnswer[] {
    const veIds = presentVes(report);
    return presentAnswers(report.bootId, veIds, this.wallets, this.#ground(veIds, report.bootId));
  }

  /** What the tables' checks and unique indexes refuse: nothing may be changed before this. */
  #check({ wallets, leases, transfers }: Writes): void {
    this.#refuseKnown(transfers);
    for (const [veId, { purchased, settled, escrowed, debt }] of wallets) {
      const figures = [purchased, settled, escrowed, debt, purchased + debt - settled - escrowed];
      if (figures.some((figure) => figure < 0n)) throw new Error(`the wallet of ${veId} would go below zero`);
    }
    for (const { veId, credits } of leases) if (credits < 0n) throw new Error(`the lease of ${veId} is negative`);
  }

  #refuseKnown(transfers: readonly NewTransfer[]): void {
    for (const { reference, credits } of transfers) {
      if (this.#references.has(reference)) throw new Error(`the transfer ${reference} exists already`);
      if (credits <= 0n) throw new Error(`the transfer ${reference} moves nothing`);
    }
  }

  #setWallet(veId: string, row: ToldWallet): void {
    const { purchased, settled, escrowed, debt, told } = row;
    this.wallets.set(veId, { merchantId: this.#merchants.get(veId)!, purchased, settled, escrowed, debt, told });
  }

  #write(bootId: string, writes: Writes): void {
    this.#check(writes);
    for (const [veId, row] of writes.wallets) this.#setWallet(veId, row);
    for (const { veId, credits, ttlMs } of writes.leases) this.#setLease(veId, bootId, credits, ttlMs);
    for (const veId of writes.ends) this.#endLease(veId, bootId);
    this.#post(writes.transfers);
    if (writes.freed.length > 0) this.#options.onFreed?.(writes.freed);
  }

  #setLease(veId: string, bootId: string, credits: Credits, ttlMs: number): void {
    let leases = this.#leases.get(veId);
    if (leases === undefined) this.#leases.set(veId, (leases = new Map()));
    leases.set(bootId, { credits, ttlMs: Math.max(ttlMs, leases.get(bootId)?.ttlMs ?? 0) });
    let veIds = this.#leasedBy.get(bootId);
    if (veIds === undefined) this.#leasedBy.set(bootId, (veIds = new Set()));
    veIds.add(veId);
  }

  #endLease(veId: string, bootId: string): void {
    this.#leases.get(veId)?.delete(bootId);
    const veIds = this.#leasedBy.get(bootId);
    veIds?.delete(veId);
    if (veIds?.size === 0) this.#leasedBy.delete(bootId);
  }

  #post(transfers: readonly NewTransfer[]): void {
    for (const transfer of transfers) {
      const { veId, debit, credit, credits, reference } = transfer;
      this.#references.add(reference);
      this.transfers.push(transfer);
      let sums = this.#sums.get(veId);
      if (sums === undefined)
        this.#sums.set(veId, (sums = { wallet: 0n, usage: 0n, debt: 0n, adjustment: 0n, payment: 0n }));
      sums[debit] -= credits;
      sums[credit] += credits;
    }
  }

  /** For `auditWallet`. */
  readEvidence(): WalletEvidence[] {
    return [...this.wallets].map(([veId, wallet]) => {
      let leases = 0n;
      for (const { credits } of this.#leases.get(veId)?.values() ?? []) leases += credits;
      const ledger = this.#sums.get(veId) ?? { wallet: 0n, usage: 0n, debt: 0n, adjustment: 0n, payment: 0n };
      return { veId, wallet, leases, daily: this.daily.get(veId)?.credits ?? 0n, paid: 0n, ledger };
    });
  }

  /** For `auditEvents`: reads every event. */
  readEventEvidence(): EventEvidence[] {
    const byVe = Map.groupBy(this.events, ({ veId }) => veId);
    return [...this.wallets].map(([veId, { settled }]) => {
      const events = byVe.get(veId) ?? [];
      const records = new Set(events.map(({ bootId, recordNo }) => `${bootId}:${recordNo}`));
      return {
        veId,
        settled,
        credits: events.reduce((sum, { credits }) => sum + credits, 0n),
        events: BigInt(events.length),
        dailyRequests: BigInt(this.daily.get(veId)?.requests ?? 0),
        duplicates: BigInt(events.length - records.size),
      };
    });
  }

  /** For `auditRecords`: reads every event. */
  readRecordEvidence(): RecordEvidence[] {
    const byBoot = Map.groupBy([...this.events, ...this.quarantined], ({ bootId }) => bootId);
    return [...this.boots].map(([bootId, { lastRecordNo: last }]) => {
      const records = byBoot.get(bootId) ?? [];
      const numbers = records.reduce((sum, { recordNo }) => sum + recordNo, 0n);
      return { bootId, last, records: BigInt(records.length), numbers };
    });
  }
}
