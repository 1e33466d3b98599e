/** Rate limits as merchants and API users meet them: two nodes, one control plane, the official SDK. Counts, no clocks. */

import OpenAI, { RateLimitError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AttemptResult, ExclusionReason, type TokenBill } from "../../clients/ts/src/index.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { type DataPlaneNode, System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

const messages = [{ role: "user" as const, content: "one two three" }];
const NAMES = ["limit", "remaining", "reset"];

let system: System;
let upstream: Upstream;
let tb: TokenBill;
let markers = 0;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start({ nodes: 2, env: { CORS_ORIGINS: "https://app.example" } });
  tb = await system.api();
});
afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

interface Limits {
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: bigint;
  readonly concurrentRequests?: number;
}

/** Everything that was set before has reached both nodes: they apply changes in the order in which they were made. */
async function untilApplied(shop: Shop): Promise<void> {
  const { logicalModels } = await tb.logicalModels.listLogicalModels({ veId: shop.veId });
  const { physicalModelId } = logicalModels[0]!.targets[0]!;
  const model = `marker-${++markers}`;
  await tb.logicalModels.createLogicalModel({
    veId: shop.veId,
    name: model,
    targets: [{ physicalModelId, weight: 1 }],
  });
  for (const node of system.nodes) await untilServed(node, { key: shop.key, model });
}

async function limitVe(shop: Shop, rateLimits: Limits): Promise<void> {
  await tb.virtualEndpoints.updateVirtualEndpoint({ id: shop.veId, rateLimits });
  await untilApplied(shop);
}

/** A shop whose models are asked in the order given. */
async function open(models: readonly string[] = ["simulated-model"]): Promise<Shop> {
  const shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: models });
  if (models.length > 1) {
    const { logicalModels } = await tb.logicalModels.listLogicalModels({ veId: shop.veId });
    const targets = shop.physicalModelIds.map((physicalModelId, tier) => ({ physicalModelId, tier, weight: 1 }));
    await tb.logicalModels.updateLogicalModel({ id: logicalModels[0]!.id, targets: { targets } });
  }
  return shop;
}

function nodeAt(n: number): DataPlaneNode {
  return system.nodes[n % system.nodes.length]!;
}

/** Without retries; the answer's headers, or the refusal. */
async function ask(shop: Shop, n: number, more: object = {}): Promise<Headers | RateLimitError> {
  const { chat } = nodeAt(n).openai(shop.key, { maxRetries: 0 });
  const asked = chat.completions.create({ model: shop.model, messages, ...more }).withResponse();
  return asked.then(
    ({ response }) => response.headers,
    (error: unknown) => {
      if (error instanceof RateLimitError) return error;
      throw error;
    },
  );
}

async function reportsOf(node: DataPlaneNode): Promise<number> {
  const text = await (await fetch(`http://${node.address}/metrics`)).text();
  return Number(/^tokenbill_node_rate_shares_total\{result="shared"\} (\d+)$/m.exec(text)![1]);
}

/** One request on each node, and the answers to what they then report: from there on each knows what it may use. */
async function begin(shop: Shop): Promise<number> {
  const answers = await Promise.all([ask(shop, 0), ask(shop, 1)]);
  for (const node of system.nodes) {
    const before = await reportsOf(node);
    await until("the node has reported", async () => (await reportsOf(node)) >= before + 2);
  }
  return answers.filter((answer) => !isRefused(answer)).length;
}

const isRefused = (answer: Headers | RateLimitError): answer is RateLimitError => answer instanceof RateLimitError;

async function burst(shop: Shop, count: number, more: object = {}): Promise<number> {
  const answers = await Promise.all(Array.from({ length: count }, (_, n) => ask(shop, n, more)));
  return answers.filter((answer) => !isRefused(answer)).length;
}

function figures(headers: Headers, what: "requests" | "tokens"): (string | null)[] {
  return NAMES.map((name) => headers.get(`x-ratelimit-${name}-${what}`));
}

async function attemptsOf(shop: Shop, id: string): Promise<AttemptResult[]> {
  const request = await until("the request is reported", async () => {
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 100 });
    return requests.find((one) => one.id === id);
  });
  return request.attempts.map(({ result }) => result);
}

