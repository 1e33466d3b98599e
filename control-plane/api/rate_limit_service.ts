/** Rate limits of nodes: wire <-> rates/. */

import type { ServiceImpl } from "@connectrpc/connect";
import type {
  RateKind as WireKind,
  RateLimitService,
  RateUse,
} from "../../proto/gen/tokenbill/node/v1/rate_limit_service_pb.ts";
import type { RateKind, RateReport } from "../domain/rates.ts";
import type { RateSharing } from "../rates/rate_sharing.ts";
import { requireNode } from "./context.ts";

function toRateReport({ subjectId, kind, limit, used, held, want }: RateUse): RateReport {
  return {
    subjectId,
    // Validated: a number of the schema, and not its zero.
    kind: kind as number as RateKind,
    limit: Number(limit),
    used: Number(used),
    held: Number(held),
    want: Number(want),
  };
}

export function rateLimitService(rates: RateSharing): ServiceImpl<typeof RateLimitService> {
  return {
    async shareRates({ bootId, uses, final, withTight }, ctx) {
      requireNode(ctx);
      const reports = uses.map(toRateReport);
      const { grants, shared, nodes, ttlMs, tight } = await rates.share({ bootId, reports, final, withTight });
      return {
        grants: grants.map(({ allowance, remaining }) => ({
          allowance: BigInt(allowance),
          remaining: BigInt(remaining),
        })),
        shared,
        nodes,
        ttlMs,
        tight: tight.map(({ subjectId, kind }) => ({ subjectId, kind: kind as number as WireKind })),
      };
    },
  };
}
