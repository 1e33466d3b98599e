/** PURE. Calls chat completions at a server that speaks OpenAI's format, for clients that do not. */

import { ProviderFormat, type RoutePm, type RouteProvider } from "../route_types.ts";
import { azureDialect, azureVersion } from "./azure.ts";
import { type Dialect, dialectOf } from "./dialects.ts";
import { dialectRequest } from "./dialect_request.ts";
import { without } from "./dialect_rules.ts";
import type { HubCall, HubTarget, Json } from "./hub.ts";
import { objectOf } from "./json.ts";

/** What a dialect was found with: Providers are updated in place. */
const known = new WeakMap<
  RouteProvider,
  { account: RouteProvider["account"]; origin: string; format: number; baseQuery: string; dialect: Dialect }
>();

/** The dialect of a Provider that speaks OpenAI's format, Azure included. Remembered, since every request asks. */
export function providerDialect(provider: RouteProvider): Dialect {
  const { account, origin, format, baseQuery } = provider;
  const kept = known.get(provider);
  if (
    kept !== undefined &&
    kept.account === account &&
    kept.origin === origin &&
    kept.format === format &&
    kept.baseQuery === baseQuery
  )
    return kept.dialect;
  const dialect =
    format === ProviderFormat.AZURE_OPENAI ? azureDialect(azureVersion(provider)) : dialectOf(account.dialect, origin);
  known.set(provider, { account, origin, format, baseQuery, dialect });
  return dialect;
}

/** The name that tells what a Physical Model can: its family, or else its upstream name. */
export function familyOf(pm: RoutePm): string {
  return pm.family === "" ? pm.upstreamName : pm.family;
}

const STREAM_FIELDS = ["stream", "stream_options"];

/** Usage is always asked for: whether the client hears of it is for its own format to say. */
function streamMembers(dialect: Dialect, chat: Json): Json {
  if (!dialect.streamOptions) return { stream: true };
  return { stream: true, stream_options: { ...objectOf(chat["stream_options"]), include_usage: true } };
}

/** The call for a request of the hub, after the base URL. */
export function openAiChatRequest(chat: Json, target: HubTarget, dialect: Dialect): HubCall {
  const model = target.family === "" ? target.model : target.family;
  const plain = without(dialectRequest(dialect, chat, model), STREAM_FIELDS);
  const body = { ...plain, model: target.model, ...(target.stream ? streamMembers(dialect, chat) : {}) };
  return { path: "/chat/completions", headers: [], body };
}
