/** What an API user sees through the official SDK, against real processes: answers, streams, and typed errors. */

import { request } from "node:http";
import {
  type OpenAI,
  type APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
} from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttemptResult, OnDisconnect, Outcome, type TokenBill } from "../../clients/ts/src/index.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const messages = [{ role: "user" as const, content: "one two three" }];
let system: System;
let upstream: Upstream;
let tb: TokenBill;
let shop: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ env: { VE_DOMAIN: "ai.example", CORS_ORIGINS: "https://app.example" } });
  tb = await system.api();
  shop = await openShop(tb, { upstreamUrl: upstream.url });
  await untilServed(system.node, shop);
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

async function served(upstreamModels: readonly string[]): Promise<{ shop: Shop; client: OpenAI }> {
  const made = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels });
  await untilServed(system.node, made);
  return { shop: made, client: system.node.openai(made.key, { maxRetries: 0 }) };
}

describe("addresses", () => {
  /** `fetch` does not let a caller set the host. */
  function status(host: string, path: string, key: string): Promise<number> {
    const [hostname, port] = system.node.address.split(":");
    return new Promise((resolve, reject) => {
      const headers = { host, authorization: `Bearer ${key}` };
      request({ hostname, port, path, headers, agent: false }, (response) => {
        response.resume().once("end", () => resolve(response.statusCode!));
      })
        .once("error", reject)
        .end();
    });
  }

  test("by key alone, by path, and by host name with either form of the id", async () => {
    const dashed = shop.veId.replace("_", "-");
    expect(await status("any", "/v1/models", shop.key)).toBe(200);
    expect(await status("any", `/ve/${shop.veId}/v1/models`, shop.key)).toBe(200);
    expect(await status(`${dashed}.ai.example`, "/v1/models", shop.key)).toBe(200);
    expect(await status(`${shop.veId}.ai.example`, "/v1/models", shop.key)).toBe(200);
  });

  test("a key opens its own VE only, and the refusal does not say what was wrong", async () => {
    const other = await openShop(tb, { upstreamUrl: upstream.url });
    await untilServed(system.node, other);
    expect(await status("any", `/ve/${other.veId}/v1/models`, shop.key)).toBe(401);
    expect(await status(`${other.veId}.ai.example`, "/v1/models", shop.key)).toBe(401);
    const wrong = await Promise.all(
      [`/ve/${other.veId}/v1/models`, "/ve/ve_nobody/v1/models", "/v1/models"].map(async (path, i) => {
        const key = i === 2 ? "tbk_nobody" : shop.key;
        return (
          await fetch(`http://${system.node.address}${path}`, { headers: { authorization: `Bearer ${key}` } })
        ).text();
      }),
    );
    expect(new Set(wrong).size).toBe(1);
  });

  test("browsers: the allowed origin is told so, and preflights need no key", async () => {
    const preflight = await fetch(`${system.node.url}/chat/completions`, {
      method: "OPTIONS",
      headers: {
        origin: "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
      },
    });
    expect(preflight.status).toBeLessThan(300);
    expect(preflight.headers.get("access-control-allow-origin")).toBe("https://app.example");
    const models = await fetch(`${system.node.url}/models`, {
      headers: { origin: "https://other.example", authorization: `Bearer ${shop.key}` },
    });
    expect(models.headers.get("access-control-allow-origin")).not.toBe("https://other.example");
  });
});

