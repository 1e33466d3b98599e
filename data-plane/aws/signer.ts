/** Signs calls to AWS with the credentials of their Provider, and learns from those that are refused. */

import { errorTypeOf, isCredentialError } from "../formats/bedrock/errors.ts";
import type { ProviderAccount, RouteProvider } from "../route_types.ts";
import type { OutboundRequest } from "../transport.ts";
import { type AuthDone, AuthError, type AwsSigner } from "../upstream_auth.ts";
import { awsAddress } from "./address.ts";
import { ClockSkew } from "./clock_skew.ts";
import type { AwsCredentials } from "./credentials.ts";
import { AwsCredentialsError } from "./credentials_error.ts";
import { type Credentials, signRequest } from "./sigv4.ts";

/** What it says of the account: those that were refused will be again. */
function authError(error: unknown): AuthError {
  // Such as a host that is no URL: nobody could catch it where credentials are waited for.
  if (!(error instanceof AwsCredentialsError)) return new AuthError("no_credentials", "The call cannot be signed.");
  const passing = error.code === "aws_credentials_unreachable" || error.code === "aws_credentials_invalid_answer";
  return new AuthError(passing ? "token_unavailable" : "token_refused", error.message);
}

const NO_BODY = new Uint8Array(0);

/** @param nowMs milliseconds since 1970, as AWS counts them */
export function awsSigner(credentials: AwsCredentials, nowMs: () => number): AwsSigner {
  const skews = new WeakMap<ProviderAccount, ClockSkew>();
  const skewOf = (account: ProviderAccount): ClockSkew => {
    let skew = skews.get(account);
    if (skew === undefined) skews.set(account, (skew = new ClockSkew()));
    return skew;
  };

  function signed(provider: RouteProvider, request: OutboundRequest, found: Credentials): OutboundRequest | AuthError {
    const { account, origin } = provider;
    const { region, service } = awsAddress(origin, account.region);
    if (region === "")
      return new AuthError("no_credentials", "Neither the Provider nor its host names a region of AWS.");
    const body = request.body instanceof Uint8Array ? request.body : NO_BODY;
    const { method, path, headers } = request;
    const skew = skewOf(account);
    const call = { method, origin, path, headers, body, region, service, credentials: found, nowMs: nowMs(), skew };
    return { ...request, headers: [...headers, ...signRequest(call)] };
  }

  return {
    sign(provider, request, done: AuthDone) {
      const { account, origin } = provider;
      try {
        const found = credentials.get(account.aws!, awsAddress(origin, account.region).region);
        if (!(found instanceof Promise)) return signed(provider, request, found);
        void found
          .then((later) => signed(provider, request, later))
          .catch(authError)
          .then(done);
        return null;
      } catch (error) {
        return authError(error);
      }
    },
    refused(provider, status, headers, body) {
      const { account } = provider;
      const type = errorTypeOf(headers, body);
      const date = headers["date"];
      if (skewOf(account).learn(status, type, typeof date === "string" ? date : undefined, nowMs())) return true;
      return isCredentialError(type) && credentials.invalidate(account.aws!);
    },
  };
}
