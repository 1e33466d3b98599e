/**
 * The request pipeline, top to bottom:
 * authenticate -> resolve VE and LM -> magic command? -> admit -> (serving.ts:) attempts -> relay -> meter -> settle ->
 * journal -> finish.
 */

import { authenticate, parseTarget } from "./auth.ts";
import { shaped } from "./client_errors.ts";
import { Core } from "./core.ts";
import { CountTokens } from "./count_tokens.ts";
import type { PipelineDeps } from "./deps.ts";
import { routeOf } from "./endpoints.ts";
import { Entry } from "./entry.ts";
import {
  type ErrorAnswer,
  INTERNAL,
  INVALID_KEY,
  modelNotFound,
  rateLimitReached,
  unknownPath,
  wrongMethod,
} from "./errors.ts";
import type { ClientShape } from "./formats/format.ts";
import { Passthrough } from "./passthrough/passthrough.ts";
import { PlainCall } from "./plain_call.ts";
import { storedPlan } from "./stored_calls.ts";
import { listModels, showModel } from "./models.ts";
import type { RateHold, RateRefusal } from "./rates/rates.ts";
import { addRateHeaders, takeRates } from "./rates/request_rates.ts";
import { allowedOrigin, commonHeaders, isPreflight, replyError, replyJson, replyPreflight } from "./reply.ts";
import type { RouteKey } from "./route_types.ts";
import type { Exchange, Pipeline } from "./transport.ts";

export type { PipelineDeps, PipelineMetrics, PipelineSettings } from "./deps.ts";

export function createPipeline(deps: PipelineDeps): Pipeline {
  const core = new Core(deps);
  return {
    handle: (exchange) => handle(core, exchange),
    get live() {
      return core.liveCount;
    },
    idle: () => core.idle(),
    abortAll: () => core.abortAll(),
    close: () => core.close(),
  };
}

/** A client of Anthropic reads errors, and lists of models, in its own shape. */
function shapeOf(exchange: Exchange, path: string): ClientShape {
  return path.startsWith("/v1/messages") || exchange.header("anthropic-version") !== "" ? "messages" : "openai";
}

/** A call to what is stored is a request like others, without tokens. */
function storedRates({ deps: { rates } }: Core, key: RouteKey, headers: string[]): RateHold[] | RateRefusal {
  if (rates === undefined || (key.rateLimits === null && key.ve.rateLimits === null)) return [];
  const taken = takeRates(rates, key, { all: 0, input: 0 });
  addRateHeaders(headers, rates, key);
  return taken;
}

/** Everything that can be said before the body is read. */
function handle(core: Core, exchange: Exchange): void {
  const { deps } = core;
  const id = deps.newId("usg_");
  const arriveMs = deps.now();
  try {
    const origins = deps.settings.corsOrigins;
    const target = parseTarget(exchange.target);
    const shape = shapeOf(exchange, target.path);
    const headers = commonHeaders(id, origins, exchange, shape);
    const route = routeOf(target.path);
    if (route !== null && isPreflight(exchange) && allowedOrigin(origins, exchange.header("origin")) !== "") {
      return replyPreflight(exchange, headers, `${route.methods.join(", ")}, OPTIONS`);
    }
    const refused = (error: ErrorAnswer): void => refuse(core, exchange, headers, shaped(error, shape, id));
    if (route === null) return refused(unknownPath(exchange.method, target.path));
    if (!route.methods.includes(exchange.method)) {
      return refused(wrongMethod(exchange.method, target.path, route.methods.join(", ")));
    }
    const key = authenticate(deps.table, exchange, target, deps.settings.veDomain);
    if (key === null) return refused(INVALID_KEY);
    if (route.kind === "models") return replyModels(core, exchange, headers, key, route.model, shape, id);
    if (route.kind === "count_tokens") return new CountTokens(core, exchange, headers, id, key).begin();
    if (route.kind === "stored") {
      const plan = storedPlan(core, key, exchange.method, route.id, route.action, exchange.target);
      if ("status" in plan) return refused(plan);
      const taken = storedRates(core, key, headers);
      if (!Array.isArray(taken)) return refused(rateLimitReached(taken, 0));
      return new PlainCall(core, exchange, headers, { ...plan, rates: taken }).begin();
    }
    if (route.kind === "passthrough") {
      const wish = { path: target.path, operation: route.operations[exchange.method]! };
      return new Passthrough(core, exchange, headers, id, key, wish, shape).begin();
    }
    new Entry(core, exchange, headers, id, arriveMs, key, route.endpoint).begin();
  } catch (error) {
    deps.log.error({ err: error, id }, "request failed");
    refuse(core, exchange, ["x-request-id", id], INTERNAL);
  }
}

function refuse(core: Core, exchange: Exchange, headers: string[], error: ErrorAnswer): void {
  core.deps.metrics.request(0, error.status, 0, 0);
  replyError(exchange, headers, error);
}

function replyModels(
  core: Core,
  exchange: Exchange,
  headers: string[],
  key: RouteKey,
  model: string,
  shape: ClientShape,
  id: string,
): void {
  const { table } = core.deps;
  const body = model === "" ? listModels(table, key.ve, shape) : showModel(table, key.ve, model, shape);
  if (body === null) return refuse(core, exchange, headers, shaped(modelNotFound(model), shape, id));
  core.deps.metrics.request(0, 200, 0, 0);
  replyJson(exchange, 200, headers, body);
}
