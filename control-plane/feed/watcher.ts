/** One node's place in the feed: a bounded queue between the shared changes and its stream. */

import { DomainError } from "../domain/errors.ts";
import type { LimitKind } from "../domain/limits.ts";
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
  | { readonly kind: "checkpoint" };

export class Watcher {
  readonly bootId: string;
  /** Deltas are queued only once the snapshot is through; until then they are part of what is read. */
  live = false;
  #queue: WatcherEvent[] = [];
  #checkpoint = false;
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
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }
}
