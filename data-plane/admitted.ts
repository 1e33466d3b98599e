/** What is known of a request when it is admitted, and what follows from that alone. */

import type { ScannedBody } from "./body.ts";
import type { Reservation } from "./budget/budget.ts";
import type { EndpointSpec, Format } from "./formats/format.ts";
import { FORWARDED_HEADERS } from "./formats/openai.ts";
import type { RateHold } from "./rates/rates.ts";
import type { ExpectedTokens } from "./rates/expected_tokens.ts";
import type { RouteKey, RouteLm, RoutePm } from "./route_types.ts";
import type { Exchange, OutboundRequest } from "./transport.ts";

export interface Admitted {
  readonly id: string;
  readonly arriveMs: number;
  readonly key: RouteKey;
  readonly endpoint: EndpointSpec;
  readonly lm: RouteLm;
  readonly body: ScannedBody;
  readonly stream: boolean;
  /** Headers that the answer has in any case. */
  readonly headers: string[];
  readonly reservation: Reservation;
  /** Tokens that it is expected to use, for rate limits. */
  readonly tokens: ExpectedTokens;
  /** What is held of the rate limits of its key and its VE. */
  readonly rates: readonly RateHold[];
  /** Hash of the key that it sticks to a target by; 0: it does not. */
  readonly sticky: number;
  /** A call that lost to another of the same request is billed by itself: the id of that request. */
  readonly hedgeOf?: string;
  /** The answer's length is limited to this upstream; null: as the client wishes. */
  readonly clampTo: number | null;
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

/** The call to make at a target. */
export function outboundOf(request: Admitted, format: Format, pm: RoutePm, exchange: Exchange): OutboundRequest {
  const forwarded: string[] = [];
  for (const name of FORWARDED_HEADERS) {
    const value = exchange.header(name);
    if (value !== "") forwarded.push(name, value);
  }
  const changes = {
    model: pm.upstreamName,
    includeUsage: request.stream,
    outputTokensMax: request.clampTo,
    outputTokensField: format.outputTokensField(pm.provider, request.endpoint),
  };
  return format.request(pm, request.endpoint, request.body, changes, forwarded);
}