describe("requests per minute of a VE", () => {
  const LIMIT = 20;

  test("are kept over both nodes to the last one, told as OpenAI does, and raised or removed at once", async () => {
    const shop = await open();
    await limitVe(shop, { requestsPerMinute: LIMIT });
    let admitted = await begin(shop);
    admitted += await burst(shop, 2 * LIMIT);
    // What one node holds ready comes to the other when that asks for it.
    await until("all of the limit is used", async () => {
      admitted += await burst(shop, 4);
      return admitted >= LIMIT;
    });
    admitted += await burst(shop, 8);
    expect(admitted).toBe(LIMIT);

    for (const n of [0, 1]) {
      const refused = await until("the node has heard that nothing is left", async () => {
        const answer = await ask(shop, n);
        if (!isRefused(answer)) throw new Error("admitted");
        return figures(answer.headers, "requests")[1] === "0" && answer;
      });
      expect(refused).toMatchObject({ status: 429, type: "requests", code: "rate_limit_exceeded", param: null });
      expect(refused.message).toMatch(/Rate limit reached on requests per minute: limit 20\. Please try again in \d/);
      const { headers } = refused;
      expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
      expect(Number(headers.get("retry-after"))).toBeLessThanOrEqual(60);
      expect(Number(headers.get("retry-after-ms"))).toBeLessThanOrEqual(60_000);
      expect(headers.get("x-should-retry")).toBe(null);
      expect(figures(headers, "requests")).toEqual(["20", "0", expect.stringMatching(/^(1m)?\d+(\.\d+)?m?s$/)]);
      expect(figures(headers, "tokens")).toEqual([null, null, null]);
    }
    const dry = await tb.logicalModels.dryRun({ veId: shop.veId, model: shop.model });
    expect(dry.errorCode).toBe("rate_limit_exceeded");
    expect(dry.errorMessage).toContain("requests per minute");

    await limitVe(shop, { requestsPerMinute: 1_000 });
    for (const n of [0, 1]) {
      const answer = await ask(shop, n);
      if (isRefused(answer)) throw answer;
      expect(figures(answer, "requests")[0]).toBe("1000");
      expect(Number(figures(answer, "requests")[1])).toBeGreaterThan(900);
    }
    await limitVe(shop, {});
    for (const n of [0, 1]) {
      const answer = await ask(shop, n);
      if (isRefused(answer)) throw answer;
      expect(figures(answer, "requests")).toEqual([null, null, null]);
    }
  });

  test("lowered below what was used: nothing is left, and the headers say so", async () => {
    const shop = await open();
    await limitVe(shop, { requestsPerMinute: 600 });
    for (let n = 0; n < 6; n++) expect(isRefused(await ask(shop, n))).toBe(false);
    await until("both nodes know what the other used", async () => {
      const left = await Promise.all([0, 1].map(async (n) => figures((await ask(shop, n)) as Headers, "requests")[1]));
      return left.every((one) => Number(one) < 595);
    });
    await limitVe(shop, { requestsPerMinute: 2 });
    for (const n of [0, 1]) {
      const refused = await ask(shop, n);
      if (!isRefused(refused)) throw new Error("admitted");
      expect(figures(refused.headers, "requests").slice(0, 2)).toEqual(["2", "0"]);
    }
  });
});

test("an access key's limit is its own: another key of the VE is served, and the headers are those of the key", async () => {
  const shop = await open();
  const { secret } = await tb.virtualEndpoints.createAccessKey({ veId: shop.veId });
  await tb.virtualEndpoints.updateAccessKey({ id: shop.keyId, rateLimits: { requestsPerMinute: 2 } });
  await limitVe(shop, { requestsPerMinute: 500, tokensPerMinute: 1_000_000n });
  const answer = await ask(shop, 0);
  if (isRefused(answer)) throw answer;
  expect(figures(answer, "requests")[0]).toBe("2");
  expect(figures(answer, "tokens")[0]).toBe("1000000");
  await until("the key's limit is reached on both nodes", async () => {
    const answers = await Promise.all([ask(shop, 0), ask(shop, 1)]);
    return answers.every(isRefused);
  });
  const other = await ask({ ...shop, key: secret }, 0);
  if (isRefused(other)) throw other;
  expect(figures(other, "requests")[0]).toBe("500");
});

test("a Physical Model at its limit is passed over; when all are at theirs, the answer is 429", async () => {
  const shop = await open(["simulated-model", "simulated-model"]);
  const [first, second] = shop.physicalModelIds as [string, string];
  const LIMIT = 6;
  await tb.providers.updatePhysicalModel({ id: first, rateLimits: { requestsPerMinute: LIMIT } });
  await tb.virtualEndpoints.updateVirtualEndpoint({ id: shop.veId, explainHeaders: true });
  await untilApplied(shop);
  const served: (string | null)[] = [];
  let last = "";
  await until("the first model is at its limit on both nodes", async () => {
    const answers = (await Promise.all([ask(shop, 0), ask(shop, 1)])) as Headers[];
    const models = answers.map((headers) => headers.get("x-tokenbill-physical-model"));
    served.push(...models);
    last = answers[0]!.get("x-request-id")!;
    return served.filter((id) => id === first).length >= LIMIT && models.every((id) => id === second);
  });
  // One more at most: a node that begins later than the other serves one before it has heard of that.
  expect(served.filter((id) => id === first).length).toBeLessThanOrEqual(LIMIT + 1);
  expect(await attemptsOf(shop, last)).toEqual([AttemptResult.RATE_LIMITED, AttemptResult.SERVED]);
  const passing = await tb.logicalModels.dryRun({ veId: shop.veId, model: shop.model });
  expect(passing.errorCode).toBe("");
  expect(passing.targets.map(({ probability }) => probability)).toEqual([0, 1]);
  expect(passing.targets[0]!.exclusions.map(({ reason }) => reason)).toEqual([ExclusionReason.RATE_LIMITED]);

  await tb.providers.updatePhysicalModel({ id: second, rateLimits: { requestsPerMinute: 1 } });
  await untilApplied(shop);
  await until("all are at their limits", async () => (await burst(shop, 4)) === 0);
  const refused = await ask(shop, 0);
  if (!isRefused(refused)) throw new Error("admitted");
  expect(refused).toMatchObject({ status: 429, type: "rate_limit_error", code: "rate_limit_exceeded" });
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  const dry = await until("the control plane knows", async () => {
    const one = await tb.logicalModels.dryRun({ veId: shop.veId, model: shop.model });
    return one.errorCode === "rate_limit_exceeded" && one;
  });
  expect(dry.targets.map(({ probability }) => probability)).toEqual([0, 0]);
});

