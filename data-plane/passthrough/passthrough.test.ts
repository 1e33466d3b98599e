/** Who may pass something through, and what: paths, tenancy, wallets, rate limits, errors. */

import { request as httpRequest } from "node:http";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { routeOf } from "../endpoints.ts";
import { RateLimiter } from "../rates/rate_limiter.ts";
import {
  CHECKOUT,
  delta,
  type Gateway,
  type GatewayOptions,
  KEY,
  keyResource,
  resource,
  startGateway,
  VE,
} from "../testing.ts";
import { createUpstream } from "../upstream.ts";
import { FILE_BODY_BYTES_MAX, passRouteOf } from "./routes.ts";
import { type Account, reply, startAccount } from "./testing.ts";

let account: Account;
let gateway: Gateway;
async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({
    ve: { passthroughProviderId: "prov_0" },
    ...options,
    provider: { baseUrl: `${account.url}/v1`, ...options.provider },
  });
}
beforeEach(async () => {
  account = await startAccount();
});
afterEach(async () => {
  await gateway?.close();
  await account.close();
});

interface Told {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly text: string;
  readonly error: { message: string; type: string; code: string | null; checkout_url?: string };
}

/** Sends the target as it is, which `fetch` would tidy up. */
function send(
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
  key = KEY,
): Promise<Told> {
  const { hostname, port } = new URL(gateway.url);
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      hostname,
      port,
      method,
      path,
      headers: { authorization: `Bearer ${key}`, ...headers },
    });
    request.on("error", reject);
    request.on("response", (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("error", reject);
      response.on("end", () => {
        const parsed = text.startsWith("{") ? (JSON.parse(text) as { error?: Told["error"] }) : {};
        resolve({ status: response.statusCode!, headers: response.headers, text, error: parsed.error! });
      });
    });
    request.end(body);
  });
}
const JSON_TYPE = { "content-type": "application/json" };
const FORM = '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--b--\r\n';
const post = (path: string, body = "{}") => send("POST", path, JSON_TYPE, body);
const postFile = () => send("POST", "/v1/files", { "content-type": "multipart/form-data; boundary=b" }, FORM);

