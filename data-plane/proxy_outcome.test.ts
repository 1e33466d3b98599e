/** The outcome table of outcome.ts: how each request ends, and what is billed. */

import { afterEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { Outcome } from "./outcome.ts";
import { CHECKOUT, type Gateway, type GatewayOptions, startGateway } from "./testing.ts";
import { chat, chatBody, chunk, DONE, error, hang, json, streamText, sse } from "./testing_upstream.ts";

let gateway: Gateway;
afterEach(() => gateway.close());
const start = async (options: GatewayOptions = {}): Promise<void> => {
  gateway = await startGateway(options);
};

const BODY = { model: "gpt", messages: [{ role: "user", content: "Hi" }] };
const bytes = (fields: Record<string, unknown> = {}): number => JSON.stringify({ ...BODY, ...fields }).length;
/** 0.001 Credit an input token, 0.002 an output token; the estimate takes four bytes for a token. */
const price = (input: number, output: number): bigint =>
  BigInt(input) * parseCredits("0.001") + BigInt(output) * parseCredits("0.002");
const estimate = (output: number, fields: Record<string, unknown> = {}): bigint =>
  price(Math.ceil(bytes(fields) / 4), output);
const STREAM = { stream: true };
const ESTIMATED = 2;

/** Starts a stream and reads until `text` has come. */
async function readUntil(response: Response, text: string): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const reader = response.body!.getReader();
  let seen = "";
  while (!seen.includes(text)) seen += Buffer.from((await reader.read()).value!).toString();
  return reader;
}

describe("COMPLETED", () => {
  test("[completed-reported] as reported", async () => {
    await start();
    await (await gateway.chat()).text();
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: Outcome.COMPLETED,
      credits: price(9, 12),
      physicalModelId: "pm_0",
      priceId: "price_1",
    });
  });

  test.each([
    ["none", undefined],
    ["null", null],
    ["zeros", { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }],
    ["nonsense", { prompt_tokens: "9", completion_tokens: -1 }],
  ])("[completed-estimated] estimated where the usage is %s", async (_, usage) => {
    await start();
    gateway.upstreams[0]!.next(json(200, { ...chatBody("12345678"), usage }));
    await (await gateway.chat()).text();
    const [settlement] = gateway.journal.settlements;
    expect(settlement!.credits).toBe(estimate(2));
    expect(settlement!.units.slice(0, 2).every(({ source }) => source === ESTIMATED)).toBe(true);
  });

  test("the price of the moment of admission holds", async () => {
    await start();
    gateway.upstreams[0]!.next((response) => {
      for (const pm of gateway.table.logicalModel(gateway.table.ve(gateway.budget.reservations[0]!.account)!, "gpt")!
        .spec.group.pms) {
        pm.price = { id: "price_2", rates: [], images: null, tiers: null };
      }
      json(200, chatBody())(response, {} as never);
    });
    await (await gateway.chat()).text();
    expect(gateway.journal.settlements[0]).toMatchObject({ priceId: "price_1", credits: price(9, 12) });
  });

  test("a very long answer passes through, and its usage is found at its end", async () => {
    await start();
    const content = 'long "usage" '.repeat(400_000);
    gateway.upstreams[0]!.next(chat(content));
    const answer = (await (await gateway.chat()).json()) as any;
    expect(answer.choices[0].message.content).toBe(content);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(9, 12) });
  });
});

describe("[upstream-error] UPSTREAM_ERROR: nothing", () => {
  test.each([
    ["a refused attempt", error(500), {}],
    ["a stream without content", sse([chunk({ role: "assistant" })]), STREAM],
  ])("%s", async (_, handler, fields) => {
    await start();
    gateway.upstreams[0]!.always(handler);
    expect((await gateway.chat(fields)).status).toBe(503);
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: Outcome.UPSTREAM_ERROR,
      credits: 0n,
      units: [],
      physicalModelId: "",
    });
    expect(gateway.budget.free).toBe(parseCredits("1000"));
  });
});

test("[client-error] CLIENT_ERROR: nothing", async () => {
  await start();
  gateway.upstreams[0]!.next(error(400));
  expect((await gateway.chat()).status).toBe(400);
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.CLIENT_ERROR, credits: 0n, units: [] });
});

describe("UPSTREAM_CUT: what was delivered", () => {
  test("[cut-estimated] estimated", async () => {
    await start();
    gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" }), chunk({ content: "abcd" })], "break"));
    await (await gateway.chat(STREAM)).text();
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: Outcome.UPSTREAM_CUT,
      credits: estimate(3, STREAM),
      errorCode: "upstream_cut",
    });
  });

  test("[cut-reported] as reported on the way, unless that lags behind", async () => {
    await start();
    const piece = (n: number) => chunk({ content: "x" }, null, { prompt_tokens: 5, completion_tokens: n });
    gateway.upstreams[0]!.next(
      sse([piece(1), piece(2), piece(3)], "break"),
      sse([piece(0), piece(0), piece(0)], "break"),
    );
    await (await gateway.chat(STREAM)).text();
    await (await gateway.chat(STREAM)).text();
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual([price(5, 3), estimate(3, STREAM)]);
  });

  test("a long answer that is not a stream just breaks off", async () => {
    await start();
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write(`{"choices":[{"message":{"content":"${"x".repeat(3 * 1024 * 1024)}`, () =>
        response.socket?.destroy(),
      );
    });
    await expect(gateway.chat().then((response) => response.text())).rejects.toThrow();
    expect(gateway.journal.settlements[0]!.outcome).toBe(Outcome.UPSTREAM_CUT);
    expect(gateway.journal.settlements[0]!.credits).toBeGreaterThan(price(0, 3 * 256 * 1024));
  });
});

