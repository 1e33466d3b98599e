/** The budget and the journal of a node, with someone who looks on. They only pass on. */

import type { Credits } from "../../core/credits.ts";
import type { Budget, Reservation, ReserveFailure, WalletBalance } from "../../data-plane/budget/budget.ts";
import type { FileJournal } from "../../data-plane/journal/file_journal.ts";
import type { Intent, Journal, Progress, Settlement } from "../../data-plane/journal/journal.ts";
import type { Books } from "./books.ts";
import type { Scheduler } from "./scheduler.ts";

export interface BudgetWatch {
  /** Something of this account changed. */
  changed(account: string): void;
  /** A request holds so much from now on. */
  held(account: string, credits: Credits): void;
  refused(account: string, minimum: Credits, failure: ReserveFailure): void;
}

export class WatchedBudget implements Budget {
  readonly #budget: Budget;
  readonly #books: Books;
  readonly #watch: BudgetWatch;

  constructor(budget: Budget, books: Books, watch: BudgetWatch) {
    this.#budget = budget;
    this.#books = books;
    this.#watch = watch;
  }

  reserve(account: string, amount: Credits): Reservation | null {
    const hold = this.#budget.reserve(account, amount);
    this.#watch.changed(account);
    if (hold !== null) this.#watch.held(account, amount);
    return hold;
  }

  reserveSlow(
    account: string,
    amount: Credits,
    minimum: Credits,
    done: (result: Reservation | ReserveFailure) => void,
  ): void {
    this.#budget.reserveSlow(account, amount, minimum, (result) => {
      this.#watch.changed(account);
      if (typeof result === "string") this.#watch.refused(account, minimum, result);
      else this.#watch.held(account, result.held);
      done(result);
    });
  }

  grow(reservation: Reservation, amount: Credits): boolean {
    const grown = this.#budget.grow(reservation, amount);
    this.#watch.changed(reservation.account);
    if (grown) this.#watch.held(reservation.account, amount);
    return grown;
  }

  settle(reservation: Reservation, spent: Credits): void {
    const { account, held } = reservation;
    this.#books.reservationEnded(account, held, spent);
    this.#budget.settle(reservation, spent);
    this.#watch.changed(account);
  }

  retryMs(account: string): number {
    return this.#budget.retryMs(account);
  }
  readBalance(veId: string, done: (balance: WalletBalance | null) => void): void {
    this.#budget.readBalance(veId, done);
  }
  remaining(veId: string): Credits | null {
    return this.#budget.remaining(veId);
  }
  isLow(veId: string): boolean {
    return this.#budget.isLow(veId);
  }
}

export class WatchedJournal implements Journal {
  readonly #journal: FileJournal;
  readonly #books: Books;
  readonly #bootId: string;
  readonly #scheduler: Scheduler;

  constructor(journal: FileJournal, books: Books, bootId: string, scheduler: Scheduler) {
    this.#journal = journal;
    this.#books = books;
    this.#bootId = bootId;
    this.#scheduler = scheduler;
  }

  get accepting(): boolean {
    return this.#journal.accepting;
  }

  intent(intent: Intent): void {
    this.#books.begun(intent.id, intent.veId, this.#bootId, this.#scheduler.now);
    this.#journal.intent(intent);
  }

  progress(progress: Progress): void {
    this.#books.progressed(progress.id, progress.credits);
    this.#journal.progress(progress);
  }

  settle(settlement: Settlement, written: (error?: Error) => void): void {
    const entry = this.#books.settled(this.#bootId, settlement, this.#scheduler.now);
    this.#journal.settle(settlement, (error) => {
      if (error === undefined) entry.state = "written";
      written(error);
    });
  }
}
