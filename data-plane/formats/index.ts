/** Which bridge serves an endpoint at a target: the one place that knows all formats. */

import { Endpoint } from "../endpoints.ts";
import { BedrockApi, ModelApi, ProviderFormat, type RoutePm, type RouteProvider } from "../route_types.ts";
import { anthropicBridge } from "./anthropic/bridge.ts";
import { anthropicChat } from "./anthropic/upstream.ts";
import { speechBridge, transcriptionBridge } from "./audio_bridge.ts";
import { azureError } from "./azure.ts";
import { converseChat } from "./bedrock/converse.ts";
import { bedrockError } from "./bedrock/errors.ts";
import { bedrockEmbeddings, bedrockImages } from "./bedrock/invoke.ts";
import { eventStreamSplitter } from "./bedrock/splitter.ts";
import { chatAnswer, chatSource } from "./chat_source.ts";
import { type Dialect, OPENAI_DIALECT, translatedDialect } from "./dialects.ts";
import type { AnswerHeaders, Bridge, EndpointSpec, FrameSplitter } from "./format.ts";
import type { ChatUpstream, UpstreamError } from "./hub.ts";
import { imagesBridge } from "./images_bridge.ts";
import { parseObject } from "./json.ts";
import { jsonBridge } from "./json_bridge.ts";
import { messagesClient } from "./messages/client.ts";
import { openAiBridge, openAiError } from "./openai.ts";
import { openAiChatRequest, providerDialect } from "./openai_chat.ts";
import { responsesBridge } from "./responses/bridge.ts";
import { responsesClient } from "./responses/client.ts";
import { responsesChat } from "./responses/upstream.ts";
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

/** A server that speaks chat completions, responses, or both. */
function openAiBridges(dialect: Dialect, apis: readonly number[], error: Bridge["error"]): Bridges {
  const native = openAiBridge(dialect, error);
  const images = imagesBridge(dialect, error);
  const transcriptions = transcriptionBridge(dialect, error);
  const hasChat = apis.includes(ModelApi.CHAT_COMPLETIONS);
  const hasResponses = apis.includes(ModelApi.RESPONSES);
  const upstream: ChatUpstream = hasChat ? openAiChat(dialect, error) : { ...responsesChat, error };
  return {
    [Endpoint.CHAT_COMPLETIONS]: hasChat ? native : translated({ client: null, upstream }),
    [Endpoint.COMPLETIONS]: native,
    [Endpoint.EMBEDDINGS]: native,
    [Endpoint.MODERATIONS]: native,
    [Endpoint.IMAGES_GENERATIONS]: images,
    [Endpoint.IMAGES_EDITS]: images,
    [Endpoint.AUDIO_SPEECH]: speechBridge(dialect, error),
    [Endpoint.AUDIO_TRANSCRIPTIONS]: transcriptions,
    [Endpoint.AUDIO_TRANSLATIONS]: transcriptions,
    [Endpoint.RESPONSES]: hasResponses
      ? responsesBridge(dialect, error)
      : translated({ client: responsesClient, upstream }),
    [Endpoint.MESSAGES]: translated({ client: messagesClient, upstream }),
  };
}

/** An upstream that has one API for chat of its own. */
function chatBridges(upstream: ChatUpstream, splitter?: () => FrameSplitter): Bridges {
  const parts = splitter === undefined ? { upstream } : { upstream, splitter };
  return {
    [Endpoint.CHAT_COMPLETIONS]: translated({ client: null, ...parts }),
    [Endpoint.RESPONSES]: translated({ client: responsesClient, ...parts }),
    [Endpoint.MESSAGES]: translated({ client: messagesClient, ...parts }),
  };
}

const ANTHROPIC: Bridges = { ...chatBridges(anthropicChat), [Endpoint.MESSAGES]: anthropicBridge };

const CONVERSE: Bridges = {
  ...chatBridges(converseChat, eventStreamSplitter),
  [Endpoint.EMBEDDINGS]: jsonBridge(bedrockEmbeddings, false),
  [Endpoint.IMAGES_GENERATIONS]: jsonBridge(bedrockImages, true),
};

function bedrockBridges(api: number, apis: readonly number[]): Bridges {
  if (api === BedrockApi.ANTHROPIC) return ANTHROPIC;
  if (api !== BedrockApi.OPENAI) return CONVERSE;
  // Its paths have these two alone.
  const { CHAT_COMPLETIONS, RESPONSES, MESSAGES } = Endpoint;
  const all = openAiBridges(OPENAI_DIALECT, apis, bedrockOpenAiError);
  return {
    [CHAT_COMPLETIONS]: all[CHAT_COMPLETIONS]!,
    [RESPONSES]: all[RESPONSES]!,
    [MESSAGES]: all[MESSAGES]!,
  };
}

/** Errors of these paths come in OpenAI's envelope, or, from what stands before them, as AWS writes them. */
function bedrockOpenAiError(status: number, headers: AnswerHeaders, body: Buffer): UpstreamError {
  return parseObject(body)?.["error"] === undefined
    ? bedrockError(status, headers, body)
    : openAiError(status, headers, body);
}

function make(provider: RouteProvider, dialect: Dialect, apis: readonly number[]): Bridges {
  switch (provider.format) {
    case ProviderFormat.OPENAI:
      return openAiBridges(dialect, apis, openAiError);
    case ProviderFormat.AZURE_OPENAI:
      return openAiBridges(dialect, apis, azureError);
    case ProviderFormat.ANTHROPIC:
      return ANTHROPIC;
    case ProviderFormat.AWS_BEDROCK:
      return bedrockBridges(provider.account.bedrockApi, apis);
    default:
      return {};
  }
}

/** Few: one for each format, dialect and set of APIs in use. */
const made = new Map<string, Bridges>();

/** The bridges to a Provider's models. `apis`: of a model that says so itself; else empty. */
export function bridgesOf(provider: RouteProvider, apis: readonly number[]): Bridges {
  const dialect = provider.format === ProviderFormat.AWS_BEDROCK ? OPENAI_DIALECT : providerDialect(provider);
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
