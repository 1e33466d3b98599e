/**
 * What nodes saw of upstreams and still holds, in memory: for nodes that begin to watch, and for people who ask. Losing it
 * does no harm, since nodes tell again what goes on.
 */

import { faded } from "../../core/failure_average.ts";
import { HealthCause } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";

/** More Physical Models and Providers than this: those of which nothing was heard for the longest time are forgotten. */
export const SUBJECTS_MAX = 10_000;
/** Without a cooldown that holds, an entry is forgotten so long after its last note. */
export const ENTRY_MS_MAX = 60_000;

/** As `tokenbill.node.v1.HealthNote`: a cause says that it is about a cooldown, which is over if `coolMs` is 0. */
export interface SeenNote {
  readonly subjectId: string;
  readonly coolMs: number;
  /** Unspecified: only the figures are told of. */
  readonly cause: HealthCause;
  readonly failurePercent: number;
  /** 0: not known. */
  readonly firstContentMs: number;
}

export interface BoardNote extends SeenNote {
  /** The boot that saw it last. */
  readonly bootId: string;
}

/** How a Physical Model or Provider stands. */
export interface SubjectHealth {
  /** Milliseconds since 1970; 0: it does not cool down. */
  readonly coolUntilMs: number;
  /** Of that; unspecified: it does not cool down. */
  readonly cause: HealthCause;
  /** Of a Provider: of calls that no connection could be made for. */
  readonly failurePercent: number;
  /** 0: not known. */
  readonly firstContentMs: number;
}

interface Entry {
  /** Milliseconds since 1970; 0: there is none, or it is over because the subject is well again. */
  coolUntilMs: number;
  cause: HealthCause;
  failurePercent: number;
  firstContentMs: number;
  bootId: string;
  noteAtMs: number;
}

export class HealthBoard {
  readonly #now: () => number;
  /** By subject, the one that was heard of last at the end. */
  readonly #entries = new Map<string, Entry>();

  /** `now`: milliseconds since 1970. */
  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Takes a note in. Cooldowns of several nodes last as long as the longest; of figures the newest counts. */
  take(note: SeenNote, bootId: string): void {
    const now = this.#now();
    const { subjectId, coolMs, cause, failurePercent, firstContentMs } = note;
    const before = this.#entries.get(subjectId);
    const entry = before ?? {
      coolUntilMs: 0,
      cause: HealthCause.UNSPECIFIED,
      failurePercent,
      firstContentMs,
      bootId,
      noteAtMs: now,
    };
    if (cause !== HealthCause.UNSPECIFIED && coolMs === 0) entry.coolUntilMs = 0;
    if (cause !== HealthCause.UNSPECIFIED && now + coolMs >= entry.coolUntilMs) {
      entry.cause = cause;
      if (coolMs > 0) entry.coolUntilMs = now + coolMs;
    }
    entry.failurePercent = failurePercent;
    if (firstContentMs > 0) entry.firstContentMs = firstContentMs;
    entry.bootId = bootId;
    entry.noteAtMs = now;
    this.#entries.delete(subjectId);
    this.#entries.set(subjectId, entry);
    if (this.#entries.size > SUBJECTS_MAX) this.#entries.delete(this.#entries.keys().next().value!);
  }

  /** Null: nothing is known. */
  health(id: string): SubjectHealth | null {
    const now = this.#now();
    const entry = this.#entries.get(id);
    if (entry === undefined || isOver(entry, now)) return null;
    const cooling = entry.coolUntilMs > now;
    return {
      coolUntilMs: cooling ? entry.coolUntilMs : 0,
      cause: cooling ? entry.cause : HealthCause.UNSPECIFIED,
      failurePercent: percentOf(entry, now),
      firstContentMs: entry.firstContentMs,
    };
  }

  /** The present state as a note. `cooldown`: it is about the cooldown too, be it that there is none any more. */
  note(id: string, cooldown: boolean): BoardNote | null {
    const now = this.#now();
    const entry = this.#entries.get(id);
    if (entry === undefined || isOver(entry, now)) return null;
    const { coolUntilMs, cause, firstContentMs, bootId } = entry;
    // One that ended by time is no news: it is not known whether the subject is well again.
    const holds = cooldown && (coolUntilMs === 0 || coolUntilMs > now);
    return {
      subjectId: id,
      coolMs: holds ? Math.max(0, Math.round(coolUntilMs - now)) : 0,
      cause: holds ? cause : HealthCause.UNSPECIFIED,
      failurePercent: percentOf(entry, now),
      firstContentMs,
      bootId,
    };
  }

  /** Every subject, with true for one whose cooldown holds. */
  all(): Map<string, boolean> {
    this.prune();
    const now = this.#now();
    return new Map([...this.#entries].map(([id, { coolUntilMs }]) => [id, coolUntilMs > now]));
  }

  /** Forgets what does not hold any more. */
  prune(): void {
    const now = this.#now();
    for (const [id, entry] of this.#entries) if (isOver(entry, now)) this.#entries.delete(id);
  }
}

function isOver({ coolUntilMs, noteAtMs }: Entry, now: number): boolean {
  return coolUntilMs <= now && now - noteAtMs >= ENTRY_MS_MAX;
}

function percentOf({ failurePercent, noteAtMs }: Entry, now: number): number {
  return Math.round(faded(failurePercent, now - noteAtMs));
}