describe("typed errors", () => {
  const ask = (client: OpenAI, model = "chat") => client.chat.completions.create({ model, messages });

  test("a wrong key, an unknown model, an unknown path", async () => {
    await expect(ask(system.node.openai("tbk_wrong"))).rejects.toBeInstanceOf(AuthenticationError);
    const missing = await ask(system.node.openai(shop.key), "nope").catch((error: unknown) => error);
    expect(missing).toBeInstanceOf(NotFoundError);
    expect(missing).toMatchObject({ code: "model_not_found", param: "model" });
    const path = await system.node
      .openai(shop.key)
      .post("/fine_tuning/jobs", { body: {} })
      .catch((error: unknown) => error);
    expect(path).toBeInstanceOf(NotFoundError);
  });

  test("a body that is no JSON, has no model, or is too large", async () => {
    const post = (body: string | Uint8Array<ArrayBuffer>, path = "/chat/completions") =>
      fetch(system.node.url + path, {
        method: "POST",
        body,
        headers: { authorization: `Bearer ${shop.key}`, "content-type": "application/json" },
      });
    for (const body of ["{", "", "[]", "null", '{"messages":[]}', '{"model":5}', '{"model":"chat"', "\u0000"]) {
      const response = await post(body);
      expect(response.status, body).toBe(400);
      expect(await response.json(), body).toMatchObject({ error: { type: "invalid_request_error" } });
    }
    // The gateway answers before it has read everything, and may close: both are right, hanging is not.
    const large = await post(new Uint8Array(17 * 1024 * 1024).fill(32), "/embeddings").catch(() => undefined);
    if (large !== undefined) {
      expect(large.status).toBe(413);
      expect(await large.json()).toMatchObject({ error: { code: "request_too_large" } });
    }
  });

  test("an upstream's own refusal reaches the client, and nothing of the upstream's account does", async () => {
    const { client } = await served(["m~status=400"]);
    await expect(ask(client)).rejects.toBeInstanceOf(BadRequestError);
    const { client: failing } = await served(["m~status=500"]);
    const error = (await ask(failing).catch((caught: unknown) => caught)) as APIError;
    expect(error).toBeInstanceOf(InternalServerError);
    expect(JSON.stringify(error.error)).not.toContain(String(upstream.port));
    expect(JSON.stringify(error.error)).not.toContain("simulated-key");
  });
});

describe("fallback", () => {
  test.each([
    ["a status", "m~status=503"],
    ["a broken connection", "m~reset=head"],
    ["an empty stream", "m~end=content"],
    ["an error before the first content", "m~errorFrame=content"],
    ["a stream that breaks before the first content", "m~reset=content"],
  ])("after %s the next target answers, and the client notices nothing", async (_, bad) => {
    const made = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: [bad, "good"] });
    const [first, second] = made.physicalModelIds;
    const { logicalModels } = await tb.logicalModels.listLogicalModels({ veId: made.veId });
    const targets = [
      { physicalModelId: first!, weight: 1, tier: 0 },
      { physicalModelId: second!, weight: 1, tier: 1 },
    ];
    await tb.logicalModels.updateLogicalModel({ id: logicalModels[0]!.id, name: "tiered", targets: { targets } });
    await untilServed(system.node, { key: made.key, model: "tiered" });
    const client = system.node.openai(made.key, { maxRetries: 0 });
    const stream = await client.chat.completions.create({ model: "tiered", messages, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
    expect(text).toContain("simulated answer");
    const record = await until("the request is in the log", async () => {
      const { requests } = await tb.usage.listRequests({ filter: { veId: made.veId } });
      return requests[0];
    });
    expect(record.attempts.map((attempt) => attempt.physicalModelId)).toEqual([first, second]);
    expect(record.attempts.map((attempt) => attempt.tier)).toEqual([0, 1]);
    expect(record.attempts[1]!.result).toBe(AttemptResult.SERVED);
    expect(record.physicalModelId).toBe(second);
  });

  test("after content there is no silent fallback: the client is told, and what came is billed", async () => {
    const { shop: made, client } = await served(["m~reset=middle~afterChunks=5"]);
    const stream = await client.chat.completions.create({ model: "chat", messages, stream: true });
    let words = 0;
    const error = await (async () => {
      for await (const chunk of stream) if (chunk.choices[0]?.delta.content) words++;
    })().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(Error);
    expect(words).toBe(5);
    const record = await until("the request is in the log", async () => {
      const { requests } = await tb.usage.listRequests({ filter: { veId: made.veId } });
      return requests[0];
    });
    expect(record.outcome).toBe(Outcome.UPSTREAM_CUT);
    expect(record.credits).not.toBe("0");
  });
});

