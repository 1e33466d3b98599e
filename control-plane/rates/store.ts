/** Where the figures of all nodes are kept: in memory for one control plane, in Redis for several. */

import type { RateGrant, RateKind, RateReport } from "../domain/rates.ts";

export interface RateShare {
  readonly bootId: string;
  readonly reports: readonly RateReport[];
  /** The node stops. */
  readonly final: boolean;
  /** Asks for `tight`. */
  readonly withTight: boolean;
}

export interface RateShared {
  /** In the order of the reports. */
  readonly grants: readonly RateGrant[];
  /** Nodes that reported lately. */
  readonly nodes: number;
  /** The limits that are tight, in no order. */
  readonly tight: readonly RateTight[];
}

export interface RateTight {
  readonly subjectId: string;
  readonly kind: RateKind;
}

export interface RateLimitOf {
  readonly kind: RateKind;
  readonly limit: number;
}

export interface RateStore {
  /** Takes figures in and grants. Safe to repeat. @throws when the figures of other nodes cannot be known now */
  share(share: RateShare): Promise<RateShared>;
  /** What is left of each limit over all nodes. @throws as above */
  remaining(subjectId: string, limits: readonly RateLimitOf[]): Promise<number[]>;
  close(): Promise<void>;
}
