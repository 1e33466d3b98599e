/** Who may call, where, and what stands there. */

import { request as httpRequest } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseTarget, veIdOf, veOfHost } from "./auth.ts";
import { delta, type Gateway, KEY, keyResource, resource, startGateway, VE } from "./testing.ts";

const OTHER = "ve_bbbbbbbbbbbbbbbbbbbbbbbbbb";
const OTHER_KEY = "tbk_secret_of_another_ve";

let gateway: Gateway;
beforeEach(async () => {
  gateway = await startGateway({ settings: { veDomain: "ai.example.com" } });
  delta(gateway.table, [
    resource("virtualEndpoint", { id: OTHER, name: "Other" }),
    keyResource("key_other", OTHER, OTHER_KEY),
    resource("virtualEndpoint", { id: "ve_off", name: "Off", disabled: true }),
    keyResource("key_off", "ve_off", "tbk_of_disabled"),
    keyResource("key_lost", "ve_unknown", "tbk_of_unknown"),
  ]);
});
afterEach(() => gateway.close());

/** A request with any Host header, which fetch does not allow. */
function send(
  path: string,
  headers: Record<string, string>,
  method = "GET",
): Promise<{ status: number; body: any; headers: any }> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(gateway.url + path, { method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({
          status: response.statusCode!,
          body: text === "" ? null : JSON.parse(text),
          headers: response.headers,
        });
      });
    });
    call.on("error", reject);
    call.end();
  });
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const label = VE.replace("_", "-");

describe("addresses", () => {
  test.each([
    ["by key alone", "/v1/models", {}],
    ["by path", `/ve/${VE}/v1/models`, {}],
    ["by path with a hyphen", `/ve/${label}/v1/models`, {}],
    ["by path in capitals", `/ve/${VE.toUpperCase()}/v1/models`, {}],
    ["by host", "/v1/models", { host: `${VE}.ai.example.com` }],
    ["by host with a hyphen, port and capitals", "/v1/models", { host: `${label.toUpperCase()}.AI.example.com:8443` }],
    ["by host with a dot at its end", "/v1/models", { host: `${label}.ai.example.com.` }],
    ["by host and path", `/ve/${VE}/v1/models`, { host: `${label}.ai.example.com` }],
    ["by the domain itself", "/v1/models", { host: "ai.example.com" }],
    ["by another host", "/v1/models", { host: "gateway.example.org" }],
    ["with a query", "/v1/models?a=/b", {}],
    ["with the api-key header", "/v1/models", { authorization: "", "api-key": KEY }],
    ["with the x-api-key header", "/v1/models", { authorization: "", "x-api-key": KEY }],
    ["with another case of Bearer", "/v1/models", { authorization: `bEARER   ${KEY} ` }],
  ])("%s", async (_, path, headers) => {
    const { status, body } = await send(path, { ...bearer(KEY), ...headers });
    expect(body).toMatchObject({ object: "list", data: [{ id: "gpt" }] });
    expect(status).toBe(200);
  });

  test("anything wrong is one and the same 401", async () => {
    const answers = await Promise.all([
      send("/v1/models", {}),
      send("/v1/models", bearer("tbk_wrong")),
      send("/v1/models", bearer("")),
      send("/v1/models", { authorization: `Basic ${KEY}` }),
      send("/v1/models", bearer("x".repeat(5000))),
      send("/v1/models", bearer(OTHER_KEY + " ")).then(() => send(`/ve/${VE}/v1/models`, bearer(OTHER_KEY))),
      send(`/ve/${OTHER}/v1/models`, bearer(KEY)),
      send("/ve/nonsense/v1/models", bearer(KEY)),
      send("/ve/ve_unknown/v1/models", bearer(KEY)),
      send("/v1/models", { ...bearer(KEY), host: `${OTHER}.ai.example.com` }),
      send("/v1/models", { ...bearer(KEY), host: "www.ai.example.com" }),
      send("/v1/models", { ...bearer(KEY), host: `a.${VE}.ai.example.com` }),
      send(`/ve/${OTHER}/v1/models`, { ...bearer(KEY), host: `${VE}.ai.example.com` }),
      send("/v1/models", bearer("tbk_of_disabled")),
      send("/v1/models", bearer("tbk_of_unknown")),
      send("/v1/models/gpt", {}),
      send("/v1/chat/completions", bearer("tbk_wrong"), "POST"),
    ]);
    for (const { status, body, headers } of answers) {
      expect(status).toBe(401);
      expect(body).toEqual(answers[0]!.body);
      expect(headers["x-should-retry"]).toBe("false");
      expect(headers["x-request-id"]).toMatch(/^usg_[a-z2-7]{26}$/);
    }
    expect(answers[0]!.body.error).toMatchObject({
      type: "invalid_request_error",
      code: "invalid_api_key",
      param: null,
    });
  });

  test("a key is refused at once when it is revoked, its VE disabled or removed", async () => {
    delta(gateway.table, [], ["key_1"]);
    expect((await send("/v1/models", bearer(KEY))).status).toBe(401);
    expect((await send("/v1/models", bearer(OTHER_KEY))).status).toBe(200);
    delta(gateway.table, [resource("virtualEndpoint", { id: OTHER, disabled: true })]);
    expect((await send("/v1/models", bearer(OTHER_KEY))).status).toBe(401);
  });
});

