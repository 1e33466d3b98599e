/** Targets, deadlines, routing and rate limits: wire <-> stored. The feed sends nodes the same. */

import { create } from "@bufbuild/protobuf";
import {
  type Deadlines,
  DeadlinesSchema,
  type Routing,
  RoutingSchema,
  type StickyRouting,
  StickyRoutingSchema,
  type StickySource,
  type Target,
  TargetSchema,
} from "../../proto/gen/tokenbill/v1/logical_model_pb.ts";
import { type RateLimits, RateLimitsSchema } from "../../proto/gen/tokenbill/v1/rate_limit_pb.ts";
import { checkSticky, checkTargetDeadlines } from "../domain/routing.ts";
import type { StoredDeadlines, StoredRateLimits, StoredRouting, StoredTarget } from "../store/routing_columns.ts";

export function storedDeadlines(deadlines: Deadlines | undefined): StoredDeadlines {
  return {
    connect_ms: deadlines?.connectMs ?? 0,
    first_byte_ms: deadlines?.firstByteMs ?? 0,
    idle_ms: deadlines?.idleMs ?? 0,
    total_ms: deadlines?.totalMs ?? 0,
    first_content_ms: deadlines?.firstContentMs ?? 0,
  };
}

export function toDeadlines(stored: StoredDeadlines): Deadlines {
  return create(DeadlinesSchema, {
    connectMs: stored.connect_ms,
    firstByteMs: stored.first_byte_ms,
    idleMs: stored.idle_ms,
    totalMs: stored.total_ms,
    firstContentMs: stored.first_content_ms ?? 0,
  });
}

/** `field` is where it is in the request. @throws DomainError invalid_field */
export function storedTarget(target: Target, field: string): StoredTarget {
  const { physicalModelId: pm, tier, weight, deadlines } = target;
  if (deadlines === undefined) return { pm, tier, weight };
  checkTargetDeadlines(deadlines, `${field}.deadlines`);
  const own = storedDeadlines(deadlines);
  // Deadlines that say nothing are none, so that equal targets are stored alike.
  return Object.values(own).every((ms) => ms === 0) ? { pm, tier, weight } : { pm, tier, weight, deadlines: own };
}

export function toTarget({ pm, tier, weight, deadlines }: StoredTarget): Target {
  return create(TargetSchema, { physicalModelId: pm, tier, weight, deadlines: deadlines && toDeadlines(deadlines) });
}

/** Null: it says nothing. @throws DomainError invalid_field */
export function storedRouting(routing: Routing | undefined): StoredRouting | null {
  if (routing === undefined) return null;
  const { hedgeAfterMs, sticky } = routing;
  if (sticky === undefined) return hedgeAfterMs === 0 ? null : { hedge_after_ms: hedgeAfterMs, sticky: null };
  checkSticky(sticky, "routing.sticky");
  return { hedge_after_ms: hedgeAfterMs, sticky: { sources: sticky.sources, header: sticky.header } };
}

function toSticky({ sources, header }: NonNullable<StoredRouting["sticky"]>): StickyRouting {
  return create(StickyRoutingSchema, { sources: sources as StickySource[], header });
}

export function toRouting(stored: StoredRouting | null): Routing | undefined {
  if (stored === null) return undefined;
  const sticky = stored.sticky === null ? undefined : toSticky(stored.sticky);
  return create(RoutingSchema, { hedgeAfterMs: stored.hedge_after_ms, sticky });
}

/** Null: it limits nothing. */
export function storedRateLimits(limits: RateLimits): StoredRateLimits | null {
  const { requestsPerMinute, tokensPerMinute, concurrentRequests } = limits;
  if (requestsPerMinute === 0 && tokensPerMinute === 0n && concurrentRequests === 0) return null;
  return {
    requests_per_minute: requestsPerMinute,
    tokens_per_minute: Number(tokensPerMinute),
    concurrent_requests: concurrentRequests,
  };
}

/** What a request asks for, else what there was. */
export function rateLimitsOr(asked: RateLimits | undefined, present: StoredRateLimits | null): StoredRateLimits | null {
  return asked === undefined ? present : storedRateLimits(asked);
}

export function toRateLimits(stored: StoredRateLimits | null): RateLimits | undefined {
  if (stored === null) return undefined;
  return create(RateLimitsSchema, {
    requestsPerMinute: stored.requests_per_minute,
    tokensPerMinute: BigInt(stored.tokens_per_minute),
    concurrentRequests: stored.concurrent_requests,
  });
}