describe("paths", () => {
  test("what is not listed is not there", async () => {
    await start();
    const paths = [
      "/v1/files/",
      "/v1/files//content",
      "/v1/files/file-1/",
      "/v1/files/file-1/other",
      "/v1/files/file-1/content/x",
      "/v1/files/../models",
      "/v1/files/..",
      "/v1/files/..%2fmodels",
      "/v1/files/%66ile-1",
      "/v1/files/file-1%2fcontent",
      "/v1/files/file-1%00",
      "/v1/files/file.1",
      "/v1/files/file-1;a=b",
      "/v1/files\\file-1",
      "/v1/filesx",
      `/v1/files/${"a".repeat(257)}`,
      "/v1/uploads/upload_1",
      "/v1/uploads/upload_1/parts/part_1",
      "/v1/batches/batch_1/errors",
      "/v1/vector_stores/vs_1/files/file-1/content/x",
      "/v1/vector_stores/vs_1/files/file-1/chunks",
      "/v1/vector_stores/vs_1/file_batches/vsfb_1/files/file-1",
      "/v1/containers",
      "/v1/fine_tuning/jobs",
      "/v1/organization/admin_api_keys",
    ];
    for (const path of paths) {
      const methods = path.startsWith("/v1/uploads") ? ["POST"] : ["GET", "POST"];
      for (const method of methods) {
        const { status, error } = await send(method, path);
        expect([path, status, error.code]).toEqual([path, 404, "unknown_url"]);
      }
    }
    expect(account.seen).toEqual([]);
  });

  test("other methods are refused with those that there are", async () => {
    await start();
    for (const [method, path, allow] of [
      ["PUT", "/v1/files", "GET, POST"],
      ["POST", "/v1/files/file-1", "GET, DELETE"],
      ["DELETE", "/v1/batches/batch_1", "GET"],
      ["GET", "/v1/vector_stores/vs_1/search", "POST"],
    ] as const) {
      const { status, headers } = await send(method, path);
      expect([status, headers["allow"]]).toEqual([405, allow]);
    }
    expect(account.seen).toEqual([]);
  });

  test("nothing that matches could lead elsewhere", () => {
    const part = fc.constantFrom(
      "files",
      "uploads",
      "batches",
      "vector_stores",
      "a-1",
      "..",
      ".",
      "%2e",
      "content",
      "",
      "a b",
      "?",
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(part, fc.string({ maxLength: 4 })), { maxLength: 7 }), (parts) => {
        const path = `/v1/${parts.join("/")}`;
        if (passRouteOf(path) === null) return;
        expect(path).toMatch(/^\/v1\/(files|uploads|batches|vector_stores)(\/[A-Za-z0-9_-]+){0,4}$/);
        expect(routeOf(path)?.kind).toBe("passthrough");
      }),
    );
  });

  test("the form of a body is checked before it is read", async () => {
    await start();
    const big = {
      "content-type": "multipart/form-data; boundary=b",
      "content-length": String(FILE_BODY_BYTES_MAX + 1),
    };
    const told = [
      await send("POST", "/v1/files", JSON_TYPE, "{}"),
      await send("POST", "/v1/vector_stores", { "content-type": "text/plain" }, "{}"),
      await send("POST", "/v1/vector_stores", { ...JSON_TYPE, "content-encoding": "gzip" }, "{}"),
      await head("/v1/files", big),
    ];
    expect(told.map(({ status, error }) => [status, error.code])).toEqual([
      [400, "unsupported_content_type"],
      [400, "unsupported_content_type"],
      [415, "unsupported_content_encoding"],
      [413, "request_too_large"],
    ]);
    expect(account.seen).toEqual([]);
  });
});

/** A request whose body never comes. */
async function head(path: string, headers: Record<string, string>): Promise<Told> {
  const { hostname, port } = new URL(gateway.url);
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      hostname,
      port,
      method: "POST",
      path,
      headers: { authorization: `Bearer ${KEY}`, ...headers },
    });
    request.on("error", reject);
    request.on("response", (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () => {
        request.destroy();
        const { error } = JSON.parse(text) as { error: Told["error"] };
        resolve({ status: response.statusCode!, headers: response.headers, text, error });
      });
    });
    request.flushHeaders();
  });
}

