/** One world: nodes, control plane, network, clients, and those who watch. */

import type { ReserveFailure } from "../../data-plane/budget/budget.ts";
import type { Lease } from "../../control-plane/domain/report_plan.ts";
import type { Credits } from "../../core/credits.ts";
import { Books } from "./books.ts";
import { VE_BY_ID, VES, type Ve } from "./catalogue.ts";
import { type Finished, planRequest, type RequestPlan, sendRequest } from "./clients.ts";
import { Control } from "./control.ts";
import { Invariants } from "./invariants.ts";
import { Network } from "./network.ts";
import { type NodeWorld, SimNode } from "./node.ts";
import { Random } from "./random.ts";
import { Scheduler } from "./scheduler.ts";
import { Violations } from "./violations.ts";

export interface WorldPlan {
  readonly seed: number;
  readonly nodes: number;
  readonly holdMs: number;
  readonly upstreamTrouble: number;
  readonly initial: ReadonlyMap<string, Credits>;
  readonly keepTrace: boolean;
}

/** How often each kind of thing happened. */
export type Counts = Record<string, number>;

export class World {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly books: Books;
  readonly control: Control;
  readonly violations: Violations;
  readonly invariants: Invariants;
  readonly nodes: SimNode[];
  readonly counts: Counts = {};
  /** While it is true, ample wallets must be served without an error. */
  ampleMustServe = false;
  /** Nodes whose disk was lost: the operator writes them off. */
  readonly lostDisks = new Set<string>();
  /** Nodes and VEs that have had enough requests to hold a lease that lasts. */
  readonly warm = new Map<string, number>();
  /** An operator takes leases back by hand. */
  writingOff = false;
  readonly #heardAt = new Map<string, number>();
  readonly #answers: { bootId: string; seq: bigint }[] = [];

  constructor(plan: WorldPlan) {
    this.random = new Random(plan.seed);
    this.scheduler = new Scheduler(this.random);
    const { scheduler, random } = this;
    this.violations = new Violations(() => scheduler.now, plan.keepTrace);
    this.network = new Network(scheduler, random);
    this.books = new Books(this.violations);
    this.control = new Control(scheduler, random, plan.holdMs, {
      applied: ({ bootId, seq, records }, { status }, spend) => {
        this.violations.note(`report ${bootId} ${seq} (${records.length}) ${status}`);
        this.count(`report_${status}`);
        if (seq > 0n && status !== "gap") this.#heardAt.set(bootId, this.scheduler.now);
        if (status === "applied") this.invariants.applied(bootId, seq, spend);
      },
      changed: () => this.invariants.ledgerChanged(),
      taken: (boots, before) => this.#taken(boots, before),
      pushed: (veId, event, boots) => this.#push(veId, event, boots),
      failed: (error) => this.violations.add("the control plane does not fail", String(error.stack)),
    });
    this.nodes = [];
    this.invariants = new Invariants(this);
    this.control.openWallets(plan.initial);
    for (const [veId, credits] of plan.initial) this.books.putIn(veId, credits);
    const nodeWorld = this.#nodeWorld(plan.upstreamTrouble);
    for (let n = 1; n <= plan.nodes; n++) this.nodes.push(new SimNode(`n${n}`, nodeWorld));
    scheduler.afterStep = () => this.#afterStep();
    this.invariants.ledgerChanged();
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }

