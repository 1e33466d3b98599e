import OpenAI from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { AttemptResult } from "./outcome.ts";
import { pinId } from "./pins.ts";
import { type RateHold, RateKind, type RateLimits, type RateRefusal, type Rates } from "./rates/rates.ts";
import { formatDuration } from "./rates/request_rates.ts";
import { type Gateway, type GatewayOptions, KEY, startGateway, VE } from "./testing.ts";
import { chat, error, sse, streamText } from "./testing_upstream.ts";

let gateway: Gateway;
afterEach(async () => {
  await gateway.close();
  expect(rates.open).toBe(0);
});

/** Refuses whom it is told to, and notes what is held. */
class FakeRates implements Rates {
  refusals = new Map<string, RateRefusal>();
  taken: { subject: string; limits: RateLimits; tokens: number; inputTokens: number }[] = [];
  settled: [subject: string, tokens: number][] = [];
  released: string[] = [];
  open = 0;

  take(subject: string, limits: RateLimits, tokens: number, inputTokens: number): RateHold | RateRefusal {
    const refusal = this.refusals.get(subject);
    if (refusal !== undefined) return refusal;
    this.taken.push({ subject, limits, tokens, inputTokens });
    this.open++;
    let over = false;
    const end = (run: () => void): void => {
      if (over) return;
      over = true;
      this.open--;
      run();
    };
    return {
      settle: (used) => end(() => this.settled.push([subject, used])),
      release: () => end(() => this.released.push(subject)),
    };
  }

  refuses(subject: string): boolean {
    return this.refusals.has(subject);
  }

  view() {
    return { remainingRequests: 7, remainingTokens: 800, resetRequestsMs: 1_500, resetTokensMs: 361_000 };
  }
}

let rates: FakeRates;

async function start(options: GatewayOptions = {}): Promise<void> {
  rates = new FakeRates();
  gateway = await startGateway({
    rates,
    keyRateLimits: { requestsPerMinute: 10 },
    ve: { rateLimits: { requestsPerMinute: 100, tokensPerMinute: 1_000n } },
    ...options,
  });
}

const refusal = (fields: Partial<RateRefusal> = {}): RateRefusal => ({
  kind: RateKind.REQUESTS,
  limit: 10,
  retryMs: 2_300,
  tooLarge: false,
  ...fields,
});

describe("key and VE", () => {
  test("both hold a request until it has ended, and then count what it used", async () => {
    await start();
    const response = await gateway.chat();
    await response.text();
    expect(rates.taken.map(({ subject }) => subject)).toEqual(["key_1", VE]);
    expect(rates.taken[0]!.tokens).toBe(rates.taken[0]!.inputTokens + 1024);
    expect(rates.settled).toEqual([
      ["key_1", 21],
      [VE, 21],
    ]);
    expect(Object.fromEntries([...response.headers].filter(([name]) => name.startsWith("x-ratelimit")))).toEqual({
      "x-ratelimit-limit-requests": "10",
      "x-ratelimit-limit-tokens": "1000",
      "x-ratelimit-remaining-requests": "7",
      "x-ratelimit-remaining-tokens": "800",
      "x-ratelimit-reset-requests": "1.5s",
      "x-ratelimit-reset-tokens": "6m1s",
    });
  });

  test("the limit that the client names is what is expected", async () => {
    await start();
    await (await gateway.chat({ max_tokens: 5, n: 2 })).text();
    expect(rates.taken[0]!.tokens).toBe(rates.taken[0]!.inputTokens + 10);
  });

  test.each([
    [refusal(), "requests", "Rate limit reached on requests per minute: limit 10. Please try again in 2.3s."],
    [refusal({ kind: RateKind.TOKENS }), "tokens", "tokens per minute"],
    [refusal({ kind: RateKind.CONCURRENT }), "requests", "concurrent requests"],
  ])("a reached limit of the VE is OpenAI's 429 %#", async (refused, type, words) => {
    await start();
    rates.refusals.set(VE, refused);
    const response = await gateway.chat();
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("3");
    expect(response.headers.get("retry-after-ms")).toBe("2300");
    expect(response.headers.get("x-should-retry")).toBe(null);
    expect(response.headers.get("x-ratelimit-limit-requests")).toBe("10");
    const { error: body } = (await response.json()) as { error: Record<string, unknown> };
    expect(body).toMatchObject({ type, code: "rate_limit_exceeded", param: null });
    expect(body["message"]).toContain(words);
    // What the key had held is given back, and nothing was asked of the wallet or an upstream.
    expect(rates.released).toEqual(["key_1"]);
    expect(gateway.budget.reservations).toEqual([]);
    expect(gateway.upstreams[0]!.seen).toEqual([]);
  });

  test("the official SDK waits as it is told, and a request that is too large is not tried again", async () => {
    await start();
    rates.refusals.set("key_1", refusal({ retryMs: 20 }));
    setTimeout(() => rates.refusals.clear(), 15);
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: KEY, maxRetries: 5 });
    const ask = () => client.chat.completions.create({ model: "gpt", messages: [{ role: "user", content: "Hi" }] });
    expect((await ask()).choices[0]!.message.content).toBe("Hello there");
    rates.refusals.set("key_1", refusal({ kind: RateKind.TOKENS, tooLarge: true }));
    await expect(ask()).rejects.toThrow(OpenAI.RateLimitError);
    await expect(ask()).rejects.toMatchObject({ code: "rate_limit_exceeded", type: "tokens" });
  });

  test("an empty wallet gives back what was held", async () => {
    await start();
    gateway.budget.failure = "exhausted";
    gateway.budget.free = 0n;
    const response = await gateway.chat();
    expect(await response.text()).toContain("insufficient_quota");
    expect(rates.released).toEqual(["key_1", VE]);
  });

  test("/tokenbill and lists of models count nothing", async () => {
    await start();
    await (await gateway.chat({ messages: [{ role: "user", content: "/tokenbill" }] })).text();
    await (await fetch(`${gateway.url}/v1/models`, { headers: { authorization: `Bearer ${KEY}` } })).text();
    expect(rates.taken).toEqual([]);
  });

  test("a client that leaves a stream counts what it got", async () => {
    await start();
    gateway.upstreams[0]!.next(sse(streamText(["some"]).slice(0, 2), "hang"));
    const leaving = new AbortController();
    const response = await gateway.chat({ stream: true }, leaving.signal);
    await response.body!.getReader().read();
    leaving.abort();
    await gateway.journal.settled();
    expect(rates.settled.map(([subject]) => subject)).toEqual(["key_1", VE]);
    expect(rates.settled[0]![1]).toBeGreaterThan(0);
  });
});

