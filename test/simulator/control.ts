/**
 * Two replicas of the control plane over one ledger: real wire decoding, real decisions, real waiting for recalls. Replicas
 * die before a commit and after it, the database is away, its clock jumps.
 */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { STATUS, toLeaseState, toReport } from "../../control-plane/api/report_wire.ts";
import type { Lease, LeaseAnswer, Report, ReportAnswer } from "../../control-plane/domain/report_plan.ts";
import { recallOne } from "../../control-plane/report/recall.ts";
import { type Credits, formatCredits } from "../../core/credits.ts";
import { remaining, walletState } from "../../control-plane/domain/wallet.ts";
import { DomainError } from "../../control-plane/domain/errors.ts";
import {
  ReportUsageRequestSchema,
  ReportUsageResponseSchema,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { MERCHANT, PRICES, VES } from "./catalogue.ts";
import { MemoryLedger } from "./memory_ledger.ts";
import type { Random } from "./random.ts";
import { Actor, type Scheduler, WALL_START_MS } from "./scheduler.ts";

/** As control-plane/maintenance.ts. */
const SWEEP_EVERY_MS = 10_000;

interface Replica {
  readonly name: string;
  actor: Actor;
  up: boolean;
  /** What its next commit brings about. */
  dies: "before" | "after" | null;
  readonly waiting: Map<string, Set<() => void>>;
}

/** An answer, or null: the call failed. */
export type Reply = (bytes: Uint8Array | null) => void;

/** Hears of what the ledger did. */
export interface ControlWatch {
  applied(report: Report, answer: ReportAnswer, spend: ReadonlyMap<string, Credits>): void;
  changed(): void;
  /** Leases were taken back: of which boots, and what they were. */
  taken(boots: readonly string[], before: readonly Lease[]): void;
  pushed(veId: string, event: { recall: boolean; toppedUp: boolean }, boots?: readonly string[]): void;
  failed(error: Error): void;
}

export class Control {
  readonly ledger: MemoryLedger;
  readonly replicas: Replica[];
  readonly holdMs: number;
  dbUp = true;
  /** How far the clock of the database is ahead. */
  dbSkewMs = 0;
  commits = 0;
  sweeps = 0;
  /** Since when both replicas and the database have been well. */
  wellSince = 0;
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #watch: ControlWatch;
  #ids = 0;

  constructor(scheduler: Scheduler, random: Random, holdMs: number, watch: ControlWatch) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#watch = watch;
    this.holdMs = holdMs;
    this.ledger = new MemoryLedger({
      newId: (prefix) => this.newId(prefix),
      holdMs,
      startMs: WALL_START_MS,
      onFreed: (veIds) => this.#freed(veIds),
    });
    for (const price of PRICES) this.ledger.addPrice(price.id, MERCHANT, price);
    this.replicas = ["cp1", "cp2"].map((name) => this.#start(name));
  }

  newId(prefix: string): string {
    return `${prefix}sim${String(++this.#ids).padStart(8, "0")}`;
  }

  openWallets(initial: ReadonlyMap<string, Credits>): void {
    for (const { id } of VES) {
      const credits = initial.get(id)!;
      this.ledger.createWallet({ veId: id, merchantId: MERCHANT, initial: credits, transferId: this.newId("tr_") });
    }
  }

  #start(name: string): Replica {
    const replica: Replica = { name, actor: new Actor(name), up: true, dies: null, waiting: new Map() };
    this.#tick(replica);
    return replica;
  }

  #tick({ actor }: Replica): void {
    const sweep = (): void => {
      if (!this.dbUp) return;
      this.sweeps++;
      const before = this.ledger.leases();
      const taken = this.ledger.sweep(WALL_START_MS + this.#scheduler.now + this.dbSkewMs);
      if (taken.length > 0) this.#watch.taken(taken, before);
      this.#watch.changed();
    };
    this.#scheduler.after(this.#random.between(0, SWEEP_EVERY_MS), sweep, actor, SWEEP_EVERY_MS);
  }

  get up(): boolean {
    return this.dbUp && this.replicas.some((replica) => replica.up);
  }

  kill(replica: Replica): void {
    if (!replica.up) return;
    replica.up = false;
    replica.actor.alive = false;
    replica.dies = null;
    replica.waiting.clear();
    this.wellSince = Number.POSITIVE_INFINITY;
  }

  revive(replica: Replica): void {
    if (replica.up) return;
    replica.actor = new Actor(replica.name);
    replica.up = true;
    this.#tick(replica);
    this.#well();
  }

  setDatabase(up: boolean): void {
    this.dbUp = up;
    if (up) this.#well();
    else this.wellSince = Number.POSITIVE_INFINITY;
  }

  #well(): void {
    if (this.dbUp && this.replicas.every((replica) => replica.up)) this.wellSince = this.#scheduler.now;
  }

  /** Who answers the next call, or null. */
  route(): Replica | null {
    const up = this.replicas.filter((replica) => replica.up);
    return up.length === 0 ? null : this.#random.pick(up);
  }

  /** A report arrived at a replica. */
  handle(replica: Replica, bytes: Uint8Array, reply: Reply): void {
    const { actor } = replica;
    this.#scheduler.after(
      this.#random.between(1, 6),
      () => {
        if (!this.dbUp) return reply(null);
        if (replica.dies === "before") return this.kill(replica);
        const request = fromBinary(ReportUsageRequestSchema, bytes);
        const report = toReport(request);
        const answer = this.#commit(report);
        if (answer === null) return reply(null);
        if (replica.dies === "after") return this.kill(replica);
        void this.#answer(replica, report, answer).then(reply);
      },
      actor,
    );
  }

  #commit(report: Report): ReportAnswer | null {
    this.commits++;
    try {
      const eventsBefore = this.ledger.events.length;
      const answer = this.ledger.report(report, this.#scheduler.wall());
      const spend = new Map<string, Credits>();
      for (const { veId, credits } of this.ledger.events.slice(eventsBefore))
        spend.set(veId, (spend.get(veId) ?? 0n) + credits);
      this.#watch.applied(report, answer, spend);
      this.#watch.changed();
      return answer;
    } catch (error) {
      this.#watch.failed(error as Error);
      return null;
    }
  }

  async #answer(replica: Replica, report: Report, answer: ReportAnswer): Promise<Uint8Array | null> {
    try {
      const again = await Promise.all(
        answer.recalls.map(({ veId, boots }) => this.#recall(replica, report, veId, boots)),
      );
      const later = new Map(again.filter((each) => each !== null).map((each) => [each.veId, each]));
      const leases = answer.leases.map((lease) => toLeaseState(later.get(lease.veId) ?? lease));
      const { lastSeq, lastRecordNo } = answer;
      return toBinary(
        ReportUsageResponseSchema,
        create(ReportUsageResponseSchema, { status: STATUS[answer.status], lastSeq, lastRecordNo, leases }),
      );
    } catch {
      return null;
    }
  }

  #recall(replica: Replica, report: Report, veId: string, boots: readonly string[]): Promise<LeaseAnswer | null> {
    const ask = report.asks.find((one) => one.veId === veId)!;
    const hints = {
      onCredits: (subject: string, callback: () => void): (() => void) => {
        const callbacks = replica.waiting.get(subject) ?? new Set();
        replica.waiting.set(subject, callbacks.add(callback));
        return () => void callbacks.delete(callback);
      },
    };
    return recallOne(hints, {
      subject: veId,
      recall: async () => this.#watch.pushed(veId, { recall: true, toppedUp: false }, boots),
      again: async (last) => {
        if (!this.dbUp) throw new Error("the database is away");
        const result = this.ledger.grantAgain(report, ask, last, this.#scheduler.wall());
        this.#watch.changed();
        return result;
      },
    });
  }

  /** The hint that Credits came free reaches each replica a little later. */
  #freed(veIds: readonly string[]): void {
    for (const replica of this.replicas) {
      if (!replica.up) continue;
      const ring = (): void => {
        for (const veId of veIds) for (const callback of replica.waiting.get(veId) ?? []) callback();
      };
      this.#scheduler.after(this.#random.between(0.5, 8), ring, replica.actor);
    }
  }

  /** AdjustCredits: true if it was done. */
  adjust(veId: string, credits: Credits): boolean {
    if (!this.up) return false;
    try {
      const transferId = this.newId("tr_");
      this.ledger.adjust({ veId, merchantId: MERCHANT, credits, reason: "simulated", transferId });
    } catch (error) {
      if (!(error instanceof DomainError)) this.#watch.failed(error as Error);
      return false;
    }
    this.#watch.changed();
    if (credits > 0n) this.#watch.pushed(veId, { recall: false, toppedUp: true });
    return true;
  }

  /** The operator writes a node off whose disk is gone. */
  writeOff(nodeId: string): boolean {
    try {
      const before = this.ledger.leases();
      const boots = this.ledger.writeOff(nodeId, this.#scheduler.wall());
      if (boots.length > 0) this.#watch.taken(boots, before);
    } catch (error) {
      if (!(error instanceof DomainError)) this.#watch.failed(error as Error);
      return false;
    }
    this.#watch.changed();
    return true;
  }

  wallet(veId: string) {
    const row = this.ledger.getWallet(veId)!;
    return {
      creditBudget: formatCredits(row.purchased),
      creditRemaining: formatCredits(remaining(row)),
      settled: formatCredits(row.settled),
      escrowed: formatCredits(row.escrowed),
      debt: formatCredits(row.debt),
      state: walletState(row, 0n),
    };
  }
}

export type { Replica };
