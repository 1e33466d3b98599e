import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  entraTokens,
  FAILURE_WAIT_MS,
  RENEW_EARLY_MS,
  TOKEN_AGE_MS_MIN,
  TOKEN_ANSWER_BYTES_MAX,
  TOKEN_LEFT_MS_MIN,
  type TokenFetch,
} from "./entra.ts";
import type { EntraAccount } from "./route_types.ts";
import { AuthError } from "./upstream_auth.ts";

const SCOPE = "https://cognitiveservices.azure.com/.default";
const ORIGIN = "https://name.openai.azure.com";
const ACCOUNT: EntraAccount = { tenantId: "contoso.example", clientId: "client-1", clientSecret: "s3cret&/" };
const HOUR_S = 3600;

interface Call {
  readonly url: string;
  readonly form: Record<string, string>;
}

/** Imitates the token endpoint: right secret, a new token each time. */
let server: Server;
let calls: Call[];
let expiresIn: unknown;
let broken: { status: number; body: string; head?: Record<string, string> } | null;
/** While set, answers wait. */
let hold: Promise<void> | null;
let time: number;

beforeEach(async () => {
  calls = [];
  expiresIn = HOUR_S;
  broken = null;
  hold = null;
  time = 1_000_000;
  server = createServer((request, response) => {
    let text = "";
    request.on("data", (chunk) => (text += String(chunk)));
    request.on("end", () => {
      const form = Object.fromEntries(new URLSearchParams(text));
      calls.push({ url: request.url!, form });
      const body = { token_type: "Bearer", expires_in: expiresIn, access_token: `token-${calls.length}` };
      void (hold ?? Promise.resolve()).then(() => {
        if (broken !== null) return response.writeHead(broken.status, broken.head).end(broken.body);
        if (form["client_secret"] === ACCOUNT.clientSecret) return response.end(JSON.stringify(body));
        const words = `AADSTS7000215: Invalid client secret provided for app 'client-1': ${form["client_secret"]}`;
        const error = { error: "invalid_client", error_description: words, error_codes: [7000215] };
        return response.writeHead(401).end(JSON.stringify(error));
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

function make(over: TokenFetch = fetch) {
  const { port } = server.address() as AddressInfo;
  const authority = `http://127.0.0.1:${port}`;
  return entraTokens({ fetch: over, now: () => time, cloud: () => ({ authority, scope: SCOPE }) });
}

type Tokens = ReturnType<typeof make>;

/** The token or error, whether it came at once or later; what comes later must not come early. */
function ask(tokens: Tokens, account = ACCOUNT): Promise<string | AuthError> {
  return new Promise((resolve, reject) => {
    let returned = false;
    const result = tokens.token(account, ORIGIN, (late) => (returned ? resolve(late) : reject(new Error("early"))));
    returned = true;
    if (result !== null) resolve(result);
  });
}

const atOnce = (tokens: Tokens) => tokens.token(ACCOUNT, ORIGIN, () => {});

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe("tokens", () => {
  test("are asked for as documented, and kept", async () => {
    const tokens = make();
    expect(await ask(tokens)).toBe("token-1");
    expect(atOnce(tokens)).toBe("token-1");
    expect(calls).toEqual([
      {
        url: "/contoso.example/oauth2/v2.0/token",
        form: {
          grant_type: "client_credentials",
          client_id: "client-1",
          client_secret: ACCOUNT.clientSecret,
          scope: SCOPE,
        },
      },
    ]);
  });

  test("many callers make one call, and each hears once", async () => {
    const tokens = make();
    const heard: unknown[] = [];
    for (let i = 0; i < 20; i++) expect(tokens.token(ACCOUNT, ORIGIN, (result) => heard.push(result))).toBeNull();
    await until(() => heard.length >= 20);
    expect(new Set(heard)).toEqual(new Set(["token-1"]));
    expect(heard).toHaveLength(20);
    expect(calls).toHaveLength(1);
  });

  test("are renewed early while the old one serves, by one call", async () => {
    const tokens = make();
    await ask(tokens);
    time += HOUR_S * 1000 - RENEW_EARLY_MS - 1;
    expect(atOnce(tokens)).toBe("token-1");
    time += 1;
    expect([atOnce(tokens), atOnce(tokens)]).toEqual(["token-1", "token-1"]);
    await until(() => atOnce(tokens) === "token-2");
    expect(calls).toHaveLength(2);
  });

  test("that have ended are not used", async () => {
    const tokens = make();
    await ask(tokens);
    time += HOUR_S * 1000 - TOKEN_LEFT_MS_MIN;
    expect(await ask(tokens)).toBe("token-2");
  });

  test("that live shortly serve more than one call", async () => {
    expiresIn = "40";
    const tokens = make();
    await ask(tokens);
    time += 19_000;
    expect(atOnce(tokens)).toBe("token-1");
    expect(calls).toHaveLength(1);
    time += 12_000;
    expect(await ask(tokens)).toBe("token-2");
  });

  test("a failed renewal does not hurt while the old one serves", async () => {
    const tokens = make();
    await ask(tokens);
    broken = { status: 503, body: "" };
    time += HOUR_S * 1000 - RENEW_EARLY_MS;
    expect(atOnce(tokens)).toBe("token-1");
    await until(() => calls.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(atOnce(tokens)).toBe("token-1");
    expect(calls).toHaveLength(2);
    broken = null;
    time += FAILURE_WAIT_MS;
    expect(atOnce(tokens)).toBe("token-1");
    await until(() => atOnce(tokens) === "token-3");
  });

  test("accounts do not share them", async () => {
    const tokens = make();
    await ask(tokens);
    expect(await ask(tokens, { ...ACCOUNT })).toBe("token-2");
  });
});

describe("a refused token", () => {
  test("is replaced, but not over and over", async () => {
    const tokens = make();
    await ask(tokens);
    tokens.invalidate(ACCOUNT, ORIGIN);
    expect(atOnce(tokens)).toBe("token-1");
    time += TOKEN_AGE_MS_MIN;
    tokens.invalidate(ACCOUNT, ORIGIN);
    expect(await ask(tokens)).toBe("token-2");
    tokens.invalidate(ACCOUNT, ORIGIN);
    expect(atOnce(tokens)).toBe("token-2");
  });
});

describe("failures", () => {
  async function failure(tokens: Tokens, account = ACCOUNT): Promise<AuthError> {
    const result = await ask(tokens, account);
    expect(result).toBeInstanceOf(AuthError);
    return result as AuthError;
  }

  test("a wrong secret is told without secrets or ids, and not asked with again at once", async () => {
    const account = { ...ACCOUNT, clientSecret: "wrong-secret" };
    const tokens = make();
    const error = await failure(tokens, account);
    expect(error.code).toBe("token_refused");
    expect(error.message).toBe("Entra ID refuses these credentials with 401: invalid_client (AADSTS7000215).");
    for (let i = 0; i < 5; i++) expect(tokens.token(account, ORIGIN, () => {})).toBe(error);
    expect(calls).toHaveLength(1);
    time += FAILURE_WAIT_MS;
    await failure(tokens, account);
    expect(calls).toHaveLength(2);
    // The second wait is twice the first.
    time += FAILURE_WAIT_MS;
    expect(tokens.token(account, ORIGIN, () => {})).toBeInstanceOf(AuthError);
    expect(calls).toHaveLength(2);
  });

  test.each([
    [500, "oops", "Entra ID answers 500."],
    [429, "{}", "Entra ID answers 429."],
    [200, "{}", "The answer of Entra ID has no token."],
    [200, "<html>", "The answer of Entra ID has no token."],
    [200, '{"access_token":"a b","expires_in":3600}', "The answer of Entra ID has no token."],
    [200, '{"access_token":"ab","expires_in":"soon"}', "The answer of Entra ID has no token."],
    [200, "x".repeat(TOKEN_ANSWER_BYTES_MAX + 1), "The answer of Entra ID is too long."],
  ])("%d %s", async (status, body, message) => {
    broken = { status, body };
    const error = await failure(make());
    expect([error.code, error.message]).toEqual(["token_unavailable", message]);
  });

  test("a redirect is not followed, so that the secret goes nowhere else", async () => {
    broken = { status: 307, body: "", head: { location: "/elsewhere" } };
    const error = await failure(make());
    expect(error.code).toBe("token_unavailable");
    expect(calls.map((call) => call.url)).toEqual(["/contoso.example/oauth2/v2.0/token"]);
  });

  test("nobody there", async () => {
    const refused: TokenFetch = () => Promise.reject(new TypeError("connect https://login.example/secret"));
    const error = await failure(make(refused));
    expect([error.code, error.message]).toEqual(["token_unavailable", "Entra ID cannot be reached."]);
  });

  test("a server that is slow: callers wait until the deadline", async () => {
    let release = () => {};
    hold = new Promise((resolve) => (release = resolve));
    // The real deadline would take too long here.
    const hasty: TokenFetch = (url, init) => fetch(url, { ...init, signal: AbortSignal.timeout(50) });
    const error = await failure(make(hasty));
    release();
    expect(error.code).toBe("token_unavailable");
    expect(error.message).toContain("does not answer within");
  });

  test("a tenant that would lead elsewhere is never called", async () => {
    for (const tenantId of ["..", "a/b", "a?b", "a#b", ".x", "a b"]) {
      const error = await failure(make(), { ...ACCOUNT, tenantId });
      expect(error.code).toBe("token_refused");
    }
    expect(calls).toHaveLength(0);
  });
});
