import { expect, test } from "vitest";
import { NO_ACCOUNT } from "./route_account.ts";
import { type AwsAccount, ProviderFormat, type RouteProvider } from "./route_types.ts";
import type { OutboundRequest } from "./transport.ts";
import {
  type AuthDone,
  AuthError,
  type AwsSigner,
  blamesAccount,
  type EntraTokens,
  upstreamAuth,
} from "./upstream_auth.ts";

const ENTRA = { tenantId: "t", clientId: "c", clientSecret: "s" };
const AWS = { accessKeyId: "AKIA", secretAccessKey: "x" } as AwsAccount;
const REQUEST: OutboundRequest = {
  origin: "https://up.example",
  path: "/x",
  method: "POST",
  headers: ["content-type", "application/json", "authorization", "Bearer of-another-kind", "x-own", "1"],
  body: Buffer.from("{}"),
};

function provider(format: number, apiKey: string, account: Partial<RouteProvider["account"]> = {}): RouteProvider {
  return { format, apiKey, origin: "https://up.example", account: { ...NO_ACCOUNT, ...account } } as RouteProvider;
}

class Tokens implements EntraTokens {
  answer: string | AuthError | null = "tok";
  done: ((result: string | AuthError) => void) | null = null;
  invalidated = 0;
  token(_account: unknown, _origin: string, done: (result: string | AuthError) => void) {
    this.done = done;
    return this.answer;
  }
  invalidate(): boolean {
    return ++this.invalidated > 0;
  }
}

function never(): void {
  throw new Error("called");
}

const { OPENAI, AZURE_OPENAI, ANTHROPIC, AWS_BEDROCK } = ProviderFormat;

test.each([
  [AZURE_OPENAI, "key", {}, ["api-key", "key"]],
  [AZURE_OPENAI, "", { entra: ENTRA }, ["authorization", "Bearer tok"]],
  [AZURE_OPENAI, "key", { entra: ENTRA }, ["api-key", "key"]],
  [ANTHROPIC, "key", {}, ["x-api-key", "key"]],
  [AWS_BEDROCK, "key", { aws: AWS }, ["authorization", "Bearer key"]],
])("format %d, key %j, %j", (format, key, account, header) => {
  const result = upstreamAuth(new Tokens(), null).authorize(provider(format, key, account), REQUEST, never);
  expect(result).toEqual({ ...REQUEST, headers: ["content-type", "application/json", "x-own", "1", ...header] });
});

test.each([
  [OPENAI, "key"],
  [OPENAI, ""],
  [ANTHROPIC, ""],
  [AZURE_OPENAI, ""],
])("format %d with key %j leaves the request as it is", (format, key) => {
  expect(upstreamAuth(null, null).authorize(provider(format, key), REQUEST, never)).toBe(REQUEST);
});

const NO_BODY = Buffer.alloc(0);

test("a token that must be fetched comes later", () => {
  const tokens = new Tokens();
  tokens.answer = null;
  const heard: unknown[] = [];
  const done: AuthDone = (result) => heard.push(result);
  const auth = upstreamAuth(tokens, null);
  expect(auth.authorize(provider(AZURE_OPENAI, "", { entra: ENTRA }), REQUEST, done)).toBeNull();
  expect(heard).toEqual([]);
  tokens.done!("late");
  const error = new AuthError("token_refused", "no");
  auth.authorize(provider(AZURE_OPENAI, "", { entra: ENTRA }), REQUEST, done);
  tokens.done!(error);
  expect((heard[0] as OutboundRequest).headers.slice(-2)).toEqual(["authorization", "Bearer late"]);
  expect(heard[1]).toBe(error);
});

test("without what is needed it is an error", () => {
  const auth = upstreamAuth(null, null);
  for (const each of [
    provider(AWS_BEDROCK, ""),
    provider(AWS_BEDROCK, "", { aws: AWS }),
    provider(AZURE_OPENAI, "", { entra: ENTRA }),
  ]) {
    const result = auth.authorize(each, REQUEST, never);
    expect(result).toBeInstanceOf(AuthError);
    expect((result as AuthError).code).toBe("no_credentials");
    expect(blamesAccount(result as AuthError)).toBe(true);
  }
  expect(blamesAccount(new AuthError("token_unavailable", ""))).toBe(false);
});

test("AWS is signed by the signer, which hears of refusals", () => {
  const signed = { ...REQUEST, path: "/signed" };
  const refused: number[] = [];
  const signer: AwsSigner = { sign: () => signed, refused: (_, status) => refused.push(status) > 0 };
  const auth = upstreamAuth(null, signer);
  const aws = provider(AWS_BEDROCK, "", { aws: AWS });
  expect(auth.authorize(aws, REQUEST, never)).toBe(signed);
  for (const status of [400, 401, 403, 500]) auth.refused(aws, status, {}, NO_BODY);
  auth.refused(provider(AWS_BEDROCK, "key", { aws: AWS }), 403, {}, NO_BODY);
  expect(refused).toEqual([401, 403]);
});

test("a 401 makes a token stale, a 403 or an API key's does not", () => {
  const tokens = new Tokens();
  const auth = upstreamAuth(tokens, null);
  auth.refused(provider(AZURE_OPENAI, "", { entra: ENTRA }), 403, {}, NO_BODY);
  auth.refused(provider(AZURE_OPENAI, "key", { entra: ENTRA }), 401, {}, NO_BODY);
  auth.refused(provider(OPENAI, "key"), 401, {}, NO_BODY);
  expect(tokens.invalidated).toBe(0);
  auth.refused(provider(AZURE_OPENAI, "", { entra: ENTRA }), 401, {}, NO_BODY);
  expect(tokens.invalidated).toBe(1);
});
