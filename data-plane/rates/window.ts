/** PURE. What was used within the last 60 seconds. */

export const WINDOW_MS = 60_000;
/** Amounts of the same tick are one entry: so fine that the window is at most 0.2 % longer than a minute, never shorter. */
export const TICK_MS = 100;
const WINDOW_TICKS = WINDOW_MS / TICK_MS;
/** The sizes of the ring: it grows with what is in it, up to one entry for each tick. */
const ENTRIES_MIN = 4;
const ENTRIES_MAX = 1024;

export class SlidingWindow {
  /** Rings whose length is a power of two: ascending ticks, and what was used in each. */
  #ticks = new Float64Array(ENTRIES_MIN);
  #amounts = new Float64Array(ENTRIES_MIN);
  #head = 0;
  #count = 0;
  #sum = 0;
  /** All that has left the window so far. */
  left = 0;

  /** Exact for whole numbers. Never negative. */
  used(now: number): number {
    this.#expire(Math.floor(now / TICK_MS));
    return this.#sum;
  }

  /** Returns the tick, with which the amount can be taken back. */
  add(now: number, amount: number): number {
    const tick = Math.floor(now / TICK_MS);
    this.#expire(tick);
    if (amount <= 0) return tick;
    const last = this.#count === 0 ? -1 : this.#at(this.#count - 1);
    // A clock that went back is not followed: the entries stay in order.
    if (last !== -1 && this.#ticks[last]! >= tick) {
      this.#amounts[last]! += amount;
      this.#sum += amount;
      return this.#ticks[last]!;
    }
    if (this.#count === this.#ticks.length) this.#grow();
    const next = this.#at(this.#count++);
    this.#ticks[next] = tick;
    this.#amounts[next] = amount;
    this.#sum += amount;
    return tick;
  }

  /** Takes back from where it was added; what has left the window meanwhile is not there to be taken. */
  remove(tick: number, amount: number): void {
    let [low, high] = [0, this.#count - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ticks[this.#at(middle)]! < tick) low = middle + 1;
      else high = middle;
    }
    const at = this.#at(low);
    if (this.#count === 0 || this.#ticks[at] !== tick) return;
    const taken = Math.min(amount, this.#amounts[at]!);
    this.#amounts[at]! -= taken;
    this.#sum -= taken;
  }

  /** Milliseconds until at least `amount` has left the window, all of it at the latest. */
  freeInMs(now: number, amount: number): number {
    let freed = 0;
    for (let i = 0; i < this.#count; i++) {
      const at = this.#at(i);
      freed += this.#amounts[at]!;
      if (freed >= amount) return this.#leavesAt(at) - now;
    }
    return this.emptyInMs(now);
  }

  emptyInMs(now: number): number {
    return this.#count === 0 ? 0 : Math.max(0, this.#leavesAt(this.#at(this.#count - 1)) - now);
  }

  /** Something of a tick may be from its last moment, so it stays for a whole minute from there. */
  #leavesAt(at: number): number {
    return (this.#ticks[at]! + 1 + WINDOW_TICKS) * TICK_MS;
  }

  #at(offset: number): number {
    return (this.#head + offset) & (this.#ticks.length - 1);
  }

  #expire(tick: number): void {
    while (this.#count > 0 && this.#ticks[this.#head]! + WINDOW_TICKS < tick) {
      this.#sum -= this.#amounts[this.#head]!;
      this.left += this.#amounts[this.#head]!;
      this.#head = (this.#head + 1) & (this.#ticks.length - 1);
      this.#count--;
    }
  }

  #grow(): void {
    const size = this.#ticks.length * 2;
    // There are fewer ticks in a window than this.
    if (size > ENTRIES_MAX) throw new Error("a window has more entries than ticks");
    const [ticks, amounts] = [new Float64Array(size), new Float64Array(size)];
    for (let i = 0; i < this.#count; i++) {
      ticks[i] = this.#ticks[this.#at(i)]!;
      amounts[i] = this.#amounts[this.#at(i)]!;
    }
    this.#ticks = ticks;
    this.#amounts = amounts;
    this.#head = 0;
  }
}
