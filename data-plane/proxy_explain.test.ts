import { afterEach, describe, expect, test } from "vitest";
import { AttemptKind, AttemptResult } from "./outcome.ts";
import { type Gateway, type GatewayOptions, startGateway } from "./testing.ts";
import { chat, error, sse, streamText } from "./testing_upstream.ts";

let gateway: Gateway;
afterEach(() => gateway.close());

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({ upstreams: 2, ve: { explainHeaders: true }, ...options });
}

function explained(response: Response): Record<string, string> {
  return Object.fromEntries([...response.headers].filter(([name]) => name.startsWith("x-tokenbill")));
}

describe("x-tokenbill headers", () => {
  test("of a JSON answer tell who served, after how many attempts, and what it cost", async () => {
    await start();
    gateway.upstreams[0]!.next(error(500));
    const response = await gateway.chat();
    await response.text();
    expect(explained(response)).toEqual({
      "x-tokenbill-request-id": response.headers.get("x-request-id"),
      "x-tokenbill-model": "up-1",
      "x-tokenbill-physical-model": "pm_1",
      "x-tokenbill-attempts": "2",
      "x-tokenbill-credits": "0.033",
    });
    expect(gateway.journal.settlements[0]!.credits).toBe(33_000_000_000n);
  });

  test("of a stream leave out what is known at its end only", async () => {
    await start();
    gateway.upstreams[0]!.next(sse(streamText(["hi"])));
    const response = await gateway.chat({ stream: true });
    await response.text();
    expect(Object.keys(explained(response)).toSorted()).toEqual([
      "x-tokenbill-attempts",
      "x-tokenbill-model",
      "x-tokenbill-physical-model",
      "x-tokenbill-request-id",
    ]);
  });

  test("leave out a cost that is only estimated after the head", async () => {
    await start();
    gateway.upstreams[0]!.next(chat("no usage", null));
    const response = await gateway.chat();
    await response.text();
    expect(explained(response)["x-tokenbill-credits"]).toBe(undefined);
    expect(gateway.journal.settlements[0]!.credits).toBeGreaterThan(0n);
  });

  test("are off unless the VE has them, and survive names that no header can carry", async () => {
    await start({ ve: {} });
    const plain = await gateway.chat();
    await plain.text();
    expect(explained(plain)).toEqual({});
    await gateway.close();
    await start({ pm: { upstreamName: "modèle\u{1f600}" } });
    const response = await gateway.chat();
    await response.text();
    expect(explained(response)["x-tokenbill-model"]).toBe("mod?le?");
  });
});

test("the record shows each attempt with its timings, its cause and its cost", async () => {
  await start();
  gateway.upstreams[0]!.next(error(429, "slow_down"));
  await (await gateway.chat()).text();
  const { attempts, credits } = gateway.journal.settlements[0]!;
  expect(attempts).toMatchObject([
    {
      physicalModelId: "pm_0",
      kind: AttemptKind.FIRST,
      result: AttemptResult.STATUS,
      httpStatus: 429,
      detail: "slow_down",
      firstContentUs: 0,
      credits: 0n,
    },
    { physicalModelId: "pm_1", kind: AttemptKind.FALLBACK, result: AttemptResult.SERVED, detail: "", credits },
  ]);
  expect(attempts[0]!.firstByteUs).toBeGreaterThan(0);
  expect(attempts[1]!.firstContentUs).toBeGreaterThanOrEqual(attempts[1]!.firstByteUs);
});

test.each([
  ["error_frame", sse([`data: {"error":{"message":"no"}}\n\n`])],
  ["broken_frame", sse(["data: {\n\n"])],
  ["empty", sse([])],
  ["empty", sse(["data: [DONE]\n\n"])],
])("a stream that is no answer says why: %s", async (detail, handler) => {
  await start();
  gateway.upstreams[0]!.next(handler);
  gateway.upstreams[1]!.next(sse(streamText(["good"])));
  expect(await (await gateway.chat({ stream: true })).text()).toContain("good");
  expect(gateway.journal.settlements[0]!.attempts[0]).toMatchObject({ result: AttemptResult.BAD_ANSWER, detail });
});

describe("sticky requests", () => {
  const sticky = {
    targets: [
      { tier: 0, weight: 1 },
      { tier: 0, weight: 1 },
    ],
    routing: { sticky: { sources: [2, 1, 3], header: "X-Session" } },
  };

  async function servedBy(fields: Record<string, unknown>, headers: Record<string, string> = {}): Promise<string> {
    const before = gateway.journal.settlements.length;
    const body = { model: "gpt", messages: [{ role: "user", content: "Hi" }], ...fields };
    await (await gateway.post("/v1/chat/completions", body, headers)).text();
    return gateway.journal.settlements[before]!.physicalModelId;
  }

  test.each([
    ["user", (key: string) => [{ user: key }, {}] as const],
    ["prompt_cache_key", (key: string) => [{ prompt_cache_key: key, user: "other" }, {}] as const],
    ["a header", (key: string) => [{}, { "x-session": key }] as const],
  ])("by %s: the same key leads to the same target, other keys to others", async (_, of) => {
    await start(sticky);
    const seen = new Set<string>();
    for (let i = 0; i < 12; i++) {
      const [fields, headers] = of(`k-${i}`);
      const first = await servedBy(fields, headers);
      seen.add(first);
      for (let again = 0; again < 3; again++) expect(await servedBy(fields, headers)).toBe(first);
    }
    expect(seen.size).toBe(2);
  });

  test("without a key, or with one that is no text, are drawn", async () => {
    await start(sticky);
    const seen = new Set<string>();
    for (let i = 0; i < 24; i++) seen.add(await servedBy(i % 2 === 0 ? {} : { user: 7 }));
    expect(seen.size).toBe(2);
  });

  test("fall back like the rest", async () => {
    await start(sticky);
    const first = await servedBy({ user: "a" });
    gateway.upstreams[first === "pm_0" ? 0 : 1]!.next(error(500));
    expect(await servedBy({ user: "a" })).not.toBe(first);
    expect(await servedBy({ user: "a" })).toBe(first);
  });
});