describe("paths", () => {
  test("models are listed and shown as OpenAI does", async () => {
    delta(gateway.table, [
      resource("logicalModel", { id: "lm_s", veId: VE, name: "meta/llama 3", createUnixS: 5n, targets: [] }),
    ]);
    const model = { id: "meta/llama 3", object: "model", created: 5, owned_by: "tokenbill" };
    expect((await send("/v1/models", bearer(KEY))).body.data[1]).toEqual(model);
    expect((await send("/v1/models/meta%2Fllama%203", bearer(KEY))).body).toEqual(model);
    expect((await send("/v1/models/meta/llama%203", bearer(KEY))).body).toEqual(model);
    const missing = await send("/v1/models/nope", bearer(KEY));
    expect([missing.status, missing.body.error.code, missing.body.error.param]).toEqual([
      404,
      "model_not_found",
      "model",
    ]);
    expect((await send("/v1/models", bearer(OTHER_KEY))).body.data).toEqual([]);
  });

  test.each([
    "/",
    "/v1",
    "/v1/",
    "/v1/answers",
    "/v1/chat/completions/",
    "/v1/models/",
    "/v1/models/%zz",
    "/v2/models",
    "/ve/",
    "/ve/x",
    "//v1/models",
    "/V1/models",
  ])("%s is an OpenAI-shaped 404", async (path) => {
    const { status, body } = await send(path, bearer(KEY));
    expect(status).toBe(404);
    expect(body.error).toMatchObject({ type: "invalid_request_error", code: "unknown_url", param: null });
  });

  test("a wrong method is 405 and says the right one", async () => {
    for (const [method, path, allow] of [
      ["GET", "/v1/chat/completions", "POST"],
      ["DELETE", "/v1/models/gpt", "GET"],
      ["OPTIONS", "/v1/embeddings", "POST"],
    ] as const) {
      const { status, body, headers } = await send(path, bearer(KEY), method);
      expect([status, headers.allow, body.error.code]).toEqual([405, allow, "method_not_supported"]);
    }
  });

  test("the node's own paths need no key", async () => {
    for (const path of ["/healthz", "/readyz", "/metrics"]) {
      const response = await fetch(gateway.url + path);
      expect(response.status).toBe(200);
      await response.text();
    }
  });
});

describe("CORS", () => {
  const ask = (url: string, origin: string) =>
    fetch(`${url}/v1/chat/completions`, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-lang",
      },
    });

  test("is off by default", async () => {
    const response = await ask(gateway.url, "https://app.example");
    expect(response.status).toBe(405);
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
    await response.text();
  });

  test.each([
    [["*"], "*"],
    [["https://app.example", "https://b.example"], "https://app.example"],
  ])("allows %j", async (corsOrigins, allowed) => {
    const open = await startGateway({ settings: { corsOrigins } });
    const preflight = await ask(open.url, "https://app.example");
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-origin")).toBe(allowed);
    expect(preflight.headers.get("access-control-allow-methods")).toBe("POST, OPTIONS");
    expect(preflight.headers.get("access-control-allow-headers")).toBe("authorization, x-stainless-lang");
    const answer = await open.post("/v1/chat/completions", { model: "nope" }, { origin: "https://app.example" });
    expect(answer.status).toBe(404);
    expect(answer.headers.get("access-control-allow-origin")).toBe(allowed);
    expect(answer.headers.get("access-control-expose-headers")).toContain("x-request-id");
    await answer.text();
    if (allowed !== "*") {
      const stranger = await ask(open.url, "https://evil.example");
      expect([
        stranger.status,
        stranger.headers.get("access-control-allow-origin"),
        stranger.headers.get("vary"),
      ]).toEqual([405, null, "Origin"]);
      await stranger.text();
    }
    await open.close();
  });
});

describe("taking addresses apart", () => {
  test.each([
    ["ve_abc", "ve_abc"],
    ["VE-ABC", "ve_abc"],
    ["prov_abc", ""],
    ["", ""],
  ])("label %s", (text, id) => expect(veIdOf(text)).toBe(id));

  test("hosts", () => {
    expect(veOfHost("ve-a.x.example", "")).toBeNull();
    expect(veOfHost("ve-a.x.example:1", "x.example")).toBe("ve_a");
    expect(veOfHost("evilx.example", "x.example")).toBeNull();
    expect(veOfHost("[::1]:80", "x.example")).toBeNull();
  });

  test("targets", () => {
    expect(parseTarget("http://h:1/ve/ve_a/v1/models?x")).toEqual({ ve: "ve_a", path: "/v1/models", authority: "h:1" });
    expect(parseTarget("http://h")).toEqual({ ve: null, path: "/", authority: "h" });
    expect(parseTarget("*")).toEqual({ ve: null, path: "*", authority: "" });
  });
});
