/** Stripe's SDK as it is used here: which options, one client for each key, and what its errors mean. */

import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { Stripe } from "stripe";
import { ProcessorError } from "./payment.ts";
import { declineWord, word } from "./stripe_wire.ts";

/** What the types of the SDK are made for. The compiler refuses another one, so a new SDK is a decision. */
export const STRIPE_API_VERSION = "2026-10-28.endive";
/** For one attempt, while nothing comes. */
export const ATTEMPT_TIMEOUT_MS = 20_000;
/** After the first attempt, with the same idempotency key. */
export const NETWORK_RETRIES_MAX = 2;
/** For a call with all its attempts: an answer that trickles in never times out by itself. */
export const CALL_TIMEOUT_MS = 75_000;
const CLIENTS_MAX = 64;
const SOCKETS_MAX = 64;
const MESSAGE_CHARS_MAX = 300;

export interface StripeClients {
  /** The client of a key; made if there is none, and the one that was not used for longest is dropped. */
  of(secretKey: string): Stripe;
}

/** `url` is `https://api.stripe.com`, or an imitation's. */
export function stripeClients(url: string): StripeClients {
  const { protocol, hostname, port } = new URL(url);
  const secure = protocol === "https:";
  const options = { keepAlive: true, maxSockets: SOCKETS_MAX };
  const agent = secure ? new HttpsAgent(options) : new HttpAgent(options);
  const known = new Map<string, Stripe>();
  const make = (secretKey: string): Stripe =>
    new Stripe(secretKey, {
      apiVersion: STRIPE_API_VERSION,
      httpAgent: agent,
      maxNetworkRetries: NETWORK_RETRIES_MAX,
      timeout: ATTEMPT_TIMEOUT_MS,
      protocol: secure ? "https" : "http",
      host: hostname.replace(/^\[|\]$/g, ""),
      port: port === "" ? (secure ? 443 : 80) : Number(port),
      telemetry: false,
    });
  return {
    of: (secretKey) => {
      const client = known.get(secretKey) ?? make(secretKey);
      known.delete(secretKey);
      known.set(secretKey, client);
      if (known.size > CLIENTS_MAX) known.delete(known.keys().next().value!);
      return client;
    },
  };
}

/** Stripe's errors quote keys in part, and what it was sent. */
function redact(text: string): string {
  return text
    .replace(/\b(?:sk|rk|pk|whsec)_[^\s'"`,;)]+/g, "…")
    .replace(/Bearer\s+\S+/gi, "…")
    .slice(0, MESSAGE_CHARS_MAX);
}

/** Two requests at once, with one idempotency key or for one object (docs.stripe.com/error-codes): nothing is decided. */
const BUSY: ReadonlySet<string> = new Set(["idempotency_key_in_use", "lock_timeout"]);

/** What the SDK threw, as the rest knows it. */
export function processorError(error: unknown): ProcessorError {
  const { errors } = Stripe;
  if (error instanceof errors.StripeAuthenticationError) {
    return new ProcessorError("misconfigured", "bad_key", "Stripe does not know this secret key");
  }
  if (error instanceof errors.StripePermissionError) {
    return new ProcessorError(
      "misconfigured",
      "no_permission",
      `Stripe: this key may not do that. ${redact(error.message)}`,
    );
  }
  if (error instanceof errors.StripeCardError) {
    return new ProcessorError("refused", declineWord(error, "card_declined"), `Stripe: ${redact(error.message)}`);
  }
  if (error instanceof errors.StripeRateLimitError) {
    return new ProcessorError("unreachable", "rate_limited", "Stripe asks to call less often");
  }
  // An earlier request with this key has done something, or is at it: what, is seen when it is asked again.
  if (error instanceof errors.StripeIdempotencyError) {
    return new ProcessorError(
      "unreachable",
      "idempotency",
      "Stripe has seen this idempotency key with another request",
    );
  }
  if (error instanceof errors.StripeInvalidRequestError && BUSY.has(error.code ?? "")) {
    return new ProcessorError("unreachable", "busy", "Stripe is still busy with an earlier request");
  }
  if (error instanceof errors.StripeInvalidRequestError) {
    return new ProcessorError("refused", word(error.code, "invalid_request"), `Stripe: ${redact(error.message)}`);
  }
  if (error instanceof errors.StripeConnectionError) {
    return new ProcessorError("unreachable", "no_connection", "Stripe could not be reached, or did not answer in time");
  }
  if (error instanceof errors.StripeAPIError) {
    return new ProcessorError("unreachable", "server_error", "Stripe had an error of its own");
  }
  return new ProcessorError("unreachable", "bad_answer", "Stripe's answer could not be understood");
}

/** Whether Stripe says that there is no such thing in this account. */
export function isMissing(error: unknown): boolean {
  return error instanceof Stripe.errors.StripeInvalidRequestError && error.code === "resource_missing";
}

/**
 * One call, which ends in time. Throws what the SDK throws, for callers that look at it.
 * @throws ProcessorError unreachable after `CALL_TIMEOUT_MS`
 */
export async function timed<T>(call: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new ProcessorError("unreachable", "no_connection", "Stripe did not answer in time"));
    }, CALL_TIMEOUT_MS);
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One call. @throws ProcessorError */
export async function call<T>(promise: Promise<T>): Promise<T> {
  try {
    return await timed(promise);
  } catch (error) {
    throw error instanceof ProcessorError ? error : processorError(error);
  }
}

/** One read; null: there is no such thing in this account. @throws ProcessorError */
export async function read<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await timed(promise);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error instanceof ProcessorError ? error : processorError(error);
  }
}
