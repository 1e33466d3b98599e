/** One node's place in the feed: a bounded queue between the shared changes and its stream. */

import { DomainError } from "../domain/errors.ts";
import type { LimitKind } from "../domain/limits.ts";
import { SUBJECTS_MAX } from "../health/board.ts";
import type { Subjects } from "../health/exchange.ts";
import type { DeltaPart } from "./chunks.ts";

/** Events that wait for a node at most; a node that is further behind is disconnected and starts from its cursor. */
export const WATCHER_QUEUE_MAX = 1024;

/** A change set that was read once and is shared by all watchers. `parts` is null when it is too large for deltas. */
export interface SharedDelta {
  readonly from: bigint;
  readonly revision: bigint;
  readonly parts: readonly DeltaPart[] | null;
}

export type WatcherEvent =
  | { readonly kind: "delta"; readonly delta: SharedDelta }
  | {
      readonly kind: "wallet";
      readonly veId: string;
      readonly recall: boolean;
      readonly toppedUp: boolean;
      /** Of a limit instead of a wallet. */
      readonly physicalModelId?: string;
      readonly limitKind?: LimitKind;
    }
  /** Whose health other nodes saw changing. */
  | { readonly kind: "health"; readonly subjects: Subjects }
  | { readonly kind: "checkpoint" };

export class Watcher {
  readonly bootId: string;
  /** Deltas are queued only once the snapshot is through; until then they are part of what is read. */
  live = false;
  #queue: WatcherEvent[] = [];
  #checkpoint = false;
  /** Changes of health come together, so that an outage of upstreams never makes the queue long. */
  #health = new Map<string, boolean>();
  #wake: (() => void) | null = null;
  #end: DomainError | null = null;
  #closed = false;

  constructor(bootId: string) {
    this.bootId = bootId;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Queues an event. Returns false when the queue is full: the watcher is then ended, and its queue let go. */
  push(event: WatcherEvent): boolean {
    if (this.#closed || this.#end !== null) return true;
    if (event.kind === "checkpoint") this.#checkpoint = true;
    else if (event.kind === "health") this.#noteHealth(event.subjects);
    else if (event.kind !== "delta" || this.live) this.#queue.push(event);
    if (this.#queue.length > WATCHER_QUEUE_MAX) {
      this.end(
        new DomainError("unavailable", "the node does not keep up with the feed: connect again from the cursor"),
      );
      return false;
    }
    this.#ring();
    return true;
  }

  #noteHealth(subjects: Subjects): void {
    for (const [id, cooldown] of subjects) {
      const waiting = this.#health.get(id);
      // Who is so far behind misses the rest, which does no harm.
      if (waiting === undefined && this.#health.size >= SUBJECTS_MAX) continue;
      this.#health.set(id, cooldown || waiting === true);
    }
  }

  /** Ends the stream with an error that makes the node connect again. */
  end(error: DomainError): void {
    this.#end ??= error;
    this.#queue = [];
    this.#ring();
  }

  /** Ends the stream because the node went away. */
  close(): void {
    this.#closed = true;
    this.#queue = [];
    this.#ring();
  }

  #ring(): void {
    this.#wake?.();
  }

  /** The next event; null when the node went away. @throws DomainError unavailable when the feed ended it */
  async next(): Promise<WatcherEvent | null> {
    for (;;) {
      if (this.#closed) return null;
      if (this.#end !== null) throw this.#end;
      const event = this.#queue.shift();
      if (event !== undefined) return event;
      if (this.#checkpoint) {
        this.#checkpoint = false;
        return { kind: "checkpoint" };
      }
      if (this.#health.size > 0) {
        const subjects = this.#health;
        this.#health = new Map();
        return { kind: "health", subjects };
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }
}
