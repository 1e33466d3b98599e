/** Answers that are read on although their clients left: bounded in time, in bytes, and in number for each Provider. */

/** An answer is read on for at most this long, and this many bytes. */
export const DRAIN_MS_MAX = 120_000;
export const DRAIN_BYTES_MAX = 16 * 1024 * 1024;
/** Answers of one Provider that this node reads on at a time; those beyond end as with CANCEL_ESTIMATE. */
export const DRAINS_MAX = 64;

export class Drains {
  private readonly running = new Map<string, number>();

  /** Null: there are too many already. */
  begin(providerId: string, now: number): Drain | null {
    const count = this.running.get(providerId) ?? 0;
    if (count >= DRAINS_MAX) return null;
    this.running.set(providerId, count + 1);
    return new Drain(now + DRAIN_MS_MAX, () => this.ended(providerId));
  }

  private ended(providerId: string): void {
    const left = this.running.get(providerId)! - 1;
    if (left === 0) this.running.delete(providerId);
    else this.running.set(providerId, left);
  }
}

export class Drain {
  /** When it must be over. */
  readonly until: number;
  private readonly ended: () => void;
  private bytes = 0;
  private over = false;

  constructor(until: number, ended: () => void) {
    this.until = until;
    this.ended = ended;
  }

  /** False: that was too much. */
  took(bytes: number): boolean {
    this.bytes += bytes;
    return this.bytes <= DRAIN_BYTES_MAX;
  }

  /** Makes room for another. Safe to call twice. */
  end(): void {
    if (this.over) return;
    this.over = true;
    this.ended();
  }
}
