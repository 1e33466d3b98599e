import { afterEach, describe, expect, test } from "vitest";
import { Meter } from "../core/meters.ts";
import { AttemptKind, AttemptResult, OnDisconnect, Outcome } from "./outcome.ts";
import { type Gateway, type GatewayOptions, startGateway } from "./testing.ts";
import { chat, chunk, error, type Handler, hang, json, reset, sse, streamText } from "./testing_upstream.ts";

let gateway: Gateway;
afterEach(() => gateway.close());

const HEDGE_MS = 60;

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({ upstreams: 2, routing: { hedgeAfterMs: HEDGE_MS }, ...options });
}

/** Answers after so long. */
function late(ms: number, then: Handler): Handler {
  return (response, request) => void setTimeout(() => then(response, request), ms);
}

/** Its head comes at once, its content never. */
const headAlone: Handler = sse([": thinking\n\n"], "hang");

/** Its head comes just after the hedge began, its content never. */
const acceptedLate: Handler = late(HEDGE_MS + 100, headAlone);

const attemptsOf = (at: number) =>
  gateway.journal.settlements[at]!.attempts.map(({ physicalModelId, kind, result }) => [physicalModelId, kind, result]);

describe("a hedged request", () => {
  test.each([false, true])("is served by the next target when the first is slow (stream: %s)", async (stream) => {
    await start();
    gateway.upstreams[0]!.next(hang);
    if (stream) gateway.upstreams[1]!.next(sse(streamText(["hedged"])));
    const response = await gateway.chat({ stream });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain(stream ? "hedged" : "Hello there");
    expect(gateway.journal.settlements).toHaveLength(1);
    expect(gateway.journal.settlements[0]).toMatchObject({ physicalModelId: "pm_1", outcome: Outcome.COMPLETED });
    expect(attemptsOf(0)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.HEDGE_LOST],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.SERVED],
    ]);
    await expect.poll(() => gateway.upstreams[0]!.sockets.size).toBe(0);
  });

  test("asks nobody else while the head comes in time", async () => {
    await start();
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.flushHeaders();
      setTimeout(() => response.end(streamText(["slow", "but", "there"]).join("")), HEDGE_MS * 4);
    });
    const response = await gateway.chat({ stream: true });
    expect(await response.text()).toContain("slow");
    expect(gateway.upstreams[1]!.seen).toEqual([]);
  });

  test("is served by the first target if that has content first after all", async () => {
    await start();
    gateway.upstreams[0]!.next(late(HEDGE_MS + 150, sse(streamText(["first"]))));
    gateway.upstreams[1]!.next(hang);
    const response = await gateway.chat({ stream: true });
    expect(await response.text()).toContain("first");
    expect(attemptsOf(0)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.SERVED],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.HEDGE_LOST],
    ]);
  });

  test("goes on with the other when one of the two fails, whichever it is", async () => {
    await start();
    gateway.upstreams[0]!.next(late(HEDGE_MS + 150, reset));
    gateway.upstreams[1]!.next(late(250, chat("from the hedge")));
    expect(await (await gateway.chat()).text()).toContain("from the hedge");
    gateway.upstreams[0]!.next(late(HEDGE_MS + 250, chat("from the first")));
    gateway.upstreams[1]!.next(error(503));
    expect(await (await gateway.chat()).text()).toContain("from the first");
    expect(attemptsOf(1)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.SERVED],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.STATUS],
    ]);
  });

  test("falls back when both fail", async () => {
    await start({ upstreams: 3 });
    gateway.upstreams[0]!.next(late(HEDGE_MS + 150, reset));
    gateway.upstreams[1]!.next(error(500));
    gateway.upstreams[2]!.next(chat("the third"));
    expect(await (await gateway.chat()).text()).toContain("the third");
    expect(attemptsOf(0).map(([, kind]) => kind)).toEqual([AttemptKind.FIRST, AttemptKind.HEDGE, AttemptKind.FALLBACK]);
  });

  test("is served by the slow one although the hedge refuses it, and refused when that one fails too", async () => {
    await start({ upstreams: 3 });
    const tooLong = error(400, "context_length_exceeded", "too long for the small one");
    gateway.upstreams[0]!.next(late(HEDGE_MS + 150, chat("from the first")), late(HEDGE_MS + 150, reset));
    gateway.upstreams[1]!.next(tooLong, tooLong);
    expect(await (await gateway.chat()).text()).toContain("from the first");
    expect(attemptsOf(0)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.SERVED],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.CLIENT_ERROR],
    ]);
    const refused = await gateway.chat();
    expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining("context_length_exceeded")]);
    expect(gateway.journal.settlements[1]).toMatchObject({ outcome: Outcome.CLIENT_ERROR, credits: 0n });
  });

  test("is not hedged without another target, nor when the wallet does not cover a second input", async () => {
    await start({ upstreams: 1 });
    gateway.upstreams[0]!.next(late(HEDGE_MS * 3, chat("alone")));
    expect(await (await gateway.chat()).text()).toContain("alone");
    await gateway.close();
    await start();
    gateway.budget.free = 1_000_000_000_000n;
    gateway.upstreams[0]!.next(
      late(HEDGE_MS * 3, (response, request) => {
        gateway.budget.free = 1_000_000_000_000n;
        chat("poor")(response, request);
      }),
    );
    const pending = gateway.chat({ max_tokens: 1 });
    await expect.poll(() => gateway.upstreams[0]!.seen.length).toBe(1);
    gateway.budget.free = 0n;
    expect(await (await pending).text()).toContain("poor");
    expect(gateway.upstreams[1]!.seen).toEqual([]);
  });
});

