/** The outcome table of outcome.ts: the clients that leave. */

import { afterEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { CLIENT_STALL_MS } from "./deadlines.ts";
import { DRAIN_BYTES_MAX, DRAIN_MS_MAX, DRAINS_MAX } from "./drains.ts";
import { OnDisconnect, Outcome } from "./outcome.ts";
import { type Gateway, type GatewayOptions, startGateway } from "./testing.ts";
import { chunk, DONE, hang, sse, USAGE } from "./testing_upstream.ts";

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

/** Starts a stream and reads until `text` has come. */
async function readUntil(response: Response, text: string): Promise<ReadableStreamDefaultReader<Uint8Array>> {
  const reader = response.body!.getReader();
  let seen = "";
  while (!seen.includes(text)) seen += Buffer.from((await reader.read()).value!).toString();
  return reader;
}

describe("CLIENT_GONE", () => {
  const leaveAfterFirst = async (): Promise<void> => {
    const controller = new AbortController();
    const reader = await readUntil(await gateway.chat(STREAM, controller.signal), "12345678");
    controller.abort();
    await expect(reader.read()).rejects.toThrow();
  };

  test("[client-gone-content] CANCEL_ESTIMATE (the default): the call is cancelled, what had arrived is estimated", async () => {
    await start();
    let closed: () => void = () => undefined;
    const upstreamClosed = new Promise<void>((resolve) => (closed = resolve));
    gateway.upstreams[0]!.next((response, request) => {
      response.on("close", closed);
      sse([chunk({ content: "12345678" })], "hang")(response, request);
    });
    await leaveAfterFirst();
    const settlement = await gateway.journal.settled();
    await upstreamClosed;
    expect(settlement).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: estimate(2, STREAM),
      physicalModelId: "pm_0",
    });
  });

  test("[client-gone-free] FREE: nothing", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.FREE } });
    gateway.upstreams[0]!.next(sse([chunk({ content: "12345678" })], "hang"));
    await leaveAfterFirst();
    expect(await gateway.journal.settled()).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: 0n,
      units: [],
      physicalModelId: "pm_0",
    });
  });

  test("[drain-whole] DRAIN: the answer is read to its end and billed as reported", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.DRAIN } });
    let goOn: () => void = () => undefined;
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ content: "12345678" }));
      goOn = () => response.end(chunk({ content: "more" }) + chunk({}, "stop") + chunk(null, null, USAGE) + DONE);
    });
    const controller = new AbortController();
    const reader = await readUntil(await gateway.chat(STREAM, controller.signal), "12345678");
    controller.abort();
    await expect(reader.read()).rejects.toThrow();
    await gateway.clientGone();
    goOn();
    expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.CLIENT_GONE, credits: price(9, 12) });
  });

  test("[drain-bound] DRAIN reads on only so many bytes, then cancels and estimates", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.DRAIN } });
    gateway.budget.free = parseCredits("1000000");
    let flood: () => void = () => undefined;
    let closed: () => void = () => undefined;
    const upstreamClosed = new Promise<void>((resolve) => (closed = resolve));
    gateway.upstreams[0]!.next((response) => {
      response.on("close", closed);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ content: "12345678" }));
      const piece = chunk({ content: "x".repeat(64 * 1024) });
      flood = () => {
        while (response.write(piece));
        response.once("drain", flood);
      };
    });
    await leaveAfterFirst();
    await gateway.clientGone();
    flood();
    await upstreamClosed;
    const settlement = await gateway.journal.settled();
    expect(settlement.outcome).toBe(Outcome.CLIENT_GONE);
    expect(settlement.credits).toBeGreaterThan(price(0, Math.floor((DRAIN_BYTES_MAX * 0.9) / 4)));
    expect(settlement.credits).toBeLessThan(price(0, Math.floor((DRAIN_BYTES_MAX * 1.1) / 4)));
  });

  test("[drain-broken] DRAIN of an upstream that breaks: what had arrived", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.DRAIN } });
    let fail: () => void = () => undefined;
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ content: "12345678" }));
      fail = () => response.socket?.destroy();
    });
    await leaveAfterFirst();
    await gateway.clientGone();
    fail();
    expect(await gateway.journal.settled()).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: estimate(2, STREAM),
    });
  });

  test.each([OnDisconnect.CANCEL_ESTIMATE, OnDisconnect.FREE])(
    "[client-gone-unanswered] before the upstream accepted it: nothing (%i)",
    async (onDisconnect) => {
      await start({ provider: { onDisconnect } });
      let arrived: () => void = () => undefined;
      const atUpstream = new Promise<void>((resolve) => (arrived = resolve));
      gateway.upstreams[0]!.next((response, request) => {
        arrived();
        hang(response, request);
      });
      const controller = new AbortController();
      const pending = gateway.chat({}, controller.signal);
      await atUpstream;
      controller.abort();
      await expect(pending).rejects.toThrow();
      expect(await gateway.journal.settled()).toMatchObject({
        outcome: Outcome.CLIENT_GONE,
        credits: 0n,
        units: [],
        httpStatus: 0,
      });
    },
  );

  test("[client-gone-asking] while the wallet is asked: what is granted is given back", async () => {
    await start();
    gateway.budget.pending = [];
    const { free } = gateway.budget;
    gateway.budget.free = 0n;
    const controller = new AbortController();
    const pending = gateway.chat({}, controller.signal);
    await expect.poll(() => gateway.budget.pending!.length).toBe(1);
    controller.abort();
    await expect(pending).rejects.toThrow();
    await gateway.clientGone();
    gateway.budget.free = free;
    gateway.budget.pending[0]!();
    await gateway.pipeline.idle();
    expect(gateway.budget.reservations.map(({ settled }) => settled)).toEqual([1]);
    expect(gateway.budget.free).toBe(free);
    // It was never admitted, so there is nothing to journal.
    expect(gateway.journal.settlements).toEqual([]);
    gateway.budget.reservations = [];
  });
});