describe("tenancy", () => {
  const OTHER = "ve_bbbbbbbbbbbbbbbbbbbbbbbbbb";
  const OTHER_KEY = "tbk_test_secret_of_the_other_key";
  const ve = (id: string, more: Record<string, unknown> = {}) =>
    resource("virtualEndpoint", { id, name: "v", exhaustedStatus: 429, checkoutUrl: CHECKOUT, ...more });

  test("without the setting there is nothing, and it says what must be set", async () => {
    await start({ ve: {} });
    for (const [method, path] of [
      ["GET", "/v1/files"],
      ["POST", "/v1/batches"],
      ["DELETE", "/v1/vector_stores/vs_1"],
    ] as const) {
      const { status, error, headers } = await send(method, path);
      expect([status, error.code, headers["x-should-retry"]]).toEqual([404, "passthrough_not_set", "false"]);
      expect(error.message).toContain("passthrough_provider_id");
    }
    expect(account.seen).toEqual([]);
  });

  test("another VE's key never reaches the Provider", async () => {
    await start();
    delta(gateway.table, [ve(OTHER), keyResource("key_2", OTHER, OTHER_KEY)]);
    const files = (key: string, path = "/v1/files") => send("GET", path, {}, undefined, key);
    expect((await files(OTHER_KEY)).error.code).toBe("passthrough_not_set");
    expect((await files(OTHER_KEY, `/ve/${VE}/v1/files`)).error.code).toBe("invalid_api_key");
    expect((await files("nobody")).error.code).toBe("invalid_api_key");
    expect(account.seen).toEqual([]);
    const second = await startAccount();
    const provider = { id: "prov_b", format: 1, baseUrl: `${second.url}/v1`, credentials: { apiKey: "sk-b" } };
    delta(gateway.table, [resource("provider", provider), ve(OTHER, { passthroughProviderId: "prov_b" })]);
    expect((await files(OTHER_KEY)).status).toBe(200);
    expect((await files(KEY)).status).toBe(200);
    expect([account, second].map(({ seen }) => seen.map(({ headers }) => headers.authorization))).toEqual([
      ["Bearer sk-upstream-secret-0"],
      ["Bearer sk-b"],
    ]);
    // What is set holds for the next request.
    delta(gateway.table, [ve(VE)]);
    expect((await files(KEY)).error.code).toBe("passthrough_not_set");
    await second.close();
  });

  test.each([
    ["disabled", { disabled: true }, 503, "no_available_target"],
    ["of Anthropic", { format: 3 }, 404, "passthrough_not_supported"],
    ["of AWS Bedrock", { format: 4, region: "us-east-1" }, 404, "passthrough_not_supported"],
  ])("a Provider that is %s", async (_, provider, status, code) => {
    await start({ provider });
    expect(await send("GET", "/v1/files")).toMatchObject({ status, error: { code } });
    expect(account.seen).toEqual([]);
  });

  test("a Provider that is not there", async () => {
    await start({ ve: { passthroughProviderId: "prov_nobody" } });
    expect(await send("GET", "/v1/files")).toMatchObject({ status: 503, error: { code: "no_available_target" } });
  });
});

describe("the wallet", () => {
  const empty = { creditRemaining: 0n, creditBudget: 5n };
  const READS = ["/v1/files", "/v1/files/file-1/content", "/v1/batches/batch_1", "/v1/vector_stores/vs_1"];
  const ENDS = ["/v1/uploads/upload_1/cancel", "/v1/batches/batch_1/cancel"];
  const WRITES = ["/v1/uploads", "/v1/uploads/upload_1/complete", "/v1/vector_stores", "/v1/vector_stores/vs_1/search"];

  test("exhausted, it may read and take away, and nothing else", async () => {
    await start();
    gateway.budget.left = 0n;
    gateway.budget.balance = empty;
    for (const path of READS) expect([path, (await send("GET", path)).status]).toEqual([path, 200]);
    for (const path of ENDS) expect([path, (await send("POST", path)).status]).toEqual([path, 200]);
    expect((await send("DELETE", "/v1/files/file-1")).status).toBe(200);
    const before = account.seen.length;
    for (const told of [await postFile(), ...(await Promise.all(WRITES.map((path) => post(path))))]) {
      expect(told).toMatchObject({
        status: 429,
        headers: { "x-should-retry": "false" },
        error: { type: "insufficient_quota", code: "insufficient_quota", checkout_url: CHECKOUT },
      });
    }
    expect(account.seen).toHaveLength(before);
  });

  test("is asked for when nothing good was heard of it", async () => {
    await start();
    gateway.budget.balance = empty;
    expect((await post("/v1/uploads")).status).toBe(429);
    gateway.budget.left = 1n;
    expect((await post("/v1/uploads")).status).toBe(200);
    gateway.budget.left = -1n;
    gateway.budget.balance = { creditRemaining: 1n, creditBudget: 5n };
    expect((await post("/v1/uploads")).status).toBe(200);
    gateway.budget.balance = null;
    expect(await post("/v1/uploads")).toMatchObject({ status: 503, error: { code: "budget_unavailable" } });
  });
});