describe("tokens per minute", () => {
  test("count what was used; more input than the limit is not worth a retry", async () => {
    const shop = await open(["simulated~words=10"]);
    await limitVe(shop, { tokensPerMinute: 1_500n });
    const answer = await ask(shop, 0, { max_tokens: 100 });
    if (isRefused(answer)) throw answer;
    expect(figures(answer, "tokens")[0]).toBe("1500");
    // 13 tokens were used of the hundred and more that were expected.
    await until("what was too much is free again", async () => {
      const next = await ask(shop, 0, { max_tokens: 1 });
      return !isRefused(next) && Number(figures(next, "tokens")[1]) > 1_300;
    });
    const refused = await ask(shop, 0, { messages: [{ role: "user", content: "word ".repeat(2_000) }] });
    if (!isRefused(refused)) throw new Error("admitted");
    expect(refused).toMatchObject({ status: 429, type: "tokens", code: "rate_limit_exceeded" });
    expect(refused.message).toContain("Request too large");
    expect(refused.headers.get("x-should-retry")).toBe("false");
  });

  test("embeddings and streams are told of them as well, browsers too", async () => {
    const shop = await open();
    await limitVe(shop, { requestsPerMinute: 100, tokensPerMinute: 100_000n });
    const client = nodeAt(1).openai(shop.key, { maxRetries: 0 });
    const embedded = await client.embeddings
      .create(
        { model: shop.model, input: "one two", encoding_format: "float" },
        { headers: { origin: "https://app.example" } },
      )
      .withResponse();
    expect(figures(embedded.response.headers, "tokens")[0]).toBe("100000");
    const exposed = embedded.response.headers.get("access-control-expose-headers");
    for (const name of ["retry-after", ...NAMES.map((one) => `x-ratelimit-${one}-requests`)])
      expect(exposed).toContain(name);
    const { data, response } = await client.chat.completions
      .create({ model: shop.model, messages, stream: true })
      .withResponse();
    expect(figures(response.headers, "requests")[0]).toBe("100");
    for await (const _ of data);
  });
});

describe("concurrent requests", () => {
  /** A stream that goes on until the upstream lets it, or its client leaves. */
  async function holdStream(shop: Shop, n: number): Promise<AbortController> {
    const left = new AbortController();
    const client = nodeAt(n).openai(shop.key, { maxRetries: 0 });
    const calls = upstream.calls.length;
    void client.chat.completions
      .create({ model: shop.model, messages, stream: true }, { signal: left.signal })
      .then(async (chunks) => {
        for await (const _ of chunks);
      })
      .catch(() => undefined);
    await upstream.waitForCalls(calls + 1);
    return left;
  }

  /** With the SDK's own retries; counts the refusals on the way. */
  async function askPatiently(shop: Shop, n: number): Promise<number> {
    let refusals = 0;
    const counting: typeof fetch = async (...args) => {
      const response = await fetch(...args);
      refusals += Number(response.status === 429);
      return response;
    };
    const client = new OpenAI({ baseURL: nodeAt(n).url, apiKey: shop.key, fetch: counting });
    await client.chat.completions.create({ model: shop.model, messages, max_tokens: 3 });
    return refusals;
  }

  test("the SDK's retry comes through when a stream was left by its client", async () => {
    const name = `held-${process.pid}`;
    const shop = await open([name]);
    await limitVe(shop, { concurrentRequests: 1 });
    upstream.behave(name, { hold: true }, {});
    const left = await holdStream(shop, 0);
    const refused = await ask(shop, 0);
    if (!isRefused(refused)) throw new Error("admitted");
    expect(refused).toMatchObject({ type: "requests", code: "rate_limit_exceeded" });
    expect(refused.message).toContain("concurrent requests: limit 1");
    const dry = await until("the control plane knows", async () => {
      const one = await tb.logicalModels.dryRun({ veId: shop.veId, model: shop.model });
      return one.errorCode !== "" && one;
    });
    expect(dry.errorMessage).toContain("concurrent requests");
    const patient = askPatiently(shop, 0);
    left.abort();
    await patient;
  });

  test.each([1, 2])("with a limit of %i, one request after the other is served by either node", async (limit) => {
    const shop = await open();
    await limitVe(shop, { concurrentRequests: limit });
    // Nothing else runs, so no caller may see an error, whichever node the one before it was on.
    for (let n = 0; n < 8; n++) await askPatiently(shop, n);
  });
});
