/**
 * Tokens of Entra ID for client credentials: fetched when they are first needed, by one call however many wait, and renewed
 * while the old one still serves. Facts: reference/UPSTREAM-FORMATS.md B2.
 */

import { type EntraCloud, entraCloud } from "./formats/azure.ts";
import { countOf, objectOf, textOf } from "./formats/json.ts";
import type { EntraAccount } from "./route_types.ts";
import { AuthError, type EntraTokens } from "./upstream_auth.ts";

/** A token is renewed so long before it ends. */
export const RENEW_EARLY_MS = 5 * 60_000;
/** So long before its end, or less if it lives shortly, a token is not used any more: a call may take a while to arrive. */
export const TOKEN_LEFT_MS_MIN = 30_000;
/** A token that is younger is kept even if it was refused: a new one would not be another. */
export const TOKEN_AGE_MS_MIN = 30_000;
/** After a failure nothing is asked for so long; each further one doubles it. */
export const FAILURE_WAIT_MS = 1_000;
export const FAILURE_WAIT_MS_MAX = 60_000;
export const TOKEN_TIMEOUT_MS = 10_000;
export const TOKEN_ANSWER_BYTES_MAX = 64 * 1024;
/** Calls that wait for one token. */
export const WAITERS_MAX = 10_000;

/** What is needed of `fetch`. */
export type TokenFetch = (
  url: string,
  init: { method: "POST"; headers: Record<string, string>; body: string; redirect: "error"; signal: AbortSignal },
) => Promise<{ readonly status: number; readonly body: ReadableStream<Uint8Array> | null }>;

export interface EntraOptions {
  readonly fetch: TokenFetch;
  /** Milliseconds; never goes back. */
  readonly now: () => number;
  /** Where to ask, and for what, by the origin of a Provider. Given in tests only. */
  readonly cloud?: (origin: string) => EntraCloud;
}

/** A tenant's id or domain: nothing that could lead to another path. */
const TENANT = /^[A-Za-z0-9][A-Za-z0-9.-]{0,255}$/;
const WORD = /^[a-z_]{1,64}$/;
const CODE = /^\d{1,10}$/;

type Done = (result: string | AuthError) => void;

interface Entry {
  token: string;
  fetchedAt: number;
  /** 0: there is no token. */
  endsAt: number;
  fetching: boolean;
  waiters: Done[];
  failure: AuthError | null;
  failures: number;
  /** After a failure nothing is asked before this. */
  askAt: number;
}

interface Fetched {
  readonly token: string;
  readonly livesMs: number;
}

/** Entra's own words for what is wrong, such as `invalid_client (AADSTS7000215)`: never its sentences, which name ids. */
function reasonOf(body: unknown): string {
  const { error, error_codes: codes } = objectOf(body) as { error?: unknown; error_codes?: unknown };
  const word = textOf(error);
  const code = Array.isArray(codes) ? String(codes[0]) : "";
  return (WORD.test(word) ? word : "no reason") + (CODE.test(code) ? ` (AADSTS${code})` : "");
}

async function textUpTo(body: ReadableStream<Uint8Array> | null, bytesMax: number): Promise<string> {
  if (body === null) return "";
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > bytesMax) throw new AuthError("token_unavailable", "The answer of Entra ID is too long.");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function fetchToken(account: EntraAccount, cloud: EntraCloud, fetch: TokenFetch): Promise<Fetched> {
  if (!TENANT.test(account.tenantId)) throw new AuthError("token_refused", "The tenant id is not one.");
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: account.clientId,
    client_secret: account.clientSecret,
    scope: cloud.scope,
  });
  const { status, body } = await fetch(`${cloud.authority}/${account.tenantId}/oauth2/v2.0/token`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", accept: "application/json" },
    body: form.toString(),
    // The secret goes nowhere else.
    redirect: "error",
    signal: AbortSignal.timeout(TOKEN_TIMEOUT_MS),
  });
  const answer = parsed(await textUpTo(body, TOKEN_ANSWER_BYTES_MAX));
  if (status === 200) {
    const token = textOf(objectOf(answer)["access_token"]);
    const seconds = countOf(Number(objectOf(answer)["expires_in"]));
    if (/^[\x21-\x7e]+$/.test(token) && seconds !== undefined) return { token, livesMs: seconds * 1000 };
    throw new AuthError("token_unavailable", "The answer of Entra ID has no token.");
  }
  if (status === 429 || status >= 500) throw new AuthError("token_unavailable", `Entra ID answers ${status}.`);
  throw new AuthError("token_refused", `Entra ID refuses these credentials with ${status}: ${reasonOf(answer)}.`);
}

