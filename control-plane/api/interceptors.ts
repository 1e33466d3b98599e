/** What happens around every call: who is it, is the request well-formed, what went wrong, how long did it take. */

import {
  Code,
  type ConnectError,
  type ContextValues,
  type HandlerContext,
  type Interceptor,
  type StreamResponse,
  type UnaryResponse,
} from "@connectrpc/connect";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { Counter, Histogram, register } from "prom-client";
import { type Throttle, WRONG_SECRETS_BY_ADDRESS } from "../checkout/throttle.ts";
import { addressGroup } from "../domain/client_address.ts";
import { findApiToken, noteApiTokenUse } from "../store/api_token.ts";
import { findPayer } from "../store/checkout_session.ts";
import { digest } from "../secrets.ts";
import { DomainError } from "../domain/errors.ts";
import { PAYER_CALLS, PAYER_SECRET_KEEP_MS, PAYER_SECRET_PREFIX, STRANGER_CALLS } from "./access.ts";
import { clientAddressOf, type Deps, type Principal, principalKey } from "./context.ts";
import { isUnexpected, toConnectError } from "./errors.ts";
import { validate } from "./validation.ts";

/** Metrics are of the process; a second server in it counts into the same ones. */
function metric<M>(name: string, make: () => M): M {
  return (register.getSingleMetric(name) as M | undefined) ?? make();
}

const calls = metric(
  "tokenbill_rpc_total",
  () => new Counter({ name: "tokenbill_rpc_total", help: "Calls by method and code.", labelNames: ["method", "code"] }),
);
const durations = metric(
  "tokenbill_rpc_duration_seconds",
  () =>
    new Histogram({
      name: "tokenbill_rpc_duration_seconds",
      help: "Time from decoded request to answer.",
      labelNames: ["method"],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
    }),
);

const NODE_PACKAGE = "tokenbill.node.v1.";

/** `last_use_time` is kept to the minute. */
const TOKEN_USE_EVERY_MS = 60_000;

const BEARER = /^Bearer +([\x21-\x7e]{1,512}) *$/i;

function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** One text for every reason, so that nothing can be learned from it. */
function unauthenticated(): DomainError {
  return new DomainError("unauthenticated", "send a valid token as: Authorization: Bearer <token>");
}

/** Somebody with the secret of a Checkout Session. Wrong ones are counted, by the address that they come from. */
async function authenticatePayer(
  deps: Deps,
  throttle: Throttle,
  context: HandlerContext,
  secret: string,
): Promise<Principal> {
  const payer = await findPayer(deps.db, digest(secret), new Date(deps.now() - PAYER_SECRET_KEEP_MS));
  if (payer === null) {
    await throttle.take([WRONG_SECRETS_BY_ADDRESS, addressGroup(clientAddressOf(context))]);
    throw unauthenticated();
  }
  if (!PAYER_CALLS.has(methodName(context.method)))
    throw new DomainError("wrong_scope", "the secret of a Checkout Session opens that session alone");
  return { kind: "payer", merchantId: payer.merchant_id, sessionId: payer.id };
}

async function authenticate(deps: Deps, throttle: Throttle, context: HandlerContext): Promise<Principal> {
  const header = context.requestHeader.get("authorization");
  if (header === null && STRANGER_CALLS.has(methodName(context.method))) return { kind: "stranger" };
  const secret = BEARER.exec(header ?? "")?.[1];
  if (secret === undefined) throw unauthenticated();
  if (secret.startsWith(PAYER_SECRET_PREFIX)) return authenticatePayer(deps, throttle, context, secret);
  const token = await findApiToken(deps.db, digest(secret));
  if (token === null) throw unauthenticated();
  const isNodeCall = context.service.typeName.startsWith(NODE_PACKAGE);
  if (isNodeCall !== (token.scope === "node")) {
    throw new DomainError(
      "wrong_scope",
      isNodeCall ? "this call is for nodes: use a node's token" : "a node's token opens node calls alone",
    );
  }
  await noteUse(deps, token.id, token.last_used_at);
  if (token.scope !== "merchant") return { kind: token.scope };
  return { kind: "merchant", merchantId: token.merchant_id!, tokenId: token.id };
}

