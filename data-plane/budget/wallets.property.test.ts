/** Money under random interleavings: nodes that share one wallet, against the rules of the control plane. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { minCredits } from "../../core/credits.ts";
import type { Reservation, ReserveFailure } from "./budget.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";
import { Wallets } from "./wallets.ts";

const VE = "ve_a";
const NODES = 3;

/** The control plane's side of COMMON's rules, as plainly as possible. */
class Ledger {
  purchased: bigint;
  settled = 0n;
  debt = 0n;
  readonly leases: bigint[] = Array.from({ length: NODES }, () => 0n);
  readonly lastSeq: number[] = Array.from({ length: NODES }, () => 0);

  constructor(purchased: bigint) {
    this.purchased = purchased;
  }

  get available(): bigint {
    return this.purchased + this.debt - this.settled - this.leases.reduce((sum, lease) => sum + lease, 0n);
  }

  report(node: number, seq: number, lines: readonly LeaseLine[]): { answers: LeaseAnswer[]; repeated: boolean } {
    const repeated = seq <= this.lastSeq[node]!;
    if (!repeated) {
      expect(seq).toBe(this.lastSeq[node]! + 1);
      this.lastSeq[node] = seq;
      for (const line of lines) this.#apply(node, line);
    }
    const creditRemaining = this.purchased + this.debt - this.settled;
    const answers = lines.map(({ veId }) => ({
      veId,
      granted: this.leases[node]!,
      ttlMs: 60_000,
      state: 1,
      creditRemaining,
    }));
    return { answers, repeated };
  }

  #apply(node: number, { spent, release, want, need }: LeaseLine): void {
    this.leases[node]! -= minCredits(spent, this.leases[node]!);
    this.settled += spent;
    if (this.available < 0n) this.debt -= this.available;
    this.leases[node]! -= minCredits(release, this.leases[node]!);
    const share = this.available / BigInt(2 * NODES);
    const fair = want < share ? want : share;
    const grant = need > this.available ? this.available : fair > need ? fair : need;
    this.leases[node]! += grant;
  }
}

interface Live {
  readonly reservation: Reservation;
}

class Node {
  readonly wallets: Wallets;
  readonly live: Live[] = [];
  /** Settled and not yet put into a report. */
  unreported = 0n;
  underWay: { seq: number; lines: LeaseLine[]; spent: Map<string, bigint>; sentAt: number } | null = null;
  #seq = 0;
  readonly #index: number;
  readonly #ledger: Ledger;
  readonly #now: () => number;

  constructor(index: number, ledger: Ledger, now: () => number) {
    this.#index = index;
    this.#ledger = ledger;
    this.#now = now;
    this.wallets = new Wallets(now, () => () => undefined);
  }

  admit(result: Reservation | ReserveFailure | null): void {
    if (result === null || typeof result === "string") return;
    this.live.push({ reservation: result });
    this.checkCover();
  }

