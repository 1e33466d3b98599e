/** What went wrong in a run, and the last things that happened before. */

export interface Violation {
  readonly invariant: string;
  readonly detail: string;
  readonly at: number;
}

/** How many of the last events a failing run shows. */
const TRACE_MAX = 60;
/** Once something is wrong, more of it says little. */
const VIOLATIONS_MAX = 20;

export class Violations {
  readonly list: Violation[] = [];
  readonly trace: string[] = [];
  /** Checks that were made. */
  checks = 0;
  hash = 0;
  /** Keeps the whole trace. */
  readonly keep: boolean;
  readonly #now: () => number;

  constructor(now: () => number, keep: boolean) {
    this.#now = now;
    this.keep = keep;
  }

  add(invariant: string, detail: string): void {
    if (this.list.length < VIOLATIONS_MAX) this.list.push({ invariant, detail, at: this.#now() });
    this.note(`VIOLATION ${invariant}: ${detail}`);
  }

  check(invariant: string, holds: boolean, detail: () => string): void {
    this.checks++;
    if (!holds) this.add(invariant, detail());
  }

  /** One line of the trace. */
  note(line: string): void {
    for (let i = 0; i < line.length; i++) this.hash = (Math.imul(this.hash, 31) + line.charCodeAt(i)) | 0;
    this.hash = (Math.imul(this.hash, 31) + Math.round(this.#now() * 1000)) | 0;
    this.trace.push(`${this.#now().toFixed(3).padStart(12)} ${line}`);
    if (!this.keep && this.trace.length > TRACE_MAX * 2) this.trace.splice(0, TRACE_MAX);
  }

  lastOfTrace(): readonly string[] {
    return this.keep ? this.trace : this.trace.slice(-TRACE_MAX);
  }
}