async function noteUse(deps: Deps, id: string, lastUsedAt: Date | null): Promise<void> {
  const now = deps.now();
  if (lastUsedAt !== null && now - lastUsedAt.getTime() < TOKEN_USE_EVERY_MS) return;
  await noteApiTokenUse(deps.db, id, new Date(now), new Date(now - TOKEN_USE_EVERY_MS));
}

/** Who called, for the log. */
function callerFacts(values: ContextValues): Record<string, string> {
  const caller = values.get(principalKey);
  if (caller === null) return {};
  switch (caller.kind) {
    case "merchant":
      return { caller: caller.kind, merchant_id: caller.merchantId, token_id: caller.tokenId };
    case "payer":
      return { caller: caller.kind, merchant_id: caller.merchantId, session_id: caller.sessionId };
    default:
      return { caller: caller.kind };
  }
}

interface Call {
  readonly method: DescMethod;
  readonly values: ContextValues;
  readonly startMs: number;
}

/** Counts and logs the end of a call; what to throw, or null when it went well. */
function finish(deps: Deps, { method, values, startMs }: Call, error: unknown): ConnectError | null {
  const name = methodName(method);
  const durationMs = deps.now() - startMs;
  durations.observe({ method: name }, durationMs / 1000);
  if (error === undefined) {
    calls.inc({ method: name, code: "ok" });
    // Nodes report every second; that is no news.
    const level = name.startsWith(NODE_PACKAGE) ? "debug" : "info";
    deps.log[level]({ method: name, duration_ms: durationMs, ...callerFacts(values) }, "call");
    return null;
  }
  const shown = toConnectError(error);
  const code = Code[shown.code];
  calls.inc({ method: name, code });
  const facts = { method: name, code, duration_ms: durationMs, ...callerFacts(values) };
  if (isUnexpected(error)) deps.log.error({ ...facts, err: describeForLog(error) }, "call failed unexpectedly");
  else if (shown.code === Code.Unavailable)
    deps.log.warn({ ...facts, reason: shown.rawMessage }, "call could not be served");
  else deps.log.info(facts, "call refused");
  return shown;
}

/** Name, text and stack alone: drivers hang the statement and its parameters on their errors, and those hold secrets. */
function describeForLog(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error };
  const { code } = error as { code?: unknown };
  const cause = error.cause instanceof Error ? { cause: `${error.cause.name}: ${error.cause.message}` } : {};
  return {
    type: error.name,
    code: typeof code === "string" || typeof code === "number" ? code : undefined,
    stack: error.stack,
    ...cause,
  };
}

/** Runs before the body of a request is read, so that strangers cannot make the server read or parse anything. */
export function authenticationGate(deps: Deps, throttle: Throttle): (context: HandlerContext) => Promise<void> {
  return async (context) => {
    const startMs = deps.now();
    try {
      context.values.set(principalKey, await authenticate(deps, throttle, context));
    } catch (error) {
      throw finish(deps, { method: context.method, values: context.values, startMs }, error)!;
    }
  };
}

async function* validated(method: DescMethod, messages: AsyncIterable<Message>): AsyncGenerator<Message> {
  for await (const message of messages) {
    validate(method.input, message);
    yield message;
  }
}

/** Ends the observation when the stream ends, and maps what goes wrong in between. */
async function* observed(deps: Deps, call: Call, messages: AsyncIterable<Message>): AsyncGenerator<Message> {
  let failure: unknown;
  try {
    yield* messages;
  } catch (error) {
    failure = error;
  } finally {
    const shown = finish(deps, call, failure);
    // oxlint-disable-next-line no-unsafe-finally -- only what was caught above is replaced by its mapped form
    if (shown !== null) throw shown;
  }
}

/** Validates requests, maps errors, logs and counts. */
export function callInterceptor(deps: Deps): Interceptor {
  return (next) => async (request) => {
    const call: Call = { method: request.method, values: request.contextValues, startMs: deps.now() };
    let response: UnaryResponse | StreamResponse;
    try {
      if (request.stream) {
        response = await next({ ...request, message: validated(request.method, request.message) });
      } else {
        validate(request.method.input, request.message);
        response = await next(request);
      }
    } catch (error) {
      throw finish(deps, call, error)!;
    }
    if (response.stream) return { ...response, message: observed(deps, call, response.message) };
    finish(deps, call, undefined);
    return response;
  };
}
