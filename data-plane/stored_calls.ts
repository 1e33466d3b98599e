/** What can be done with a stored response: read it and its input, cancel it, delete it. */

import type { Core } from "./core.ts";
import { Endpoint } from "./endpoints.ts";
import { badRequest, type ErrorAnswer, noTarget, storedNotFound } from "./errors.ts";
import { CALL_HEADERS, openAiKey, pathOf } from "./formats/call.ts";
import type { Bridge } from "./formats/format.ts";
import { renameFor } from "./formats/responses/bridge.ts";
import { renameInAnswer } from "./pins.ts";
import { PLAIN_HEAD_MS, type PlainPlan } from "./plain_call.ts";
import { keptQuery, queryOf } from "./query.ts";
import { type RouteKey, routable } from "./route_types.ts";
import { findStored } from "./stored_responses.ts";

export type StoredAction = "" | "/cancel" | "/input_items";

/** Parameters of the query that are passed on. */
const QUERY = ["include[]", "include", "limit", "order", "after", "before"];
const METHODS = new Set(["GET", "POST", "DELETE"]);

/** The query without what is not known, and a refusal of what would be billed twice. */
function storedQuery(target: string): string | ErrorAnswer {
  const given = queryOf(target);
  if (given.get("stream") === "true")
    return badRequest("A stored response cannot be streamed.", "stream", "unsupported_parameter");
  return keptQuery(given, QUERY);
}

/** The call to make, or why there is none. */
export function storedPlan(
  core: Core,
  key: RouteKey,
  method: string,
  id: string,
  action: StoredAction,
  target: string,
): PlainPlan | ErrorAnswer {
  const stored = findStored(core.deps.table, key.ve, id);
  if (stored === null || !METHODS.has(method)) return storedNotFound(id);
  const { pm, pin } = stored;
  const bridge: Bridge | undefined = pm.provider.bridges[Endpoint.RESPONSES];
  if (!routable(pm) || bridge === undefined) return noTarget(id);
  const query = storedQuery(target);
  if (typeof query !== "string") return query;
  const { provider } = pm;
  const rename = renameFor(key.ve.pinSecret, pm);
  const path = `/responses/${encodeURIComponent(pin.upstreamId)}${action}${query}`;
  const headers = ["accept", "application/json", ...CALL_HEADERS, ...openAiKey(provider), ...provider.headers];
  return {
    provider,
    request: { origin: provider.origin, path: pathOf(pm, path), method: method as "GET", headers, body: null },
    change: (body) => (rename === null ? body : renameInAnswer(body, rename)),
    error: (status, answerHeaders, body) => bridge.error(status, answerHeaders, body),
    unavailable: noTarget(id),
    headMs: PLAIN_HEAD_MS,
    keeps: [],
    endpoint: Endpoint.RESPONSES,
  };
}
