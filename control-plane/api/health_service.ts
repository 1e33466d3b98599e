/** What nodes share of upstreams: wire <-> health/. */

import type { ServiceImpl } from "@connectrpc/connect";
import type { HealthService } from "../../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import type { HealthExchange } from "../health/exchange.ts";
import { requireNode } from "./context.ts";

export function healthService(health: Pick<HealthExchange, "share">): ServiceImpl<typeof HealthService> {
  return {
    async shareHealth({ bootId, notes }, ctx) {
      requireNode(ctx);
      await health.share(bootId, notes);
      return {};
    },
  };
}
