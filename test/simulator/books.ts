/**
 * What the simulator itself saw of every request and every Credit: the ledger is measured by this. It knows which records
 * may be lost (by a dead machine, a rotten bit, a disk that is gone), and how much may be overspent.
 */

import type { Credits } from "../../core/credits.ts";
import type { Settlement } from "../../data-plane/journal/journal.ts";
import { Outcome } from "../../data-plane/outcome.ts";
import { SLICE_CREDITS, TOKEN_CREDITS, VE_BY_ID } from "./catalogue.ts";
import type { Violations } from "./violations.ts";

/** One request that was admitted, or a stream that was. */
export interface Entry {
  readonly id: string;
  readonly veId: string;
  readonly bootId: string;
  readonly beganAt: number;
  state: "live" | "settled" | "written";
  /** Its number in the boot's journal; 0: none yet. */
  recordNo: number;
  credits: Credits;
  /** What its progress notes came to. */
  readonly progress: Credits[];
  /** False: the death of a machine, or damage, may have taken it. */
  must: boolean;
  /** A stream that its process died in: exactly one record must tell of it. */
  crashed: boolean;
}

export class Books {
  readonly entries = new Map<string, Entry>();
  /** What may be spent beyond the wallet, by VE: what requests spent beyond what they held. */
  readonly allowance = new Map<string, Credits>();
  readonly initial = new Map<string, Credits>();
  /** Boots whose journal may have holes. */
  readonly damaged = new Set<string>();
  /** Calls that another one of their request overtook, and that were billed. */
  overtaken = 0;
  readonly #violations: Violations;
  readonly #byBoot = new Map<string, Entry[]>();
  readonly #lastNo = new Map<string, number>();
  #ended: { held: Credits; spent: Credits } | null = null;

  constructor(violations: Violations) {
    this.#violations = violations;
  }

  allow(veId: string, credits: Credits): void {
    this.allowance.set(veId, (this.allowance.get(veId) ?? 0n) + credits);
  }

  putIn(veId: string, credits: Credits): void {
    this.initial.set(veId, (this.initial.get(veId) ?? 0n) + credits);
  }

  /** A reservation ended; its settlement follows at once. */
  reservationEnded(account: string, held: Credits, spent: Credits): void {
    this.#ended = { held, spent };
    if (spent <= held) return;
    const over = spent - held;
    const ve = VE_BY_ID.get(account)!;
    if (ve.strict) this.#violations.add("STRICT spends no more than it holds", `${ve.id} held ${held}, spent ${spent}`);
    else if (over > SLICE_CREDITS)
      this.#violations.add("BALANCED overdraws by one slice at most", `${ve.id} held ${held}, spent ${spent}`);
    this.allow(account, over);
  }

  begun(id: string, veId: string, bootId: string, beganAt: number): void {
    this.#add({
      id,
      veId,
      bootId,
      beganAt,
      state: "live",
      recordNo: 0,
      credits: 0n,
      progress: [],
      must: true,
      crashed: false,
    });
  }

  progressed(id: string, credits: Credits): void {
    this.entries.get(id)?.progress.push(credits);
  }

  settled(bootId: string, settlement: Settlement, at: number): Entry {
    const { id, veId, credits } = settlement;
    if (this.#ended === null || this.#ended.spent !== credits)
      this.#violations.add("what is journaled is what the budget was told", id);
    this.#ended = null;
    this.#checkPrice(settlement);
    if (settlement.outcome === Outcome.HEDGE_LOST) this.overtaken++;
    if (!this.entries.has(id)) this.begun(id, veId, bootId, at);
    const entry = this.entries.get(id)!;
    if (entry.state !== "live") this.#violations.add("a request is settled once", id);
    entry.state = "settled";
    entry.credits = credits;
    entry.recordNo = (this.#lastNo.get(bootId) ?? 0) + 1;
    this.#lastNo.set(bootId, entry.recordNo);
    return entry;
  }

  /** Units times price, computed in another way. */
  #checkPrice({ id, priceId, units, credits }: Settlement): void {
    let tokens = 0n;
    for (const { meter, quantity } of units) if (meter <= 5) tokens += BigInt(quantity);
    const expected = tokens * (TOKEN_CREDITS.get(priceId) ?? 0n);
    if (priceId !== "" && expected !== credits)
      this.#violations.add("Credits are Units times price", `${id}: ${credits}, should be ${expected}`);
  }

  /** The process of a boot died at `at`. `flushed`: everything said before this moment had been written. */
  processDied(bootId: string, at: number, flushed: boolean): void {
    for (const entry of this.#byBoot.get(bootId) ?? []) {
      if (entry.state === "written") continue;
      if (entry.state === "live") {
        entry.crashed = true;
        this.allow(entry.veId, VE_BY_ID.get(entry.veId)!.strict ? 0n : SLICE_CREDITS);
      }
      if (entry.state === "settled" || !flushed || entry.beganAt >= at) entry.must = false;
    }
  }

  /** The machine died: what was not on disk may be lost. `durableNo` by boot. */
  machineDied(durable: ReadonlyMap<string, number>, reportedNo: (bootId: string) => number): void {
    for (const [bootId, durableNo] of durable) {
      this.damaged.add(bootId);
      const kept = Math.max(durableNo, reportedNo(bootId));
      for (const entry of this.#byBoot.get(bootId) ?? []) {
        if (entry.recordNo === 0 || entry.recordNo > kept) entry.must = false;
      }
    }
  }

  /** These records of a dead boot rot, or what told of its live streams. */
  rotten(bootId: string, recordNos: ReadonlySet<number>): void {
    this.damaged.add(bootId);
    for (const entry of this.#byBoot.get(bootId) ?? [])
      if (entry.crashed || recordNos.has(entry.recordNo)) entry.must = false;
  }

  /** These boots' disks are gone, or rotten in unknown places. */
  diskLost(boots: Iterable<string>, reportedNo: (bootId: string) => number): void {
    this.machineDied(new Map([...boots].map((bootId) => [bootId, 0])), reportedNo);
  }

  #add(entry: Entry): void {
    this.entries.set(entry.id, entry);
    const list = this.#byBoot.get(entry.bootId);
    if (list === undefined) this.#byBoot.set(entry.bootId, [entry]);
    else list.push(entry);
  }
}
