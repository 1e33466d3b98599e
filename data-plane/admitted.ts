/** What is known of a request when it is admitted, and what follows from that alone. */

import type { Reservation } from "./budget/budget.ts";
import type { RequestSize } from "./budget/estimate.ts";
import type { Asked, Bridge } from "./formats/format.ts";
import type { RateHold } from "./rates/rates.ts";
import type { ExpectedTokens } from "./rates/expected_tokens.ts";
import type { RouteGroup, RouteKey, RouteLm, RoutePm } from "./route_types.ts";
import type { Exchange, OutboundRequest } from "./transport.ts";

export interface Admitted extends Asked {
  readonly key: RouteKey;
  readonly lm: RouteLm;
  /** Where it may go: the targets of its Logical Model, or the one that it is pinned to. */
  readonly group: RouteGroup;
  /** Headers that the answer has in any case. */
  readonly headers: string[];
  readonly reservation: Reservation;
  readonly size: RequestSize;
  /** Tokens that it is expected to use, for rate limits. */
  readonly tokens: ExpectedTokens;
  /** What is held of the rate limits of its key and its VE. */
  readonly rates: readonly RateHold[];
  /** Hash of the key that it sticks to a target by; 0: it does not. */
  readonly sticky: number;
  /** A call that lost to another of the same request is billed by itself: the id of that request. */
  readonly hedgeOf?: string;
}

/** The part that intents and settlements share. */
export function identityOf({ id, key, lm, body, endpoint }: Admitted) {
  return {
    id,
    veId: key.ve.id,
    accessKeyId: key.id,
    logicalModelId: lm.id,
    logicalModel: body.model,
    endpoint: endpoint.number,
  };
}

/** The call to make at a target, without its credentials. @throws RefusedFieldError */
export function outboundOf(request: Admitted, bridge: Bridge, pm: RoutePm, exchange: Exchange): OutboundRequest {
  if (bridge.translated) return bridge.request(pm, request, NO_HEADERS);
  // The only header of clients that goes upstream. Everything else stays here, SDK telemetry included.
  const name = request.endpoint.shape === "messages" ? "anthropic-beta" : "openai-beta";
  const value = exchange.header(name);
  return bridge.request(pm, request, value === "" ? NO_HEADERS : [name, value]);
}

const NO_HEADERS: readonly string[] = [];
