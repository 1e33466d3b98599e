/**
 * Puts the credentials of a Provider on its calls. API keys and what is cached go on at once; a token that must be fetched
 * first makes the call wait. Facts: reference/UPSTREAM-FORMATS.md A, B2, C1, D6.
 */

import { ProviderFormat, type EntraAccount, type RouteProvider } from "./route_types.ts";
import type { AnswerHeaders } from "./formats/format.ts";
import type { OutboundRequest } from "./transport.ts";

/**
 * The call cannot be made with the credentials of its Provider: as if the upstream had refused them. The message has no
 * secrets and no account ids, and is for logs.
 */
export class AuthError extends Error {
  readonly code:
    /** The Provider has no credentials of a kind that its format takes. */
    | "no_credentials"
    /** Whoever gives out tokens refuses these credentials. */
    | "token_refused"
    /** It cannot be reached, or its answer makes no sense. */
    | "token_unavailable"
    /** Too many calls wait for the token. */
    | "token_queue_full";
  constructor(code: AuthError["code"], message: string) {
    super(message);
    this.code = code;
  }
}

/** True: it says that the credentials are bad, so that the account cools down; false: that a service is not there. */
export function blamesAccount(error: AuthError): boolean {
  return error.code === "no_credentials" || error.code === "token_refused";
}

export type AuthDone = (result: OutboundRequest | AuthError) => void;

export interface UpstreamAuth {
  /**
   * The request with credentials, or why it cannot have any. Null: they are being fetched, and `done` is called once,
   * later, never before this returns, also if nobody waits any more.
   */
  authorize(provider: RouteProvider, request: OutboundRequest, done: AuthDone): OutboundRequest | AuthError | null;
  /**
   * The upstream refused what was authorized: no cached token is used any more that may be at fault. True: what was wrong is
   * likely to be mended, so that the same call can be made once more.
   */
  refused(provider: RouteProvider, status: number, headers: AnswerHeaders, body: Buffer): boolean;
}

/** Signs calls to AWS, and gets the credentials for it. The same contract as `UpstreamAuth`. */
export interface AwsSigner {
  sign(provider: RouteProvider, request: OutboundRequest, done: AuthDone): OutboundRequest | AuthError | null;
  refused: UpstreamAuth["refused"];
}

/** Where tokens of Entra ID come from. */
export interface EntraTokens {
  /** `origin` is the Provider's: it tells the cloud. Null: `done` is called once, later. */
  token(account: EntraAccount, origin: string, done: (result: string | AuthError) => void): string | AuthError | null;
  /** The upstream refused the token. True: the next one is another. */
  invalidate(account: EntraAccount, origin: string): boolean;
}

/** Headers that carry credentials: what a call has of them already is left out, so that no two can contradict. */
const CREDENTIALS = new Set(["authorization", "api-key", "x-api-key"]);

/** The request with this header in place of any other that carries credentials. */
export function withCredential(request: OutboundRequest, name: string, value: string): OutboundRequest {
  const headers: string[] = [];
  for (let i = 0; i < request.headers.length; i += 2) {
    if (!CREDENTIALS.has(request.headers[i]!)) headers.push(request.headers[i]!, request.headers[i + 1]!);
  }
  headers.push(name, value);
  const { origin, path, method, body } = request;
  return { origin, path, method, headers, body };
}

/**
 * @param tokens null: Entra ID is not to be had
 * @param signer null: calls to AWS need an API key
 */
export function upstreamAuth(tokens: EntraTokens | null, signer: AwsSigner | null): UpstreamAuth {
  return {
    authorize(provider, request, done) {
      switch (provider.format) {
        case ProviderFormat.AZURE_OPENAI:
          return authorizeAzure(tokens, provider, request, done);
        case ProviderFormat.ANTHROPIC:
          // A server of one's own may need no key.
          return provider.apiKey === "" ? request : withCredential(request, "x-api-key", provider.apiKey);
        case ProviderFormat.AWS_BEDROCK:
          if (provider.apiKey !== "") return withCredential(request, "authorization", `Bearer ${provider.apiKey}`);
          if (signer !== null && provider.account.aws !== null) return signer.sign(provider, request, done);
          return new AuthError("no_credentials", "The Provider has neither an API key nor credentials of AWS.");
        default:
          // OpenAI's format has its header among those that are made once for each Provider.
          return request;
      }
    },
    refused(provider, status, headers, body) {
      if (provider.apiKey !== "") return false;
      const { aws, entra } = provider.account;
      if (provider.format === ProviderFormat.AZURE_OPENAI && status === 401 && entra !== null)
        return tokens?.invalidate(entra, provider.origin) ?? false;
      if (provider.format === ProviderFormat.AWS_BEDROCK && (status === 401 || status === 403) && aws !== null)
        return signer?.refused(provider, status, headers, body) ?? false;
      return false;
    },
  };
}

function authorizeAzure(
  tokens: EntraTokens | null,
  provider: RouteProvider,
  request: OutboundRequest,
  done: AuthDone,
): OutboundRequest | AuthError | null {
  if (provider.apiKey !== "") return withCredential(request, "api-key", provider.apiKey);
  const { entra } = provider.account;
  // A gateway in front of the resource may have credentials of its own.
  if (entra === null) return request;
  if (tokens === null) return new AuthError("no_credentials", "This node takes no tokens from Entra ID.");
  const bearer = (token: string) => withCredential(request, "authorization", `Bearer ${token}`);
  const token = tokens.token(entra, provider.origin, (result) =>
    done(typeof result === "string" ? bearer(result) : result),
  );
  return typeof token === "string" ? bearer(token) : token;
}
