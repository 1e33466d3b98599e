/** Leases under random interleavings: nodes that share one wallet or limit, against the rules of the control plane. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { minCredits } from "../../core/credits.ts";
import { isLimit, limitAccount, LimitKind } from "./accounts.ts";
import type { Reservation, ReserveFailure } from "./budget.ts";
import type { LeaseAnswer, LeaseLine } from "./wallet_link.ts";
import { Time } from "./testing.ts";
import { EXHAUSTED_ASK_MS } from "./waiting_line.ts";
import { Wallets } from "./wallets.ts";
import { WalletState } from "./wallet.ts";

const ACCOUNTS = ["ve_a", limitAccount("pm_a", LimitKind.UNITS)];
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
    const state = creditRemaining > 0n ? WalletState.OK : WalletState.EXHAUSTED;
    const answers = lines.map(({ account }) => ({
      account,
      granted: this.leases[node]!,
      ttlMs: 60_000,
      state,
      creditRemaining: isLimit(account) ? null : creditRemaining,
      resetAt: 0,
    }));
    return { answers, repeated };
  }

  /** What an answer that waited for others to give back says in the end. */
  grantAgain(node: number, need: bigint): LeaseAnswer["granted"] {
    this.leases[node]! += minCredits(need, this.available);
    return this.leases[node]!;
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
  readonly #time: Time;
  readonly #account: string;

  constructor(index: number, ledger: Ledger, time: Time, account: string) {
    this.#index = index;
    this.#ledger = ledger;
    this.#time = time;
    this.#account = account;
    this.wallets = new Wallets(() => time.now, time.timer);
  }

  totals() {
    return this.wallets.totals(isLimit(this.#account) ? "limits" : "wallets");
  }

  admit(result: Reservation | ReserveFailure | null): void {
    if (result === null || typeof result === "string") return;
    this.live.push({ reservation: result });
    this.checkCover();
  }

  /** At every admission: what is spent or held is covered by what the ledger has put aside for this node. */
  checkCover(): void {
    const { unacked, reserved, leased } = this.totals();
    expect(unacked + reserved <= leased).toBe(true);
    expect(leased <= this.#ledger.leases[this.#index]! + (this.underWay?.spent.get(this.#account) ?? 0n)).toBe(true);
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
    const spent = new Map(this.unreported > 0n ? [[this.#account, this.unreported]] : []);
    this.unreported = 0n;
    this.underWay = { seq: ++this.#seq, lines: this.wallets.cut(spent, 100), spent, sentAt: this.#time.now };
  }

  /** The report arrives; its answer may not. `recall`: what others do while an unmet need waits for them. */
  deliver(answerArrives: boolean, recall: (() => void) | null = null): void {
    if (this.underWay === null) return;
    const { seq, lines, spent, sentAt } = this.underWay;
    const { answers, repeated } = this.#ledger.report(this.#index, seq, lines);
    if (!answerArrives) return;
    const missing = (lines[0]?.need ?? 0n) - (this.#ledger.leases[this.#index]! - this.totals().leased);
    if (recall !== null && missing > 0n) {
      recall();
      answers[0] = { ...answers[0]!, granted: this.#ledger.grantAgain(this.#index, missing) };
    }
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

function run(ledger: Ledger, nodes: readonly Node[], time: Time, account: string, op: Operation): void {
  const node = nodes[op.node]!;
  switch (op.kind) {
    case "reserve":
      return node.admit(node.wallets.reserve(account, op.amount));
    case "slow":
      return node.wallets.reserveSlow(account, op.amount, (op.amount + 1n) / 2n, (result) => node.admit(result));
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
      time.pass(op.which * 100 + (op.part > 90 ? 60_000 : 0));
      return;
    case "recall":
      return node.wallets.push(account, { recall: true, toppedUp: false });
    case "topUp":
      ledger.purchased += op.amount;
      for (const { wallets } of nodes) wallets.push(account, { recall: false, toppedUp: true });
  }
}

test.each(ACCOUNTS)("%s is not overspent, whatever is lost or late, and all agree in the end", async (account) => {
  await fc.assert(
    fc.asyncProperty(credits, fc.array(operation, { minLength: 20, maxLength: 300 }), async (purchased, operations) => {
      const time = new Time();
      const ledger = new Ledger(purchased * 10n);
      const nodes = Array.from({ length: NODES }, (_, n) => new Node(n, ledger, time, account));
      for (const op of operations) {
        run(ledger, nodes, time, account, op);
        await Promise.resolve();
        expect(ledger.debt).toBe(0n);
        expect(ledger.available >= 0n).toBe(true);
        const live = nodes.reduce((sum, node) => sum + node.totals().reserved + node.totals().unacked, 0n);
        expect(ledger.settled + live - spentUnderWay(ledger, nodes, account) <= ledger.purchased).toBe(true);
      }
      await finish(nodes, time);
      nodes.forEach((node, n) => {
        expect(node.unreported).toBe(0n);
        expect(node.totals()).toMatchObject({ unacked: 0n, reserved: 0n, waiting: 0, leased: ledger.leases[n] });
      });
      await takeAll(ledger, nodes, time, account);
    }),
    { numRuns: 200 },
  );
});

/** Spend that the ledger has, but whose answer has not arrived: counted on both sides. */
function spentUnderWay(ledger: Ledger, nodes: readonly Node[], account: string): bigint {
  return nodes.reduce((sum, { underWay }, n) => {
    const applied = underWay !== null && ledger.lastSeq[n]! >= underWay.seq;
    return applied ? sum + (underWay.spent.get(account) ?? 0n) : sum;
  }, 0n);
}

/** Every live request ends, every waiting one is answered, and every report arrives. */
async function finish(nodes: readonly Node[], time: Time): Promise<void> {
  for (let round = 0; round < 400; round++) {
    time.pass(100);
    for (const node of nodes) {
      while (node.live.length > 0) node.settle(0, 100);
      // Who waited for that gets it, and ends as well.
      await Promise.resolve();
      while (node.live.length > 0) node.settle(0, 100);
      node.deliver(true);
      node.wallets.tick();
      node.cut();
      node.deliver(true);
      node.wallets.tick();
    }
    const quiet = ({ wallets, live, unreported }: Node): boolean =>
      live.length === 0 && !wallets.hasWork() && unreported === 0n && wallets.totals().waiting === 0;
    if (nodes.every(quiet)) return;
  }
  throw new Error("the nodes never came to rest");
}

/** What no live request holds is there for one who needs all of it, on any node, wherever the leases are. */
async function takeAll(ledger: Ledger, nodes: readonly Node[], time: Time, account: string): Promise<void> {
  const all = ledger.purchased - ledger.settled;
  if (all === 0n) return;
  // What was refused lately may have become true since.
  time.pass(EXHAUSTED_ASK_MS);
  const [first, ...others] = nodes as [Node, ...Node[]];
  const results: (Reservation | ReserveFailure)[] = [];
  first.wallets.reserveSlow(account, all, all, (result) => results.push(result));
  await Promise.resolve();
  const giveBack = (): void => {
    for (const other of others) {
      other.wallets.push(account, { recall: true, toppedUp: false });
      other.cut();
      other.deliver(true);
    }
  };
  for (let round = 0; round < 3 && results.length === 0; round++) {
    first.cut();
    first.deliver(true, giveBack);
  }
  expect(results).toMatchObject([{ held: all }]);
}