describe("streams", () => {
  /** Resolves when the connection is closed, so that the node hears of it before anything that is sent afterwards. */
  function readOneChunkAndLeave(key: string, body: object): Promise<void> {
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    return new Promise((resolve, reject) => {
      const call = request(`${system.node.url}/chat/completions`, { method: "POST", headers, agent: false });
      call.once("response", (response) => {
        response.once("data", () => call.destroy());
        response.on("error", () => {});
      });
      call.once("error", reject).once("close", resolve);
      call.end(JSON.stringify(body));
    });
  }

  test("every chunk arrives before the next one is sent, without being held up", async () => {
    const { client } = await served(["drip"]);
    upstream.behave("drip", { hold: true, words: 30 });
    const seen = upstream.calls.length;
    // Headers and the role chunk wait for the first content.
    upstream.release("drip", 1);
    const stream = await client.chat.completions.create({ model: "chat", messages, stream: true });
    const call = await upstream.waitForCalls(seen + 1);
    const chunks = stream[Symbol.asyncIterator]();
    while (!(await chunks.next()).value!.choices[0]!.delta.content);
    const delays: number[] = [];
    for (let i = 1; i < 30; i++) {
      upstream.release("drip", 1);
      const { value } = await chunks.next();
      delays.push(performance.timeOrigin + performance.now() - call.chunkMs[i]!);
      expect(value!.choices[0]!.delta.content).toBeTruthy();
    }
    // Nagle's algorithm with delayed acknowledgements would make it 40 ms each.
    expect(delays.toSorted((a, b) => a - b)[15]).toBeLessThan(30);
    upstream.release("drip");
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next());
  });

  test("a client who goes away is not waited for: the upstream call is cancelled, and an estimate billed", async () => {
    const { shop: made, client } = await served(["slow"]);
    upstream.behave("slow", { hold: true });
    const seen = upstream.calls.length;
    const controller = new AbortController();
    const stream = await (async () => {
      const pending = client.chat.completions.create(
        { model: "chat", messages, stream: true },
        { signal: controller.signal },
      );
      await upstream.waitForCalls(seen + 1);
      upstream.release("slow", 4);
      return pending;
    })();
    const chunks = stream[Symbol.asyncIterator]();
    await chunks.next();
    const call = upstream.calls[seen]!;
    controller.abort();
    expect(await call.done).toBe(false);
    const record = await until("the request is in the log", async () => {
      const { requests } = await tb.usage.listRequests({ filter: { veId: made.veId } });
      return requests[0];
    });
    expect(record.outcome).toBe(Outcome.CLIENT_GONE);
    expect(record.credits).not.toBe("0");
  });

  test("with DRAIN, what the upstream reports in the end is billed, though nobody listens", async () => {
    const { shop: made } = await served(["drained"]);
    await tb.providers.updateProvider({ id: made.providerId, onDisconnect: OnDisconnect.DRAIN });
    // The edit has no other sign on the node: a Logical Model made after it has arrived when it has.
    const [physicalModelId] = made.physicalModelIds;
    await tb.logicalModels.createLogicalModel({
      veId: made.veId,
      name: "later",
      targets: [{ physicalModelId: physicalModelId!, weight: 1 }],
    });
    await untilServed(system.node, { key: made.key, model: "later" });
    upstream.behave("drained", { hold: true, words: 20 });
    upstream.release("drained", 2);
    const seen = upstream.calls.length;
    await readOneChunkAndLeave(made.key, { model: "later", messages, stream: true });
    const call = await upstream.waitForCalls(seen + 1);
    // Two round trips: the node has seen the closed connection before the rest of the answer comes.
    for (let i = 0; i < 2; i++) await (await fetch(`http://${system.node.address}/healthz`)).text();
    upstream.release("drained");
    expect(await call.done).toBe(true);
    const record = await until("the request is in the log", async () => {
      const { requests } = await tb.usage.listRequests({ filter: { veId: made.veId } });
      return requests[0];
    });
    expect(record.outcome).toBe(Outcome.CLIENT_GONE);
    // 3 tokens in, 20 out, 0.05 Credits per 1000.
    expect(record.credits).toBe("0.00115");
  });
});
