/** One attempt at a delivery: a signed POST, and what came of it in words that a merchant may read. */

import { AddressNotAllowedError, type UpstreamClient } from "../api/upstream_client.ts";
import type { Deps } from "../api/context.ts";
import { DomainError } from "../domain/errors.ts";
import { checkWebhookUrl } from "../domain/webhook.ts";
import type { ClaimedDelivery } from "../store/webhook_delivery.ts";
import { signatureHeaders } from "./signing.ts";

/** From the name's resolution to the end of the answer. */
export const ATTEMPT_TIMEOUT_MS = 10_000;
/** More of an answer is not read. Nothing of it is kept. */
const ANSWER_BYTES_MAX = 64 * 1024;
const USER_AGENT = "TokenBill-Webhooks/1";

export interface AttemptResult {
  /** 0: there was no answer. */
  readonly status: number;
  /** Empty: it was delivered. */
  readonly error: string;
  readonly durationMs: number;
}

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection broke",
  EPIPE: "the connection broke",
  UND_ERR_SOCKET: "the connection broke",
  UND_ERR_CONNECT_TIMEOUT: "no connection was made in time",
  ETIMEDOUT: "no connection was made in time",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the host cannot be reached",
  ENOTFOUND: "the host name does not resolve",
  EAI_AGAIN: "the host name does not resolve",
};

/** Never the library's own text: it may quote addresses that are nobody's business. */
function wordsOf(error: unknown, timedOutMs: number | null): string {
  if (error instanceof AddressNotAllowedError || error instanceof DomainError) return "the address is not allowed";
  if (timedOutMs !== null) return `no whole answer within ${timedOutMs / 1000} s`;
  const code = String((error as { code?: unknown }).code ?? "");
  const words = WORDS[code];
  if (words !== undefined) return words;
  if (/CERT|TLS|SSL|UNABLE_TO|SELF_SIGNED/.test(code)) return `no secure connection: ${code}`;
  return /^[A-Z_]{1,40}$/.test(code) ? `the network failed: ${code}` : "the network failed";
}

function wordsOfStatus(status: number): string {
  if (status >= 200 && status < 300) return "";
  if (status >= 300 && status < 400) return `it was answered with the redirect ${status}, which is not followed`;
  return `it was answered with status ${status}`;
}

/** The secrets that count now, the newest first. */
function secretsOf({ secrets, now }: Pick<Deps, "secrets" | "now">, delivery: ClaimedDelivery): Uint8Array[] {
  const { endpoint_id: owner, secret, old_secret: old, old_secret_until: until } = delivery;
  const list = [secrets.open(secret, owner)];
  if (old !== null && until !== null && until.getTime() > now()) list.push(secrets.open(old, owner));
  return list;
}

export interface AttemptDeps extends Pick<Deps, "secrets" | "now" | "settings"> {
  readonly client: UpstreamClient;
  readonly attemptTimeoutMs: number;
}

/**
 * Sends a delivery once. Network errors are a result; `signal` calls it off, and only then it throws what the signal says.
 * @throws SecretsError when the endpoint's secret cannot be opened
 */
export async function attemptDelivery(
  deps: AttemptDeps,
  delivery: ClaimedDelivery,
  signal: AbortSignal,
): Promise<AttemptResult> {
  const startMs = deps.now();
  const signed = { id: delivery.event_id, timestampS: Math.floor(startMs / 1000), body: delivery.body };
  const headers = {
    ...signatureHeaders(signed, secretsOf(deps, delivery)),
    "content-type": "application/json",
    "user-agent": USER_AGENT,
    // A connection that its server has given up meanwhile would cost an attempt; and each looks its address up anew.
    connection: "close",
  };
  const timeout = AbortSignal.timeout(deps.attemptTimeoutMs);
  const end = (status: number, error: string): AttemptResult => ({
    status,
    error,
    durationMs: Math.max(0, deps.now() - startMs),
  });
  try {
    // The deployment may have become stricter since the URL was given.
    const url = checkWebhookUrl(delivery.url, deps.settings.allowPrivateUpstreams);
    const { status } = await deps.client.call({
      method: "POST",
      url,
      headers,
      body: delivery.body,
      bodyBytesMax: ANSWER_BYTES_MAX,
      signal: AbortSignal.any([timeout, signal]),
    });
    return end(status, wordsOfStatus(status));
  } catch (error) {
    signal.throwIfAborted();
    return end(0, wordsOf(error, timeout.aborted ? deps.attemptTimeoutMs : null));
  }
}
