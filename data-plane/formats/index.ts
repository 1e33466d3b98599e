import { ProviderFormat, type RoutePm } from "../route_types.ts";
import type { Bridge, EndpointSpec } from "./format.ts";
import { openai } from "./openai.ts";

/** How an endpoint is served by a target; null: it cannot be. */
export function bridgeOf(endpoint: EndpointSpec, pm: RoutePm): Bridge | null {
  return pm.provider.format === ProviderFormat.OPENAI && endpoint.shape !== "messages" ? openai : null;
}

/** True if requests of this endpoint may be sent to a target that is routable. */
export function serves(endpoint: EndpointSpec, pm: RoutePm): boolean {
  return (pm.kinds & endpoint.kinds) !== 0 && bridgeOf(endpoint, pm) !== null;
}