/** Whatever else went wrong: its words may hold an address, so only what kind of thing it was is told. */
function asAuthError(error: unknown): AuthError {
  if (error instanceof AuthError) return error;
  const timeout = error instanceof Error && error.name === "TimeoutError";
  return new AuthError(
    "token_unavailable",
    timeout ? `Entra ID does not answer within ${TOKEN_TIMEOUT_MS} ms.` : "Entra ID cannot be reached.",
  );
}

/** Tokens of any number of accounts. An account that is not referred to any more takes its tokens along. */
export function entraTokens(options: EntraOptions): EntraTokens {
  const { fetch, now, cloud = entraCloud } = options;
  const accounts = new WeakMap<EntraAccount, Map<string, Entry>>();

  function entryOf(account: EntraAccount, { authority, scope }: EntraCloud): Entry {
    let entries = accounts.get(account);
    if (entries === undefined) accounts.set(account, (entries = new Map()));
    const key = `${authority} ${scope}`;
    let entry = entries.get(key);
    if (entry === undefined) {
      entry = {
        token: "",
        fetchedAt: 0,
        endsAt: 0,
        fetching: false,
        waiters: [],
        failure: null,
        failures: 0,
        askAt: 0,
      };
      entries.set(key, entry);
    }
    return entry;
  }

  function settle(entry: Entry, result: string | AuthError): void {
    const { waiters } = entry;
    entry.fetching = false;
    entry.waiters = [];
    for (const done of waiters) done(result);
  }

  function start(entry: Entry, account: EntraAccount, at: EntraCloud): void {
    entry.fetching = true;
    fetchToken(account, at, fetch).then(
      ({ token, livesMs }) => {
        entry.token = token;
        entry.fetchedAt = now();
        entry.endsAt = entry.fetchedAt + livesMs;
        entry.failure = null;
        entry.failures = 0;
        entry.askAt = 0;
        settle(entry, token);
      },
      (error: unknown) => {
        const wait = Math.min(FAILURE_WAIT_MS * 2 ** entry.failures, FAILURE_WAIT_MS_MAX);
        entry.failures++;
        entry.askAt = now() + wait;
        entry.failure = asAuthError(error);
        settle(entry, entry.failure);
      },
    );
  }

  return {
    token(account, origin, done) {
      const at = cloud(origin);
      const entry = entryOf(account, at);
      const time = now();
      const mayAsk = !entry.fetching && time >= entry.askAt;
      if (time < entry.endsAt - unused(entry)) {
        if (mayAsk && time >= entry.endsAt - renewEarly(entry)) start(entry, account, at);
        return entry.token;
      }
      if (entry.fetching && entry.waiters.length >= WAITERS_MAX)
        return new AuthError("token_queue_full", "Too many calls wait for a token of Entra ID.");
      if (mayAsk) start(entry, account, at);
      else if (!entry.fetching && entry.failure !== null) return entry.failure;
      entry.waiters.push(done);
      return null;
    },
    invalidate(account, origin) {
      const entry = entryOf(account, cloud(origin));
      if (entry.endsAt === 0 || now() - entry.fetchedAt < TOKEN_AGE_MS_MIN) return false;
      entry.endsAt = 0;
      return true;
    },
  };
}

/** A token that lives shortly is renewed in the last half of its life, and used up to its last quarter. */
function renewEarly({ fetchedAt, endsAt }: Entry): number {
  return Math.min(RENEW_EARLY_MS, (endsAt - fetchedAt) / 2);
}

function unused({ fetchedAt, endsAt }: Entry): number {
  return Math.min(TOKEN_LEFT_MS_MIN, (endsAt - fetchedAt) / 4);
}
