/** PURE. What calls to upstreams have in common: their address, their headers, and the target as adapters see it. */

import type { ScannedBody } from "../body.ts";
import { BedrockApi, ProviderFormat, type RoutePm, type RouteProvider } from "../route_types.ts";
import type { OutboundRequest } from "../transport.ts";
import { azureAccountPath, azurePath } from "./azure.ts";
import type { Asked } from "./format.ts";
import type { HubCall, HubContext, HubTarget, Json } from "./hub.ts";
import { parseObject } from "./json.ts";

export function targetOf(pm: RoutePm, stream: boolean): HubTarget {
  const { upstreamName: model, family, maxOutputTokens, provider } = pm;
  return { model, family, maxOutputTokens, apiVersion: provider.account.apiVersion, stream };
}

/** Parsed once for each request, however many targets are tried. */
const parsed = new WeakMap<ScannedBody, Json>();

/** The client's body as an object: that it is sound JSON was found out when it was scanned. */
export function bodyOf({ body }: Asked): Json {
  let json = parsed.get(body);
  if (json === undefined) {
    json = parseObject(body.bytes) ?? {};
    parsed.set(body, json);
  }
  return json;
}

/** Ids of requests have a prefix of ours, which would look odd behind that of an answer. */
export function bareId(id: string): string {
  return id.slice(id.indexOf("_") + 1);
}

export function contextOf(asked: Asked): HubContext {
  const { id, arriveMs, body } = asked;
  return { id: bareId(id), createdS: Math.floor(arriveMs / 1000), model: body.model, request: bodyOf(asked) };
}

const VERSION_END = /\/v1$/;

/** Base URLs come with their version and without, and adapters give paths with it and without. */
function joined(base: string, path: string): string {
  return path.startsWith("/v1/") && VERSION_END.test(base) ? base + path.slice(3) : base + path;
}

/** Where an API of Bedrock begins, unless the base URL says that itself (reference/UPSTREAM-FORMATS.md D1). */
function bedrockPrefix({ format, basePath, origin, account }: RouteProvider): string {
  if (format !== ProviderFormat.AWS_BEDROCK || basePath !== "") return "";
  if (account.bedrockApi === BedrockApi.ANTHROPIC) return "/anthropic";
  if (account.bedrockApi !== BedrockApi.OPENAI) return "";
  return origin.includes("//bedrock-mantle") ? "/v1" : "/openai/v1";
}

/** The path and query of a call. `path` is what stands behind the base URL. */
export function pathOf(pm: RoutePm, path: string): string {
  const { provider } = pm;
  return provider.format === ProviderFormat.AZURE_OPENAI ? azurePath(provider, pm, path) : basedPath(provider, path);
}

/** As `pathOf`, for what belongs to the account as a whole and to no model, such as files. */
export function accountPathOf(provider: RouteProvider, path: string): string {
  return provider.format === ProviderFormat.AZURE_OPENAI ? azureAccountPath(provider, path) : basedPath(provider, path);
}

function basedPath(provider: RouteProvider, path: string): string {
  const { basePath, baseQuery } = provider;
  const whole = joined(basePath + bedrockPrefix(provider), path);
  return baseQuery === "" || !whole.includes("?") ? whole + baseQuery : `${whole}&${baseQuery.slice(1)}`;
}

/** Of every call; the Provider's own and those of credentials come besides. */
export const CALL_HEADERS = ["accept-encoding", "identity", "user-agent", "tokenbill"] as const;

/** The header that a key of OpenAI's format travels in; other formats add theirs when the call is authorized. */
export function openAiKey({ format, apiKey }: RouteProvider): readonly string[] {
  return format === ProviderFormat.OPENAI && apiKey !== "" ? ["authorization", `Bearer ${apiKey}`] : [];
}

export function outbound(pm: RoutePm, call: HubCall, accept: string): OutboundRequest {
  const { provider } = pm;
  const own = ["content-type", "application/json", ...CALL_HEADERS];
  if (!call.headers.includes("accept")) own.push("accept", accept);
  return {
    origin: provider.origin,
    path: pathOf(pm, call.path),
    method: "POST",
    headers: [...own, ...openAiKey(provider), ...provider.headers, ...call.headers],
    body: Buffer.from(JSON.stringify(call.body)),
  };
}