test("rate limits count these requests, and those under way", async () => {
  const rates = new RateLimiter({ now: () => 1_000_000, random: () => 0.5 });
  await start({ rates, keyRateLimits: { requestsPerMinute: 4, concurrentRequests: 1 } });
  const released = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  account.next.push((_, response) => {
    arrived.resolve();
    void released.promise.then(() => reply(response, 200, {}));
  });
  const first = send("GET", "/v1/files");
  await arrived.promise;
  const refused = await send("GET", "/v1/files");
  expect(refused).toMatchObject({ status: 429, error: { code: "rate_limit_exceeded" } });
  expect(refused.error.message).toContain("concurrent requests");
  released.resolve();
  expect(await first).toMatchObject({ status: 200, headers: { "x-ratelimit-remaining-requests": "3" } });
  // What is refused here does not count.
  gateway.budget.balance = { creditRemaining: 0n, creditBudget: 0n };
  expect((await post("/v1/uploads")).error.code).toBe("insufficient_quota");
  for (let i = 0; i < 3; i++) expect((await send("GET", "/v1/files")).status).toBe(200);
  expect((await send("GET", "/v1/files")).error.message).toContain("requests per minute");
});

describe("what the upstream says", () => {
  const say = (status: number, message: string, code: string | null = null, headers: Record<string, string> = {}) =>
    account.next.push((_, response) =>
      reply(response, status, { error: { message, type: "invalid_request_error", code } }, headers),
    );

  test("of the request is passed on without anything of its account", async () => {
    await start();
    say(
      404,
      `No such File object: file-1 at ${account.url}/v1 for org-abcdef123 with sk-upstream-secret-0`,
      "file_not_found",
    );
    const told = await send("GET", "/v1/files/file-1");
    expect(told).toMatchObject({ status: 404, error: { code: "file_not_found", type: "invalid_request_error" } });
    expect(told.error.message).toMatch(/^No such File object: file-1 at \*/);
    for (const secret of ["127.0.0.1", "org-abcdef123", "sk-upstream"]) expect(told.text).not.toContain(secret);
    say(400, "Invalid purpose");
    expect(await postFile()).toMatchObject({ status: 400, error: { message: "Invalid purpose" } });
  });

  test("of the account, or of itself, is not", async () => {
    await start();
    const words = "the account of the merchant";
    const unavailable = { status: 503, error: { code: "no_available_target" } };
    for (const [status, code] of [
      [401, "invalid_api_key"],
      [403, null],
      [429, "insufficient_quota"],
      [500, null],
    ] as const) {
      say(status, words, code);
      const told = await send("GET", "/v1/files");
      expect([status, told]).toMatchObject([status, unavailable]);
      expect(told.text).not.toContain("merchant.");
      expect(told.text).not.toContain(words);
    }
    say(302, words, null, { location: "http://169.254.169.254/" });
    const moved = await send("GET", "/v1/files/file-1/content");
    expect(moved).toMatchObject({ status: 502, error: { code: "bad_answer" } });
    expect(moved.headers["location"]).toBeUndefined();
    say(429, words, "rate_limit_exceeded", { "retry-after": "7" });
    const busy = await send("GET", "/v1/files");
    expect(busy).toMatchObject({
      status: 429,
      headers: { "retry-after": "7" },
      error: { code: "rate_limit_exceeded" },
    });
    expect(busy.text).not.toContain(words);
  });

  test("cannot be heard: nothing of its address is told", async () => {
    const gone = await startAccount();
    await gone.close();
    await start({ provider: { baseUrl: `${gone.url}/v1` } });
    const told = await postFile();
    expect(told).toMatchObject({ status: 503, error: { code: "no_available_target" } });
    expect(told.text).not.toContain("127.0.0.1");
  });

  test("an address that is not allowed is not called", async () => {
    await start({ outbound: createUpstream({ allowPrivate: false }) });
    expect(await postFile()).toMatchObject({ status: 503, error: { code: "no_available_target" } });
    expect(account.seen).toEqual([]);
  });
});