describe("CLIENT_GONE, at the bounds", () => {
  test("[client-gone-accepted] after the upstream accepted the request, before any content: the input", async () => {
    await start();
    let closed: () => void = () => undefined;
    const upstreamClosed = new Promise<void>((resolve) => (closed = resolve));
    let answered: () => void = () => undefined;
    const head = new Promise<void>((resolve) => (answered = resolve));
    gateway.upstreams[0]!.next((response) => {
      response.on("close", closed);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk({ role: "assistant", content: "" }), answered);
    });
    const controller = new AbortController();
    const pending = gateway.chat(STREAM, controller.signal);
    await head;
    // The node has read it once another answer of the same upstream has come through.
    await (await gateway.chat()).text();
    controller.abort();
    await expect(pending).rejects.toThrow();
    await upstreamClosed;
    expect(await gateway.journal.settled(2)).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: estimate(0, STREAM),
      physicalModelId: "pm_0",
    });
  });

  const silent = async (count: number): Promise<AbortController[]> => {
    gateway.upstreams[0]!.always(sse([chunk({ content: "12345678" })], "hang"));
    const controllers = Array.from({ length: count }, () => new AbortController());
    await Promise.all(controllers.map(async ({ signal }) => readUntil(await gateway.chat(STREAM, signal), "12345678")));
    return controllers;
  };

  test("[drain-bound] DRAIN reads on only so long, then cancels and estimates", async () => {
    let skewMs = 0;
    await start({ provider: { onDisconnect: OnDisconnect.DRAIN }, now: () => Date.now() + skewMs });
    const [controller] = await silent(1);
    controller!.abort();
    await gateway.clientGone();
    skewMs = DRAIN_MS_MAX + 1000;
    expect(await gateway.journal.settled()).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: estimate(2, STREAM),
    });
  });

  test("[drain-count] DRAIN of only so many at a time; the next is cancelled and estimated", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.DRAIN } });
    const controllers = await silent(DRAINS_MAX + 1);
    for (const controller of controllers) controller.abort();
    expect(await gateway.journal.settled()).toMatchObject({
      outcome: Outcome.CLIENT_GONE,
      credits: estimate(2, STREAM),
    });
    await expect.poll(() => gateway.pipeline.live).toBe(DRAINS_MAX);
    // Those that end make room.
    gateway.pipeline.abortAll();
    await gateway.pipeline.idle();
    const [last] = await silent(1);
    last!.abort();
    await expect.poll(() => gateway.upstreams[0]!.seen.length).toBe(DRAINS_MAX + 2);
    expect(gateway.journal.settlements).toHaveLength(DRAINS_MAX + 1);
    await expect.poll(() => gateway.pipeline.live).toBe(1);
    gateway.pipeline.abortAll();
  });

  test("[client-stalled] a client that reads nothing is as good as gone", async () => {
    let skewMs = 0;
    await start({ now: () => Date.now() + skewMs });
    gateway.budget.free = parseCredits("1000000");
    let stopped: () => void = () => undefined;
    const upstreamStopped = new Promise<void>((resolve) => (stopped = resolve));
    const piece = chunk({ content: "x".repeat(64 * 1024) });
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const flood = (): void => {
        while (response.write(piece));
        const timer = setTimeout(stopped, 2_000);
        response.once("drain", () => (clearTimeout(timer), flood()));
      };
      flood();
    });
    const response = await gateway.chat(STREAM);
    await upstreamStopped;
    skewMs = CLIENT_STALL_MS + 1000;
    const settlement = await gateway.journal.settled();
    expect(settlement).toMatchObject({ outcome: Outcome.CLIENT_GONE, httpStatus: 200 });
    expect(settlement.credits).toBeGreaterThan(estimate(16 * 1024, STREAM));
    await expect(response.text()).rejects.toThrow();
  });
});
