/**
 * The one clock and the one queue of a simulated world. Every timer, message and disk callback is an event of an actor (a
 * process); after each event all promises that it settled run to their end. An actor that is dead runs nothing any more, one
 * that is frozen runs everything later.
 */

import type { Random } from "./random.ts";

/** Real timers are late by up to this. */
const LATE_MS = 1;
/** Where the wall clock stands when a world begins. */
export const WALL_START_MS = Date.UTC(2026, 10, 23, 12, 0, 0);

/** Thrown into code of a process that is dead: nothing of it may be seen outside. */
export class DeadProcessError extends Error {}

export class Actor {
  readonly name: string;
  alive = true;
  frozenUntil = 0;
  /** How far its wall clock is ahead. */
  wallSkewMs = 0;

  constructor(name: string) {
    this.name = name;
  }
}

export class SimTimer {
  at: number;
  order = 0;
  readonly actor: Actor;
  readonly run: () => void;
  readonly everyMs: number;
  active = true;

  constructor(at: number, actor: Actor, run: () => void, everyMs: number) {
    this.at = at;
    this.actor = actor;
    this.run = run;
    this.everyMs = everyMs;
  }

  unref(): this {
    return this;
  }
}

function before(a: SimTimer, b: SimTimer): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

class Heap {
  readonly #items: SimTimer[] = [];

  get size(): number {
    return this.#items.length;
  }

  peek(): SimTimer | undefined {
    return this.#items[0];
  }

  push(item: SimTimer): void {
    const items = this.#items;
    let at = items.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(item, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): SimTimer | undefined {
    const items = this.#items;
    const [top] = items;
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++;
      if (!before(items[child]!, last)) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = last;
    return top;
  }
}

/** Runs promise reactions to their end, as the event loop does after each callback. */
const drain = (process as unknown as { _tickCallback(): void })._tickCallback.bind(process);

export class Scheduler {
  /** Milliseconds since the world began. */
  now = 0;
  steps = 0;
  /** Those who watch and act from outside: clients, operators, faults. */
  readonly world: Actor = new Actor("world");
  current: Actor = this.world;
  readonly #heap = new Heap();
  readonly #random: Random;
  #order = 0;
  /** Runs after each event. */
  afterStep: () => void = () => undefined;

  constructor(random: Random) {
    this.#random = random;
  }

  /** The wall clock of an actor. */
  wall(actor: Actor = this.current): number {
    return WALL_START_MS + this.now + actor.wallSkewMs;
  }

  /** Runs `run` after `ms`, as `actor`. */
  after(ms: number, run: () => void, actor: Actor = this.current, everyMs = 0): SimTimer {
    const timer = new SimTimer(this.now + Math.max(0, ms), actor, run, everyMs);
    this.#push(timer);
    return timer;
  }

  /** As `setTimeout`: never early, a little late. */
  timer(ms: number, run: () => void, everyMs = 0): SimTimer {
    return this.after(Math.max(1, ms || 0) + this.#random.next() * LATE_MS, run, this.current, everyMs);
  }

  /** Runs `run` now, as `actor`, with the promises that it settles; not from within a promise. */
  as<T>(actor: Actor, run: () => T): T {
    const outer = this.current;
    drain();
    this.current = actor;
    try {
      const result = run();
      drain();
      return result;
    } finally {
      this.current = outer;
    }
  }

  /** One event; false if there is none. */
  step(): boolean {
    const timer = this.#heap.pop();
    if (timer === undefined) return false;
    if (!timer.active || !timer.actor.alive) return true;
    this.now = Math.max(this.now, timer.at);
    if (timer.actor.frozenUntil > this.now) {
      timer.at = timer.actor.frozenUntil;
      this.#heap.push(timer);
      return true;
    }
    this.steps++;
    if (timer.everyMs > 0) {
      timer.at = this.now + timer.everyMs;
      this.#push(timer);
    } else timer.active = false;
    this.current = timer.actor;
    try {
      timer.run();
      drain();
    } catch (error) {
      if (!(error instanceof DeadProcessError)) throw error;
      drain();
    } finally {
      this.current = this.world;
    }
    this.afterStep();
    return true;
  }

  /** Runs everything up to `at`. */
  runUntil(at: number): void {
    for (;;) {
      const next = this.#heap.peek();
      if (next === undefined || next.at > at) break;
      this.step();
    }
    this.now = Math.max(this.now, at);
  }

  #push(timer: SimTimer): void {
    timer.order = this.#order++;
    this.#heap.push(timer);
  }

  /** Puts this clock in the place of the real one; returns the way back. */
  install(): () => void {
    let drained = false;
    queueMicrotask(() => (drained = true));
    drain();
    if (!drained) throw new Error("a simulation cannot run inside of a promise: begin it from a timer");
    const real = { setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate };
    const dateNow = Date.now;
    const performanceNow = performance.now;
    const stop = (timer: SimTimer | null | undefined): void => {
      if (timer) timer.active = false;
    };
    const args = (run: (...given: unknown[]) => void, given: unknown[]) =>
      given.length === 0 ? (run as () => void) : () => run(...given);
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0, ...given: unknown[]) => this.timer(ms, args(run, given)),
      setInterval: (run: () => void, ms = 0, ...given: unknown[]) => this.timer(ms, args(run, given), Math.max(1, ms)),
      setImmediate: (run: () => void, ...given: unknown[]) => this.after(0, args(run, given)),
      clearTimeout: stop,
      clearInterval: stop,
      clearImmediate: stop,
    });
    Date.now = () => Math.floor(this.wall());
    performance.now = () => this.now;
    return () => {
      Object.assign(globalThis, real);
      Date.now = dateNow;
      performance.now = performanceNow;
    };
  }
}
