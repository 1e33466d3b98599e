/** Credentials for a call, and for the further calls that belong to it. */

import type { RouteProvider } from "./route_types.ts";
import type { OutboundRequest } from "./transport.ts";
import { type AuthDone, AuthError, type UpstreamAuth } from "./upstream_auth.ts";

/**
 * As `UpstreamAuth.authorize`, for the whole of it. One after the other: what the first had to wait for is there for those
 * after it.
 * @param auth undefined: calls go out as they are
 */
export function authorizeAll(
  auth: UpstreamAuth | undefined,
  provider: RouteProvider,
  request: OutboundRequest,
  done: AuthDone,
): OutboundRequest | AuthError | null {
  if (auth === undefined) return request;
  const { others } = request;
  if (others === undefined) return auth.authorize(provider, request, done);
  return new Several(auth, provider, [request, ...others], done).begin();
}

class Several {
  private readonly auth: UpstreamAuth;
  private readonly provider: RouteProvider;
  private readonly requests: readonly OutboundRequest[];
  private readonly done: AuthDone;
  private readonly ready: OutboundRequest[] = [];

  constructor(auth: UpstreamAuth, provider: RouteProvider, requests: readonly OutboundRequest[], done: AuthDone) {
    this.auth = auth;
    this.provider = provider;
    this.requests = requests;
    this.done = done;
  }

  begin(): OutboundRequest | AuthError | null {
    while (this.ready.length < this.requests.length) {
      const request = this.requests[this.ready.length]!;
      const result = this.auth.authorize(this.provider, request, (later) => this.later(later));
      if (result === null || result instanceof AuthError) return result;
      this.ready.push(result);
    }
    const [first, ...others] = this.ready;
    return { ...first!, others };
  }

  private later(result: OutboundRequest | AuthError): void {
    if (result instanceof AuthError) return this.done(result);
    this.ready.push(result);
    const rest = this.begin();
    if (rest !== null) this.done(rest);
  }
}
