/** For tests only: a budget, a journal and metrics in memory, and bodies that are read whole. */

import { type Credits, parseCredits } from "../core/credits.ts";
import { isLimit } from "./budget/accounts.ts";
import type { Budget, Reservation, ReserveFailure, WalletBalance } from "./budget/budget.ts";
import type { PipelineMetrics } from "./deps.ts";
import type { Intent, Journal, Progress, Settlement } from "./journal/journal.ts";
import type { BodyStreamSink, Exchange, Flow, OutboundRequest } from "./transport.ts";

class FakeReservation implements Reservation {
  readonly account: string;
  held: Credits;
  settled = 0;
  spent: Credits = 0n;
  constructor(account: string, held: Credits) {
    this.account = account;
    this.held = held;
  }
}

/** A limit of a Physical Model. */
export interface FakeLimit {
  free: Credits;
  /** What a synchronous report would say; absent: it answers from `free`. */
  failure?: ReserveFailure;
  retryMs?: number;
}

/** One wallet for everything. `slow` stands for the control plane's answer. */
export class FakeBudget implements Budget {
  /** By account. A limit that is not here is refused, since nothing may ask for it. */
  limits = new Map<string, FakeLimit>();
  limitHolds: FakeReservation[] = [];
  /** As `pending`, for limits. */
  limitPending: (() => void)[] | null = null;
  free: Credits = parseCredits("1000");
  spent: Credits = 0n;
  reservations: FakeReservation[] = [];
  balance: WalletBalance | null = { creditRemaining: parseCredits("12.5"), creditBudget: parseCredits("100") };
  low = false;
  /** What is known to be left in the wallet. */
  left: Credits | null = null;
  /** What a synchronous report would say; null: it answers from `free`. */
  failure: ReserveFailure | null = null;
  /** Waiting reserveSlow calls run when this is called; null: at once. */
  pending: (() => void)[] | null = null;
  slowCalls: { amount: Credits; minimum: Credits }[] = [];
  grown = 0;

  reserve(account: string, amount: Credits): Reservation | null {
    if (isLimit(account)) return amount <= this.limits.get(account)!.free ? this.holdLimit(account, amount) : null;
    return amount === 0n || amount <= this.free ? this.hold(account, amount) : null;
  }

  reserveSlow(
    veId: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    if (isLimit(veId)) return this.askLimit(veId, amount, minimum, done);
    this.slowCalls.push({ amount, minimum });
    const answer = (): void => {
      if (this.failure !== null) return done(this.failure);
      if (minimum > this.free) return done("exhausted");
      done(this.hold(veId, amount < this.free ? amount : this.free));
    };
    if (this.pending === null) setImmediate(answer);
    else this.pending.push(answer);
  }

  grow(reservation: Reservation, amount: Credits): boolean {
    if (amount > this.free) return false;
    this.grown++;
    this.free -= amount;
    (reservation as FakeReservation).held += amount;
    return true;
  }

  settle(reservation: Reservation, spent: Credits): void {
    const fake = reservation as FakeReservation;
    fake.settled++;
    fake.spent = spent;
    const limit = this.limits.get(fake.account);
    if (limit !== undefined) {
      limit.free += fake.held - spent;
      return;
    }
    this.free += fake.held - spent;
    this.spent += spent;
  }

  readBalance(_: string, done: (balance: WalletBalance | null) => void): void {
    setImmediate(() => done(this.balance));
  }

  remaining(): Credits | null {
    return this.left;
  }

  isLow(): boolean {
    return this.low;
  }

  retryMs(account: string): number {
    return this.limits.get(account)?.retryMs ?? 0;
  }

  private askLimit(
    account: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    const answer = (): void => {
      const { free, failure } = this.limits.get(account)!;
      if (failure !== undefined) return done(failure);
      if (minimum > free) return done("exhausted");
      done(this.holdLimit(account, amount < free ? amount : free));
    };
    if (this.limitPending === null) setImmediate(answer);
    else this.limitPending.push(answer);
  }

  private holdLimit(account: string, amount: Credits): Reservation {
    this.limits.get(account)!.free -= amount;
    const reservation = new FakeReservation(account, amount);
    this.limitHolds.push(reservation);
    return reservation;
  }

  private hold(veId: string, amount: Credits): Reservation {
    this.free -= amount;
    const reservation = new FakeReservation(veId, amount);
    this.reservations.push(reservation);
    return reservation;
  }
}

export class FakeJournal implements Journal {
  accepting = true;
  intents: Intent[] = [];
  notes: Progress[] = [];
  settlements: Settlement[] = [];
  /** Set to keep `written` back; call what it collects. */
  held: (() => void)[] | null = null;
  private waiting: { count: number; resolve: () => void }[] = [];

  intent(intent: Intent): void {
    this.intents.push(intent);
  }

  progress(progress: Progress): void {
    this.notes.push(progress);
  }

  settle(settlement: Settlement, written: (error?: Error) => void): void {
    this.settlements.push(settlement);
    if (this.held === null) setImmediate(written);
    else this.held.push(written);
    this.waiting = this.waiting.filter(({ count, resolve }) => {
      if (this.settlements.length < count) return true;
      resolve();
      return false;
    });
  }

  /** Resolves once so many settlements were made, with the last of them. */
  async settled(count = 1): Promise<Settlement> {
    if (this.settlements.length < count) await new Promise<void>((resolve) => this.waiting.push({ count, resolve }));
    return this.settlements[count - 1]!;
  }
}

export class FakeMetrics implements PipelineMetrics {
  requests: { endpoint: number; status: number; outcome: number }[] = [];
  request(endpoint: number, status: number, outcome: number): void {
    this.requests.push({ endpoint, status, outcome });
  }
  firstContent(): void {}
  attempts = 0;
  attempt(): void {
    this.attempts++;
  }
}

/** `streamBody` of an exchange that has its body in one piece. */
export function streamWhole(exchange: Pick<Exchange, "readBody">, bytesMax: number, sink: BodyStreamSink): Flow {
  exchange.readBody(bytesMax, {
    onBody(body) {
      sink.onChunk(body);
      sink.onEnd();
    },
    onBodyFailure: (failure) => sink.onBodyFailure(failure),
  });
  return { pause() {}, resume() {} };
}

/** Reads what is sent to an upstream, whatever it is: `done` runs at once where the body is there. */
export function readOutbound({ body }: OutboundRequest, done: (body: Buffer) => void): void {
  if (body === null || body instanceof Uint8Array) return done(Buffer.from(body ?? ""));
  const chunks: Uint8Array[] = [];
  body.open({
    onChunk: (chunk) => void chunks.push(chunk),
    onEnd: () => done(Buffer.concat(chunks)),
    onError(error) {
      throw error;
    },
  });
}
