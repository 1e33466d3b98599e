/** What the pipeline needs of the journal: a durable log of what is owed. */

import type { Credits } from "../../core/credits.ts";
import type { UnitQuantity } from "../../core/meters.ts";

/** Numbers equal `tokenbill.v1.Endpoint`, `Outcome` and `AttemptResult`. */
export interface AttemptEntry {
  readonly physicalModelId: string;
  readonly tier: number;
  readonly result: number;
  readonly httpStatus: number;
  readonly startUs: number;
  readonly durationUs: number;
  /** Number of `tokenbill.v1.AttemptKind`. */
  readonly kind: number;
  /** After `startUs`; 0: it never came to that. */
  readonly firstByteUs: number;
  readonly firstContentUs: number;
  /** A word; printable ASCII. */
  readonly detail: string;
  /** What was billed for it. */
  credits: Credits;
}

/** One finished request: everything of `tokenbill.node.v1.UsageRecord` but `record_no`, which the journal gives. */
export interface Settlement {
  readonly id: string;
  readonly veId: string;
  readonly accessKeyId: string;
  readonly logicalModelId: string;
  readonly logicalModel: string;
  readonly endpoint: number;
  readonly stream: boolean;
  readonly physicalModelId: string;
  readonly priceId: string;
  readonly units: readonly UnitQuantity[];
  readonly credits: Credits;
  readonly outcome: number;
  readonly httpStatus: number;
  readonly attempts: readonly AttemptEntry[];
  /** Microseconds since 1970; exact as a double until 2255. */
  readonly arriveUnixUs: number;
  readonly firstByteUs: number;
  readonly firstContentUs: number;
  readonly durationUs: number;
  readonly upstreamRequestId: string;
  readonly errorCode: string;
  /** Of a call that lost to another of the same request: that request. */
  readonly hedgeOf?: string | undefined;
  /** What it used of limits of its Physical Model that this node has leases of; not part of the record. */
  readonly limits?: readonly LimitUse[];
}

/** How much of a limit (budget/accounts.ts) a request used. */
export interface LimitUse {
  readonly account: string;
  readonly amount: Credits;
}

/** A stream was admitted: enough to bill it if the node dies. Fields as in Settlement. */
export interface Intent {
  readonly id: string;
  readonly veId: string;
  readonly accessKeyId: string;
  readonly logicalModelId: string;
  readonly logicalModel: string;
  readonly endpoint: number;
  readonly arriveUnixUs: number;
}

/** Where a stream stands: the target that serves it, its price, and its usage so far. Replaces the one before. */
export interface Progress {
  readonly id: string;
  readonly physicalModelId: string;
  readonly priceId: string;
  readonly units: readonly UnitQuantity[];
  readonly credits: Credits;
}

export interface Journal {
  /** False while nothing can be written (disk full, too far behind): admit nothing. */
  readonly accepting: boolean;
  /** Not waited for: it is on disk within the turn. */
  intent(intent: Intent): void;
  progress(progress: Progress): void;
  /**
   * Appends a settlement. `written` runs after the write of this event-loop turn, before which the last byte of the
   * response must not leave. It runs with an error if the write failed; the record is then kept in memory and retried.
   */
  settle(settlement: Settlement, written: (error?: Error) => void): void;
}
