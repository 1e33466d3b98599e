/** PURE. Which targets speak realtime, and how they are called. Source: reference/UPSTREAM-FORMATS.md A10, B1, B2. */

import { UnitKind } from "../../core/meters.ts";
import { kindBits } from "../endpoints.ts";
import type { AnswerHeaders } from "../formats/format.ts";
import { ProviderFormat, type RouteGroup, type RoutePm, type RouteProvider, type RouteTier } from "../route_types.ts";
import type { OutboundRequest } from "../transport.ts";
import type { UpstreamAuth } from "../upstream_auth.ts";

/** A turn has tokens: a price that covers none would make it free by accident. */
const KINDS = kindBits(UnitKind.TOKENS, UnitKind.REQUESTS);

export function speaksRealtime({ provider, kinds }: RoutePm): boolean {
  if ((kinds & KINDS) === 0) return false;
  return provider.format === ProviderFormat.OPENAI || provider.format === ProviderFormat.AZURE_OPENAI;
}

function realtimeTier({ tier, pms, cumulative }: RouteTier): RouteTier {
  const sums: number[] = [];
  let sum = 0;
  cumulative.forEach((upTo, i) => {
    if (!speaksRealtime(pms[i]!)) return;
    sum += upTo - (i === 0 ? 0 : cumulative[i - 1]!);
    sums.push(sum);
  });
  return { tier, pms: pms.filter(speaksRealtime), cumulative: sums };
}

/** The group without the targets of formats that have no realtime API. */
export function realtimeGroup(group: RouteGroup): RouteGroup {
  if (group.pms.every(speaksRealtime)) return group;
  const tiers = group.tiers.map(realtimeTier).filter(({ pms }) => pms.length > 0);
  return { key: group.key, tiers, pms: group.pms.filter(speaksRealtime), refs: group.refs };
}

const DATED_VERSION = /^\d{4}-\d{2}-\d{2}/;
/** What a base URL may have after the resource: an API, or a deployment and whatever follows it. */
const BASE_END = /\/openai(?:\/v1|\/deployments\/([^/]+)(?:\/.*)?)?$/;

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** A deployment in the base URL counts more than the Physical Model's name, as for other calls. */
function azurePath({ basePath, baseQuery, account }: RouteProvider, upstreamName: string): string {
  const own = new URLSearchParams(baseQuery);
  const version = account.apiVersion || own.get("api-version") || "";
  own.delete("api-version");
  const front = basePath.replace(BASE_END, "");
  const deployment = decoded(BASE_END.exec(basePath)?.[1] ?? "") || upstreamName;
  const classic = DATED_VERSION.test(version);
  if (classic) own.set("api-version", version);
  own.set(classic ? "deployment" : "model", deployment);
  return `${front}/openai${classic ? "" : "/v1"}/realtime?${own.toString()}`;
}

function openaiPath({ basePath, baseQuery }: RouteProvider, model: string): string {
  const query = new URLSearchParams(baseQuery);
  query.set("model", model);
  return `${basePath}/realtime?${query.toString()}`;
}

/** The upgrade request, without credentials. `beta`: the client's `openai-beta`, "" if it sent none. */
export function realtimeRequest({ provider, upstreamName }: RoutePm, beta: string): OutboundRequest {
  const azure = provider.format === ProviderFormat.AZURE_OPENAI;
  return {
    origin: provider.origin,
    path: azure ? azurePath(provider, upstreamName) : openaiPath(provider, upstreamName),
    method: "GET",
    headers: ["user-agent", "tokenbill", ...provider.headers, ...(beta === "" ? [] : ["openai-beta", beta])],
    body: null,
  };
}

/**
 * Adds credentials to a call; `UpstreamAuth` of the gateway is one. Null: they are being fetched, and `done` is called
 * once, later. An error whose code is `no_credentials` or `token_refused` blames the account.
 */
export interface Authorize {
  authorize(
    provider: RouteProvider,
    request: OutboundRequest,
    done: (result: OutboundRequest | Error) => void,
  ): OutboundRequest | Error | null;
  /** The upstream refused the upgrade with this status: a cached token may be at fault. */
  refused?(provider: RouteProvider, status: number, headers: AnswerHeaders, body: Buffer): void;
}

/** API keys only. */
export const KEY_AUTH: Authorize = {
  authorize({ apiKey, format }, request) {
    if (apiKey === "") return request;
    const azure = format === ProviderFormat.AZURE_OPENAI;
    const own = azure ? ["api-key", apiKey] : ["authorization", `Bearer ${apiKey}`];
    return { ...request, headers: [...request.headers, ...own] };
  },
};

/** OpenAI's key has its place among the headers of other calls; here it is added. */
export function realtimeAuth(auth: UpstreamAuth | undefined): Authorize {
  return {
    authorize(provider, request, done) {
      const own = auth === undefined || provider.format === ProviderFormat.OPENAI ? KEY_AUTH : auth;
      return own.authorize(provider, request, done);
    },
    refused: (provider, status, headers, body) => void auth?.refused(provider, status, headers, body),
  };
}