  /** At every admission: what is spent or held is covered by what the ledger has put aside for this node. */
  checkCover(): void {
    const { unacked, reserved, leased } = this.wallets.totals();
    expect(unacked + reserved <= leased).toBe(true);
    expect(leased <= this.#ledger.leases[this.#index]! + (this.underWay?.spent.get(VE) ?? 0n)).toBe(true);
  }

  settle(which: number, part: number): void {
    if (this.live.length === 0) return;
    const [{ reservation }] = this.live.splice(which % this.live.length, 1) as [Live];
    const spent = (reservation.held * BigInt(part)) / 100n;
    this.wallets.settle(reservation, spent);
    this.unreported += spent;
  }

  cut(): void {
    if (this.underWay !== null) return;
    const spent = new Map(this.unreported > 0n ? [[VE, this.unreported]] : []);
    this.unreported = 0n;
    this.underWay = { seq: ++this.#seq, lines: this.wallets.cut(spent, 100), spent, sentAt: this.#now() };
  }

  /** The report arrives; its answer may not. */
  deliver(answerArrives: boolean): void {
    if (this.underWay === null) return;
    const { seq, lines, spent, sentAt } = this.underWay;
    const { answers, repeated } = this.#ledger.report(this.#index, seq, lines);
    if (!answerArrives) return;
    this.underWay = null;
    this.wallets.answer(lines, spent, answers, sentAt, repeated);
  }
}

const credits = fc.bigInt({ min: 1n, max: 400n });
const operation = fc.record({
  node: fc.nat(NODES - 1),
  kind: fc.constantFrom(
    "reserve",
    "slow",
    "grow",
    "settle",
    "cut",
    "deliver",
    "lose",
    "tick",
    "pass",
    "recall",
    "topUp",
  ),
  amount: credits,
  which: fc.nat(20),
  part: fc.nat(100),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function run(ledger: Ledger, nodes: readonly Node[], clock: { now: number }, op: Operation): void {
  const node = nodes[op.node]!;
  switch (op.kind) {
    case "reserve":
      return node.admit(node.wallets.reserve(VE, op.amount));
    case "slow":
      return node.wallets.reserveSlow(VE, op.amount, (op.amount + 1n) / 2n, (result) => node.admit(result));
    case "grow": {
      const live = node.live[op.which % Math.max(1, node.live.length)];
      if (live !== undefined && node.wallets.grow(live.reservation, op.amount)) node.checkCover();
      return;
    }
    case "settle":
      return node.settle(op.which, op.part);
    case "cut":
      return node.cut();
    case "deliver":
      return node.deliver(true);
    case "lose":
      return node.deliver(false);
    case "tick":
      return node.wallets.tick();
    case "pass":
      clock.now += op.which * 2_000;
      return;
    case "recall":
      return node.wallets.push(VE, { recall: true, toppedUp: false });
    case "topUp":
      ledger.purchased += op.amount;
      for (const { wallets } of nodes) wallets.push(VE, { recall: false, toppedUp: true });
  }
}

test("no wallet is overspent, whatever is lost, repeated or late, and all figures agree in the end", async () => {
  await fc.assert(
    fc.asyncProperty(credits, fc.array(operation, { minLength: 20, maxLength: 300 }), async (purchased, operations) => {
      const clock = { now: 0 };
      const ledger = new Ledger(purchased * 10n);
      const nodes = Array.from({ length: NODES }, (_, n) => new Node(n, ledger, () => clock.now));
      for (const op of operations) {
        run(ledger, nodes, clock, op);
        await Promise.resolve();
        expect(ledger.debt).toBe(0n);
        expect(ledger.available >= 0n).toBe(true);
        const live = nodes.reduce((sum, { wallets }) => sum + wallets.totals().reserved + wallets.totals().unacked, 0n);
        expect(ledger.settled + live - spentUnderWay(ledger, nodes) <= ledger.purchased).toBe(true);
      }
      finish(nodes, clock);
      nodes.forEach(({ wallets, unreported }, n) => {
        expect(unreported).toBe(0n);
        expect(wallets.totals()).toMatchObject({ unacked: 0n, reserved: 0n, waiting: 0, leased: ledger.leases[n] });
      });
    }),
    { numRuns: 300 },
  );
});

/** Spend that the ledger has, but whose answer has not arrived: counted on both sides. */
function spentUnderWay(ledger: Ledger, nodes: readonly Node[]): bigint {
  return nodes.reduce((sum, { underWay }, n) => {
    const applied = underWay !== null && ledger.lastSeq[n]! >= underWay.seq;
    return applied ? sum + (underWay.spent.get(VE) ?? 0n) : sum;
  }, 0n);
}

/** Every live request ends, every waiting one is answered, and every report arrives. */
function finish(nodes: readonly Node[], clock: { now: number }): void {
  for (let round = 0; round < 400; round++) {
    clock.now += 100;
    for (const node of nodes) {
      while (node.live.length > 0) node.settle(0, 100);
      node.deliver(true);
      node.wallets.tick();
      node.cut();
      node.deliver(true);
      node.wallets.tick();
    }
    if (nodes.every(({ wallets, live, unreported }) => live.length === 0 && !wallets.hasWork() && unreported === 0n))
      return;
  }
  throw new Error("the nodes never came to rest");
}
