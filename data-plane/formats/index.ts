/** Which bridge serves an endpoint at a target: the one place that knows all formats. */

import { Endpoint } from "../endpoints.ts";
import { ProviderFormat, type RoutePm, type RouteProvider } from "../route_types.ts";
import { anthropicChat } from "./anthropic/upstream.ts";
import { azureDialect, azureError, azureVersion } from "./azure.ts";
import { chatAnswer, chatSource } from "./chat_source.ts";
import { type Dialect, dialectOf, translatedDialect } from "./dialects.ts";
import type { Bridge, EndpointSpec } from "./format.ts";
import type { ChatUpstream } from "./hub.ts";
import { messagesClient } from "./messages/client.ts";
import { openAiBridge, openAiError } from "./openai.ts";
import { openAiChatRequest } from "./openai_chat.ts";
import { responsesClient } from "./responses/client.ts";
import { translated } from "./translated.ts";

/** By number of endpoint; absent: it cannot be served. */
export type Bridges = Readonly<Partial<Record<number, Bridge>>>;

/** Chat completions at a server that speaks them, for clients that do not. */
function openAiChat(dialect: Dialect, error: Bridge["error"]): ChatUpstream {
  const own = translatedDialect(dialect);
  return {
    request: (chat, target) => openAiChatRequest(chat, target, own),
    answer: chatAnswer,
    source: chatSource,
    error,
  };
}

function openAiBridges(dialect: Dialect, apis: readonly number[], error: Bridge["error"]): Bridges {
  const native = openAiBridge(dialect, error);
  const chat = openAiChat(dialect, error);
  return {
    [Endpoint.CHAT_COMPLETIONS]: native,
    [Endpoint.COMPLETIONS]: native,
    [Endpoint.EMBEDDINGS]: native,
    [Endpoint.MODERATIONS]: native,
    [Endpoint.RESPONSES]: translated({ client: responsesClient, upstream: chat }),
    [Endpoint.MESSAGES]: translated({ client: messagesClient, upstream: chat }),
  };
}

function anthropicBridges(): Bridges {
  return {
    [Endpoint.CHAT_COMPLETIONS]: translated({ client: null, upstream: anthropicChat }),
    [Endpoint.RESPONSES]: translated({ client: responsesClient, upstream: anthropicChat }),
    [Endpoint.MESSAGES]: translated({ client: messagesClient, upstream: anthropicChat }),
  };
}

function make(provider: RouteProvider, dialect: Dialect, apis: readonly number[]): Bridges {
  switch (provider.format) {
    case ProviderFormat.OPENAI:
      return openAiBridges(dialect, apis, openAiError);
    case ProviderFormat.AZURE_OPENAI:
      return openAiBridges(dialect, apis, azureError);
    case ProviderFormat.ANTHROPIC:
      return anthropicBridges();
    default:
      return {};
  }
}

function dialectFor(provider: RouteProvider): Dialect {
  if (provider.format === ProviderFormat.AZURE_OPENAI) return azureDialect(azureVersion(provider));
  return dialectOf(provider.account.dialect, provider.origin);
}

/** Few: one for each format, dialect and set of APIs in use. */
const made = new Map<string, Bridges>();

/** The bridges to a Provider's models. `apis`: of a model that says so itself; else empty. */
export function bridgesOf(provider: RouteProvider, apis: readonly number[]): Bridges {
  const dialect = dialectFor(provider);
  const spoken = apis.length === 0 ? dialect.apis : apis;
  const key = [provider.format, provider.account.bedrockApi, dialect.title, ...spoken].join(" ");
  let bridges = made.get(key);
  if (bridges === undefined) made.set(key, (bridges = make(provider, dialect, spoken)));
  return bridges;
}

/** How an endpoint is served by a target; null: it cannot be. */
export function bridgeOf(endpoint: EndpointSpec, pm: RoutePm): Bridge | null {
  const { provider } = pm;
  const bridges = pm.apis.length === 0 ? provider.bridges : bridgesOf(provider, pm.apis);
  return bridges[endpoint.number] ?? null;
}

/** True if requests of this endpoint may be sent to a target that is routable. */
export function serves(endpoint: EndpointSpec, pm: RoutePm): boolean {
  return (pm.kinds & endpoint.kinds) !== 0 && bridgeOf(endpoint, pm) !== null;
}