describe("the call that lost", () => {
  test("[hedge-lost-accepted] is billed its input, as a record of its own, when it had been accepted", async () => {
    await start();
    gateway.upstreams[0]!.next(acceptedLate);
    gateway.upstreams[1]!.next(late(300, sse(streamText(["served"]))));
    expect(await (await gateway.chat({ stream: true })).text()).toContain("served");
    const [lost, served] = [await gateway.journal.settled(1), await gateway.journal.settled(2)];
    expect(served).toMatchObject({ physicalModelId: "pm_1", outcome: Outcome.COMPLETED });
    expect(lost).toMatchObject({
      physicalModelId: "pm_0",
      outcome: Outcome.HEDGE_LOST,
      hedgeOf: served.id,
      httpStatus: 0,
      attempts: [{ physicalModelId: "pm_0", kind: AttemptKind.FIRST, result: AttemptResult.HEDGE_LOST }],
    });
    expect(lost.credits).toBeGreaterThan(0n);
    expect(lost.units.filter(({ meter, quantity }) => meter === Meter.OUTPUT_TOKENS && quantity > 0)).toEqual([]);
    expect(lost.id).not.toBe(served.id);
    // The request shows what each of its calls cost.
    expect(served.attempts.map(({ credits }) => credits)).toEqual([lost.credits, served.credits]);
  });

  test("[hedge-lost-accepted] is free where the Provider says so", async () => {
    await start({ provider: { onDisconnect: OnDisconnect.FREE } });
    gateway.upstreams[0]!.next(acceptedLate);
    gateway.upstreams[1]!.next(late(300, sse(streamText(["served"]))));
    await (await gateway.chat({ stream: true })).text();
    expect(gateway.journal.settlements).toHaveLength(1);
  });

  test("[hedge-lost-unanswered] is not billed when nothing of an answer had come", async () => {
    await start();
    gateway.upstreams[0]!.next(hang);
    await (await gateway.chat()).text();
    expect(gateway.journal.settlements).toHaveLength(1);
    expect(gateway.journal.settlements[0]!.attempts[0]).toMatchObject({
      result: AttemptResult.HEDGE_LOST,
      credits: 0n,
    });
  });

  test("holds nothing of the wallet any more while the other one streams", async () => {
    await start();
    gateway.upstreams[0]!.next(hang);
    let finish: () => void = () => undefined;
    gateway.upstreams[1]!.next((response) => {
      const [first, ...rest] = streamText(["served"]);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(first! + rest.shift()!);
      finish = () => response.end(rest.join(""));
    });
    const response = await gateway.chat({ stream: true });
    expect(gateway.budget.reservations.map(({ settled }) => settled)).toEqual([0, 1]);
    finish();
    await response.text();
  });

  test("is waited for by a node that stops", async () => {
    const counting: (() => void)[] = [];
    await start({ tokens: { count: (_, done) => void counting.push(() => done({ input: 7, output: 0 })) } });
    gateway.upstreams[0]!.next(acceptedLate);
    gateway.upstreams[1]!.next(late(300, sse(streamText(["served"]))));
    await (await gateway.chat({ stream: true })).text();
    await gateway.journal.settled(1);
    expect(gateway.pipeline.live).toBe(1);
    counting[0]!();
    const lost = await gateway.journal.settled(2);
    expect(lost.units.find(({ meter }) => meter === Meter.INPUT_TOKENS)).toMatchObject({ quantity: 7 });
    await expect.poll(() => gateway.pipeline.live).toBe(0);
  });
});

