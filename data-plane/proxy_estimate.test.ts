/** Answers without usage: the tokenizer counts, is waited for, but not long, and whatever happens meanwhile is safe. */

import { afterEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { Outcome } from "./outcome.ts";
import { ESTIMATE_WAIT_MS } from "./settling.ts";
import { type Gateway, type GatewayOptions, startGateway } from "./testing.ts";
import { chatBody, chunk, DONE, json, sse, USAGE } from "./testing_upstream.ts";
import type { CountJob, TokenCounter, TokenCounts } from "./tokenizer/tokens.ts";

/** Answers when it is told to. */
class FakeCounter implements TokenCounter {
  jobs: { job: CountJob; done: (counts: TokenCounts | null) => void }[] = [];
  counts: TokenCounts | null | "never" = { input: 7, output: 5 };

  count(job: CountJob, done: (counts: TokenCounts | null) => void): void {
    this.jobs.push({ job, done });
    const { counts } = this;
    if (counts !== "never") setImmediate(() => done(counts));
  }
}

let gateway: Gateway;
let counter: FakeCounter;
afterEach(() => gateway.close());
const start = async (options: GatewayOptions = {}): Promise<void> => {
  counter = new FakeCounter();
  gateway = await startGateway({ ...options, tokens: counter });
};
const price = (input: number, output: number): bigint =>
  BigInt(input) * parseCredits("0.001") + BigInt(output) * parseCredits("0.002");
const bytes = (fields: Record<string, unknown> = {}): number =>
  JSON.stringify({ model: "gpt", messages: [{ role: "user", content: "Hi" }], ...fields }).length;
const byBytes = (output: number, fields: Record<string, unknown> = {}): bigint =>
  price(Math.ceil(bytes(fields) / 4), output);
const text = (bytesOf: Uint8Array): string => Buffer.from(bytesOf).toString();
const whole = (words: readonly string[]): string[] => [
  ...words.map((content) => chunk({ content })),
  chunk({}, "stop"),
  DONE,
];
const STREAM = { stream: true };

describe("what is counted", () => {
  test("the text of a stream, and of the request, with the model's upstream name", async () => {
    await start();
    gateway.upstreams[0]!.next(sse(whole(["Hel", "lo\n", "“you”"])));
    await (await gateway.chat(STREAM)).text();
    const { job } = counter.jobs[0]!;
    expect([job.model, text(job.output.bytes), text(job.input.bytes)]).toEqual(["up-0", "Hello\\n“you”", "Hi\n"]);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(7, 5) });
  });

  test("the text of a JSON answer", async () => {
    await start();
    gateway.upstreams[0]!.next(json(200, chatBody("Hello", null)));
    await (await gateway.chat()).text();
    expect(text(counter.jobs[0]!.job.output.bytes)).toBe("Hello");
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(7, 5) });
  });

  test("nothing where the upstream reported, or nothing is billed", async () => {
    await start();
    await (await gateway.chat()).text();
    gateway.upstreams[0]!.next(json(500, {}));
    await (await gateway.chat()).text();
    expect(counter.jobs).toEqual([]);
  });

  test("the input of an embedding alone", async () => {
    await start();
    gateway.upstreams[0]!.next(json(200, { object: "list", data: [{ embedding: [1] }] }));
    await (await gateway.post("/v1/embeddings", { model: "gpt", input: "some text" })).text();
    expect([text(counter.jobs[0]!.job.input.bytes), counter.jobs[0]!.job.output.bytes.length]).toEqual([
      "some text\n",
      0,
    ]);
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(7, 0) });
  });
});

describe("bounds", () => {
  test("never more than the upstream was told to make, all answers together", async () => {
    await start();
    counter.counts = { input: 7, output: 1000 };
    gateway.upstreams[0]!.next(sse(whole(["x"])));
    await (await gateway.chat({ ...STREAM, max_tokens: 20, n: 2 })).text();
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(7, 40) });
  });

  test("STRICT: no more than was held, though the tokenizer counts more", async () => {
    await start({ ve: { budgetMode: 2 } });
    gateway.budget.free = price(bytes(), 50);
    counter.counts = { input: 1_000_000, output: 1_000_000 };
    gateway.upstreams[0]!.next(json(200, chatBody("Hello", null)));
    const response = await gateway.chat();
    await response.text();
    expect(response.headers.get("x-tokenbill-clamped-max-tokens")).toBe("50");
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(bytes(), 50) });
    expect(gateway.budget.free).toBe(0n);
  });

  test("something that arrived is a token at least", async () => {
    await start();
    counter.counts = { input: 7, output: 0 };
    gateway.upstreams[0]!.next(sse(whole(["x"])));
    await (await gateway.chat(STREAM)).text();
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(7, 1) });
  });
});