  #nodeWorld(upstreamTrouble: number): NodeWorld {
    const { scheduler, network, control, books, random } = this;
    return {
      scheduler,
      network,
      control,
      books,
      random,
      upstreamTrouble,
      budgetWatch: (node) => ({
        changed: (veId) => this.invariants.accountChanged(veId),
        held: (veId, credits) => this.invariants.held(node, veId, credits),
        refused: (veId, minimum, failure) => this.#refused(node, veId, minimum, failure),
      }),
      answered: ({ boot }, { bootId, seq }) => {
        // Of a run before, a recovery reads the answer.
        if (boot?.bootId === bootId) this.#answers.push({ bootId, seq });
      },
    };
  }

  #refused(node: SimNode, veId: string, minimum: Credits, failure: ReserveFailure): void {
    this.count(`refused_${failure}`);
    if (failure === "exhausted") this.invariants.refused(node, veId, minimum);
  }

  #afterStep(): void {
    for (const { bootId, seq } of this.#answers.splice(0)) this.invariants.answered(bootId, seq);
    this.invariants.sample();
  }

  #taken(boots: readonly string[], before: readonly Lease[]): void {
    const left = new Set(this.control.ledger.leases().map(({ bootId, veId }) => `${bootId} ${veId}`));
    for (const { bootId, veId, credits, ttlMs } of before) {
      if (!boots.includes(bootId) || left.has(`${bootId} ${veId}`)) continue;
      this.violations.note(`lease of ${bootId} ${veId} taken`);
      this.count("leases_taken");
      // What its boot spent of it may come back after others have had it.
      this.books.allow(veId, credits);
      const silentMs = this.scheduler.now - (this.#heardAt.get(bootId) ?? 0);
      this.violations.check(
        "no lease is taken before its time and hold are over",
        this.writingOff || silentMs > ttlMs + this.control.holdMs,
        () => `${bootId} ${veId} after ${silentMs} ms`,
      );
    }
  }

  #push(veId: string, event: { recall: boolean; toppedUp: boolean }, boots?: readonly string[]): void {
    this.count(event.recall ? "recalls" : "top_up_pushes");
    for (const node of this.nodes) {
      const { boot } = node;
      if (boot === null || (boots !== undefined && !boots.includes(boot.bootId))) continue;
      this.network.send(node.name, boot.actor, () => boot.wallets.push(veId, event));
    }
  }

  /** A request of a client to one of the nodes that run. */
  request(ve: Ve, node?: SimNode, plan: RequestPlan = planRequest(this.random, ve)): void {
    const running = this.nodes.filter(({ boot, stopping }) => boot !== null && !stopping);
    if (running.length === 0) return this.count("nobody_there");
    const target = node ?? this.random.pick(running);
    if (target.boot === null || target.stopping) return;
    this.count("requests");
    sendRequest(this.scheduler, target, plan, (result) => this.#finished(result));
  }

  #finished({ ve, node, status, code, end }: Finished): void {
    this.violations.note(`${node.name} ${ve.id.slice(0, 16)} ${status} ${code} ${end}`);
    this.count(end === "whole" ? `status_${status}` : end);
    const key = `${node.name} ${ve.id}`;
    if (status === 200) this.warm.set(key, (this.warm.get(key) ?? 0) + 1);
    if (!this.ampleMustServe || ve.size !== "ample" || (this.warm.get(key) ?? 0) < WARM_REQUESTS) return;
    const refused = code === "insufficient_quota" || code === "budget_unavailable";
    this.violations.check("an ample wallet serves through an outage", !refused, () => `${key}: ${status} ${code}`);
  }

  adjust(veId: string, credits: Credits): void {
    const done = this.control.adjust(veId, credits);
    this.violations.note(`adjust ${VE_BY_ID.get(veId)!.id} ${credits} ${done}`);
    this.count(done ? (credits > 0n ? "top_ups" : "take_outs") : "adjustments_refused");
    if (done) this.books.putIn(veId, credits);
  }

  heal(node: SimNode): void {
    if (this.network.isCut(node.name)) this.network.heal(node.name);
  }

  /** As a signal does: requests that run are ended, then everything is reported. */
  stopNode(node: SimNode, done: (allReported: boolean) => void): void {
    const { boot } = node;
    if (boot === null || node.stopping) return;
    node.stop(done);
  }

  get live(): number {
    return this.nodes.reduce((sum, { boot }) => sum + (boot?.pipeline.live ?? 0), 0);
  }

  /** What live requests hold on all nodes. */
  get reserved(): Credits {
    let sum = 0n;
    for (const { boot } of this.nodes) {
      for (const { id } of VES) sum += boot?.wallets.look(id)?.lease.reserved ?? 0n;
    }
    return sum;
  }
}

/** After so many answers a node's lease of an ample wallet has been filled. */
const WARM_REQUESTS = 4;