describe("[timeout-after-content] TIMEOUT: what was delivered", () => {
  test.each([
    ["idle", { idleMs: 60 }],
    ["total", { totalMs: 300 }],
  ])("%s", async (_, deadlines) => {
    await start({ deadlines });
    gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" })], "hang"));
    const text = await (await gateway.chat(STREAM)).text();
    expect(text).toContain('"code":"timeout"');
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: Outcome.TIMEOUT,
      credits: estimate(2, STREAM),
      errorCode: "timeout",
    });
  });
});

describe("the node stops", () => {
  test("[stop-before-content] before any content: nothing", async () => {
    await start();
    gateway.upstreams[0]!.next(hang);
    const pending = gateway.chat();
    await expect.poll(() => gateway.upstreams[0]!.seen.length).toBe(1);
    gateway.pipeline.abortAll();
    expect((await pending).status).toBe(503);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.UPSTREAM_ERROR, credits: 0n, units: [] });
  });

  test("[stop-after-content] after content: what arrived", async () => {
    await start();
    gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" })], "hang"));
    const reader = await readUntil(await gateway.chat(STREAM), "12345678");
    gateway.pipeline.abortAll();
    expect(Buffer.from((await reader.read()).value!).toString()).toContain('"error"');
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: Outcome.UPSTREAM_CUT,
      credits: estimate(2, STREAM),
    });
  });
});

test("[journal-fails] a settlement that could not be written is billed, and the client gets its answer", async () => {
  await start();
  gateway.journal.held = [];
  const pending = gateway.chat();
  await gateway.journal.settled();
  (gateway.journal.held[0] as (error?: Error) => void)(new Error("disk full"));
  expect(((await (await pending).json()) as any).choices[0].message.content).toBe("Hello there");
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(9, 12) });
});

test("what goes wrong between the reservation and the request gives the reservation back", async () => {
  await start();
  const before = gateway.budget.free;
  gateway.budget.remaining = () => {
    throw new Error("planned");
  };
  expect((await gateway.chat()).status).toBe(500);
  expect(gateway.budget.free).toBe(before);
  expect(gateway.budget.reservations.map(({ settled }) => settled)).toEqual([1]);
  gateway.budget.reservations = [];
  gateway.problems.length = 0;
});

describe("[budget-cut] BUDGET_CUT: what was delivered", () => {
  test("a stream grows slice by slice, and ends cleanly when the wallet is empty", async () => {
    await start();
    // Enough for the admission of two answers and one more slice.
    const input = price(bytes({ stream: true, n: 2 }), 0);
    gateway.budget.free = input + price(0, 2048) + price(0, 256);
    const piece = chunk({ content: "x".repeat(400) });
    gateway.upstreams[0]!.next(
      sse(
        Array.from({ length: 50 }, () => piece),
        "hang",
      ),
    );
    const text = await (await gateway.chat({ stream: true, n: 2 })).text();
    const frames = text.trim().split("\n\n");
    const error = JSON.parse(frames.at(-1)!.slice(6)).error;
    const length = JSON.parse(frames.at(-2)!.slice(6));
    expect(error).toMatchObject({ type: "insufficient_quota", code: "insufficient_quota", checkout_url: CHECKOUT });
    expect(length).toEqual({
      id: "chatcmpl-up1",
      object: "chat.completion.chunk",
      created: 1_700_000_000,
      model: "upstream-model",
      choices: [0, 1].map((index) => ({ index, delta: {}, logprobs: null, finish_reason: "length" })),
    });
    const delivered = frames.length - 2;
    const [settlement] = gateway.journal.settlements;
    expect(settlement).toMatchObject({
      outcome: Outcome.BUDGET_CUT,
      errorCode: "insufficient_quota",
      credits: estimate(delivered * 100, { stream: true, n: 2 }),
    });
    expect(gateway.budget.grown).toBeGreaterThan(0);
    // Overspend is at most one slice.
    expect(gateway.budget.free).toBeGreaterThanOrEqual(-price(0, 256));
  });

  test("an ample wallet cuts nothing", async () => {
    await start();
    gateway.upstreams[0]!.next(
      sse(
        streamText(
          Array.from({ length: 60 }, () => "x".repeat(400)),
          { prompt_tokens: 10, completion_tokens: 6000 },
        ),
      ),
    );
    const text = await (await gateway.chat(STREAM)).text();
    expect(text.endsWith(DONE)).toBe(true);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(10, 6000) });
  });
});

test("progress of a running stream is noted every second", async () => {
  await start();
  gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" })], "hang"));
  const controller = new AbortController();
  const reader = await readUntil(await gateway.chat(STREAM, controller.signal), "12345678");
  await expect.poll(() => gateway.journal.notes.length, { timeout: 5000 }).toBe(1);
  expect(gateway.journal.notes[0]).toMatchObject({
    physicalModelId: "pm_0",
    priceId: "price_1",
    credits: estimate(2, STREAM),
  });
  expect(gateway.journal.intents[0]!.id).toBe(gateway.journal.notes[0]!.id);
  controller.abort();
  await expect(reader.read()).rejects.toThrow();
  expect((await gateway.journal.settled()).id).toBe(gateway.journal.intents[0]!.id);
});