describe("Physical Models", () => {
  const pm = { rateLimits: { requestsPerMinute: 3 } };
  const targets = () =>
    gateway.journal.settlements[0]!.attempts.map(({ physicalModelId, result }) => [physicalModelId, result]);

  test("one at its limit is passed over by a hedge too", async () => {
    await start({ upstreams: 3, pm: { rateLimits: { requestsPerMinute: 5 } }, routing: { hedgeAfterMs: 60 } });
    rates.refusals.set("pm_1", refusal());
    gateway.upstreams[0]!.next(() => undefined);
    gateway.upstreams[2]!.next(chat("from the third"));
    expect(await (await gateway.chat()).text()).toContain("from the third");
    expect(gateway.journal.settlements[0]!.attempts.map(({ result }) => result)).toEqual([
      AttemptResult.HEDGE_LOST,
      AttemptResult.RATE_LIMITED,
      AttemptResult.SERVED,
    ]);
  });

  test("one at its limit is passed over", async () => {
    await start({ upstreams: 2, pm, keyRateLimits: undefined as never, ve: {} });
    rates.refusals.set("pm_0", refusal());
    await (await gateway.chat()).text();
    expect(targets()).toEqual([
      ["pm_0", AttemptResult.RATE_LIMITED],
      ["pm_1", AttemptResult.SERVED],
    ]);
    expect(rates.settled).toEqual([["pm_1", 21]]);
  });

  test("all at their limits are a 429 that says when to come back", async () => {
    await start({ upstreams: 2, pm, keyRateLimits: undefined as never, ve: {} });
    rates.refusals.set("pm_0", refusal({ retryMs: 9_000 }));
    rates.refusals.set("pm_1", refusal({ retryMs: 4_000 }));
    const response = await gateway.chat();
    expect(response.status).toBe(429);
    expect(response.headers.get("retry-after")).toBe("4");
    expect(await response.text()).toContain("rate_limit_exceeded");
  });

  test("an input that is too large for all of them is not tried again", async () => {
    await start({ upstreams: 2, pm, keyRateLimits: undefined as never, ve: {} });
    const tooLarge = refusal({ kind: RateKind.TOKENS, retryMs: 0, tooLarge: true });
    rates.refusals.set("pm_0", tooLarge);
    rates.refusals.set("pm_1", tooLarge);
    const response = await gateway.chat();
    expect([response.status, response.headers.get("x-should-retry")]).toEqual([429, "false"]);
    expect(await response.text()).toContain("too large");
    rates.refusals.set("pm_1", refusal());
    const mixed = await gateway.chat();
    expect([mixed.status, mixed.headers.get("x-should-retry")]).toEqual([429, null]);
    await mixed.text();
  });

  test("a call that failed counts as a request, one that was never made does not", async () => {
    await start({ upstreams: 3, pm, keyRateLimits: undefined as never, ve: {} });
    gateway.upstreams[0]!.next(error(503));
    gateway.upstreams[1]!.next(chat());
    await (await gateway.chat()).text();
    expect(rates.settled).toEqual([
      ["pm_0", 0],
      ["pm_1", 21],
    ]);
  });
});

test.each([
  [0, "0ms"],
  [12.2, "13ms"],
  [1_000, "1s"],
  [1_500, "1.5s"],
  [59_999, "59.999s"],
  [360_000, "6m0s"],
  [61_001, "1m1.001s"],
])("%d ms is %s, as OpenAI writes it", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test("calls to stored responses are requests within the limits too", async () => {
  const pinSecret = new Uint8Array(32).fill(7);
  await start({ ve: { pinSecret, rateLimits: { requestsPerMinute: 100 } } });
  const [pm] = [...gateway.table.logicalModels(gateway.table.ve(VE)!)].flatMap(({ spec }) => spec.group.pms);
  const id = pinId(Buffer.from(pinSecret).toString("latin1"), "resp_1", pm!.id);
  const get = () => fetch(`${gateway.url}/v1/responses/${id}`, { headers: { authorization: `Bearer ${KEY}` } });
  await get();
  expect(rates.settled).toEqual([
    ["key_1", 0],
    [VE, 0],
  ]);
  const seen = gateway.upstreams[0]!.seen.length;
  expect(seen).toBe(1);
  rates.refusals.set("key_1", { kind: RateKind.REQUESTS, limit: 10, retryMs: 2_000, tooLarge: false });
  expect((await get()).status).toBe(429);
  expect(gateway.upstreams[0]!.seen.length).toBe(seen);
});
