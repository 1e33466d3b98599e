/**
 * A coarse timer wheel: deadlines of thousands of requests with one interval and no allocation. A deadline fires at most
 * a tick late. Moving one later, as every chunk of a stream does, is one assignment.
 */

export const TICK_MS = 50;
const SLOTS = 1024;

/** What has a deadline. Embed it in the object of a request. */
export interface Timed {
  onDeadline(): void;
}

/** The place of one Timed in the wheel. */
export class Deadline {
  /** Milliseconds as of the wheel's clock; Infinity: none. */
  at = Number.POSITIVE_INFINITY;
  /** The tick whose slot this stands in, -1: none. */
  tick = -1;
  next: Deadline | null = null;
  prev: Deadline | null = null;
  readonly owner: Timed;

  constructor(owner: Timed) {
    this.owner = owner;
  }
}

export class TimerWheel {
  private readonly slots: (Deadline | null)[] = Array.from({ length: SLOTS }, () => null);
  private readonly now: () => number;
  private tick: number;
  private count = 0;
  private interval: NodeJS.Timeout | null = null;

  constructor(now: () => number) {
    this.now = now;
    this.tick = Math.floor(now() / TICK_MS);
  }

  /** Sets or moves a deadline. */
  set(deadline: Deadline, at: number): void {
    deadline.at = at;
    if (deadline.tick === -1) this.link(deadline);
    else if (at < deadline.tick * TICK_MS) {
      this.unlink(deadline);
      this.link(deadline);
    }
  }

  clear(deadline: Deadline): void {
    deadline.at = Number.POSITIVE_INFINITY;
    if (deadline.tick !== -1) this.unlink(deadline);
  }

  /** Fires what is due. Runs by itself while there are deadlines; tests may call it. */
  advance(): void {
    const now = this.now();
    const last = Math.floor(now / TICK_MS);
    // After a long pause every slot is looked at once.
    if (last - this.tick > SLOTS) this.tick = last - SLOTS;
    while (this.tick < last) this.fire(++this.tick, now);
  }

  stop(): void {
    if (this.interval !== null) clearInterval(this.interval);
    this.interval = null;
  }

  private fire(tick: number, now: number): void {
    let deadline = this.slots[tick % SLOTS]!;
    this.slots[tick % SLOTS] = null;
    // The list is taken off first: owners may set and clear deadlines, others' too, while it is walked.
    const due: Deadline[] = [];
    while (deadline !== null) {
      const { next } = deadline;
      deadline.tick = -1;
      deadline.next = deadline.prev = null;
      this.count--;
      if (deadline.at <= now) due.push(deadline);
      else if (deadline.at !== Number.POSITIVE_INFINITY) this.link(deadline);
      deadline = next!;
    }
    for (const each of due) {
      if (each.at > now || each.tick !== -1) continue;
      each.at = Number.POSITIVE_INFINITY;
      each.owner.onDeadline();
    }
  }

  private link(deadline: Deadline): void {
    if (this.count++ === 0) this.start();
    const due = Math.ceil(deadline.at / TICK_MS);
    deadline.tick = Math.min(Math.max(due, this.tick + 1), this.tick + SLOTS - 1);
    const slot = deadline.tick % SLOTS;
    const head = this.slots[slot]!;
    deadline.next = head;
    deadline.prev = null;
    if (head !== null) head.prev = deadline;
    this.slots[slot] = deadline;
  }

  private unlink(deadline: Deadline): void {
    const slot = deadline.tick % SLOTS;
    if (deadline.prev === null) this.slots[slot] = deadline.next;
    else deadline.prev.next = deadline.next;
    if (deadline.next !== null) deadline.next.prev = deadline.prev;
    deadline.next = deadline.prev = null;
    deadline.tick = -1;
    this.count--;
  }

  private start(): void {
    const now = Math.floor(this.now() / TICK_MS);
    if (now > this.tick) this.tick = now;
    if (this.interval !== null) return;
    this.interval = setInterval(() => this.tickOrRest(), TICK_MS);
    this.interval.unref();
  }

  private tickOrRest(): void {
    this.advance();
    if (this.count === 0) this.stop();
  }
}
