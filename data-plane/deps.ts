/** What `createPipeline` is given. */

import type { Logger } from "pino";
import type { Budget } from "./budget/budget.ts";
import type { HealthSettings } from "./health.ts";
import type { TargetHealth } from "./target_health.ts";
import type { Journal } from "./journal/journal.ts";
import type { Rates } from "./rates/rates.ts";
import type { RouteTable } from "./route_table.ts";
import type { Spools } from "./spool/spools.ts";
import type { TokenCounter } from "./tokenizer/tokens.ts";
import type { Upstream } from "./transport.ts";
import type { UpstreamAuth } from "./upstream_auth.ts";

export interface PipelineSettings {
  /** `VE_DOMAIN`: `<ve>.<domain>` addresses a VE. Empty: off. */
  readonly veDomain: string;
  /** `CORS_ORIGINS`: empty is off, `["*"]` is any. */
  readonly corsOrigins: readonly string[];
  /** Overrides of HEALTH_DEFAULTS. */
  readonly health?: Partial<HealthSettings>;
}

/** Numbers of `outcome`, `endpoint` and `result` are those of the schema. */
export interface PipelineMetrics {
  /** A request was answered. `endpoint` and `outcome` are 0 where there is none. */
  request(endpoint: number, status: number, outcome: number, durationUs: number): void;
  /** The first content of an answer came `us` after arrival. */
  firstContent(us: number): void;
  /** `kind`: number of `tokenbill.v1.AttemptKind`. */
  attempt(result: number, kind: number): void;
}

export interface PipelineDeps {
  readonly table: RouteTable;
  readonly budget: Budget;
  readonly journal: Journal;
  /** Absent: rate limits are not kept. */
  readonly rates?: Rates;
  readonly upstream: Upstream;
  /** Absent: calls go out with what the adapters give them, as those of OpenAI's format do. */
  readonly auth?: UpstreamAuth;
  /** Absent: one by `settings.health`, of which nobody else hears. */
  readonly health?: TargetHealth;
  /** Milliseconds since 1970; may have a fraction, and should, for durations in microseconds. */
  now(): number;
  /**
   * Milliseconds since 1970 by the wall clock, as it is now; absent: `now` is right. Durations and deadlines are measured by
   * `now`, which does not jump; when a request arrived is written down by this one, since a node may start before its wall
   * clock is set.
   */
  wallNow?(): number;
  /** In [0, 1). */
  random(): number;
  /** `newId("usg_")`: see ids.ts. */
  newId(prefix: string): string;
  readonly settings: PipelineSettings;
  readonly log: Logger;
  readonly metrics: PipelineMetrics;
  /** Where forms with files are received; absent: they are refused. */
  readonly spools?: Spools;
  /** Counts what an upstream does not report; absent: text counts by its bytes. */
  readonly tokens?: TokenCounter;
}