describe("while the tokenizer counts", () => {
  /** A stream of which all but the last byte has come to the client. */
  const waiting = async (): Promise<ReadableStreamDefaultReader<Uint8Array>> => {
    await start();
    counter.counts = "never";
    gateway.upstreams[0]!.next(sse(whole(["12345678"])));
    const reader = (await gateway.chat(STREAM)).body!.getReader();
    await expect.poll(() => counter.jobs.length).toBe(1);
    return reader;
  };
  const rest = async (reader: ReadableStreamDefaultReader<Uint8Array>): Promise<string> => {
    let seen = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return seen;
      seen += text(value);
    }
  };

  test("the reservation is held and the last bytes wait", async () => {
    const reader = await waiting();
    expect(gateway.budget.reservations[0]!.settled).toBe(0);
    expect(gateway.journal.settlements).toEqual([]);
    let ended = false;
    const end = rest(reader).then((seen) => ((ended = true), seen));
    await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(false);
    counter.jobs[0]!.done({ input: 7, output: 5 });
    expect((await end).endsWith(DONE)).toBe(true);
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(7, 5) });
  });

  test("the bytes count if it takes too long, and a late answer changes nothing", async () => {
    const began = performance.now();
    expect((await rest(await waiting())).endsWith(DONE)).toBe(true);
    expect(performance.now() - began).toBeGreaterThan(ESTIMATE_WAIT_MS * 0.9);
    counter.jobs[0]!.done({ input: 7, output: 5 });
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual([byBytes(2, STREAM)]);
  });

  test("the bytes count if it fails", async () => {
    await start();
    counter.counts = null;
    gateway.upstreams[0]!.next(sse(whole(["12345678"])));
    await (await gateway.chat(STREAM)).text();
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: byBytes(2, STREAM) });
  });

  test("the node stops: the bytes count, at once", async () => {
    const reader = await waiting();
    gateway.pipeline.abortAll();
    expect(gateway.journal.settlements).toHaveLength(1);
    expect((await rest(reader)).endsWith(DONE)).toBe(true);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: byBytes(2, STREAM) });
  });

  test("[client-gone-settling] the client leaves: the bill is the same", async () => {
    const reader = await waiting();
    await reader.cancel();
    await gateway.clientGone();
    counter.jobs[0]!.done({ input: 7, output: 5 });
    expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.COMPLETED, credits: price(7, 5) });
  });

  test("the upstream ends its call meanwhile: the time limit stays", async () => {
    await start();
    counter.counts = "never";
    gateway.upstreams[0]!.next((response, request) => sse(whole(["12345678"]).slice(0, -1), "end")(response, request));
    await (await gateway.chat(STREAM)).text();
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: byBytes(2, STREAM) });
  });
});

test("a tokenizer that throws is as good as none", async () => {
  await start();
  counter.count = () => {
    throw new Error("planned");
  };
  gateway.upstreams[0]!.next(sse(whole(["12345678"])));
  expect((await (await gateway.chat(STREAM)).text()).endsWith(DONE)).toBe(true);
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.COMPLETED, credits: byBytes(2, STREAM) });
  expect(gateway.problems.splice(0).join("")).toContain("planned");
});

test("a usage that came counts as reported, whatever the tokenizer would say", async () => {
  await start();
  gateway.upstreams[0]!.next(sse([chunk({ content: "x" }), chunk({}, "stop"), chunk(null, null, USAGE), DONE]));
  await (await gateway.chat(STREAM)).text();
  expect(gateway.journal.settlements[0]).toMatchObject({ credits: price(9, 12) });
});