describe("a client that leaves a hedged request", () => {
  test("is billed the input of what was accepted, once", async () => {
    await start();
    gateway.upstreams[0]!.next(hang);
    gateway.upstreams[1]!.next(headAlone);
    const leaving = new AbortController();
    const pending = gateway.chat({ stream: true }, leaving.signal).catch(() => undefined);
    await expect.poll(() => gateway.upstreams[1]!.seen.length).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    leaving.abort();
    await pending;
    const settled = await gateway.journal.settled();
    expect(settled).toMatchObject({ outcome: Outcome.CLIENT_GONE, physicalModelId: "pm_1" });
    expect(settled.credits).toBeGreaterThan(0n);
    expect(attemptsOf(0)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.HEDGE_LOST],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.CLIENT_GONE],
    ]);
  });

  test("a refusal of the client's own fault ends it, and the other call", async () => {
    await start();
    gateway.upstreams[0]!.next(late(HEDGE_MS + 150, error(400, "bad_thing", "no")));
    gateway.upstreams[1]!.next(hang);
    const response = await gateway.chat();
    expect(response.status).toBe(400);
    await response.text();
    expect(attemptsOf(0)).toEqual([
      ["pm_0", AttemptKind.FIRST, AttemptResult.CLIENT_ERROR],
      ["pm_1", AttemptKind.HEDGE, AttemptResult.HEDGE_LOST],
    ]);
  });

  test("the deadline of the whole ends both", async () => {
    await start({ deadlines: { totalMs: 300 } });
    gateway.upstreams[0]!.next(hang);
    gateway.upstreams[1]!.next(hang);
    const response = await gateway.chat();
    expect(response.status).toBe(504);
    await response.text();
    expect(attemptsOf(0).map(([, , result]) => result)).toEqual([
      AttemptResult.TOTAL_TIMEOUT,
      AttemptResult.TOTAL_TIMEOUT,
    ]);
  });

  /** Both are accepted, and neither has content. */
  async function bothAccepted(first: Handler): Promise<Response> {
    gateway.upstreams[0]!.next(late(HEDGE_MS + 120, first));
    gateway.upstreams[1]!.next(headAlone);
    return gateway.chat({ stream: true });
  }

  const bills = () => gateway.journal.settlements.map(({ outcome, credits }) => [outcome, credits]);

  test("neither is billed when the deadline of the whole passes", async () => {
    await start({ deadlines: { totalMs: 500 } });
    const response = await bothAccepted(headAlone);
    expect([response.status, await response.text()]).toEqual([504, expect.any(String)]);
    await gateway.pipeline.idle();
    expect(bills()).toEqual([[Outcome.UPSTREAM_ERROR, 0n]]);
  });

  test("neither is billed when one of them refuses", async () => {
    await start();
    const response = await bothAccepted(error(400, "bad_thing", "no"));
    expect([response.status, await response.text()]).toEqual([400, expect.any(String)]);
    await gateway.pipeline.idle();
    expect(bills()).toEqual([[Outcome.CLIENT_ERROR, 0n]]);
  });

  test("neither is billed when the node stops", async () => {
    await start();
    const pending = bothAccepted(headAlone);
    await expect.poll(() => gateway.upstreams[1]!.seen.length).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    gateway.pipeline.abortAll();
    expect((await pending).status).toBe(503);
    await gateway.pipeline.idle();
    expect(bills()).toEqual([[Outcome.UPSTREAM_ERROR, 0n]]);
  });

  test("an answer that is no answer loses to one that is", async () => {
    await start();
    gateway.upstreams[0]!.next(late(HEDGE_MS + 120, json(200, { error: { message: "inside a 200" } })));
    gateway.upstreams[1]!.next(late(200, sse([chunk({ content: "ok" }), chunk({}, "stop"), "data: [DONE]\n\n"])));
    const response = await gateway.chat({ stream: true });
    expect(await response.text()).toContain("ok");
  });
});
