import { connect, createServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { AttemptKind, AttemptResult } from "./outcome.ts";
import { RETRIES_SAVED_MAX, RetryBudget } from "./retry_budget.ts";
import { delta, type Gateway, type GatewayOptions, resource, startGateway } from "./testing.ts";
import { chat, error, hang, reset, sse, startTestUpstream, streamText } from "./testing_upstream.ts";
import type { Upstream } from "./transport.ts";
import { ATTEMPTS_MAX } from "./trail.ts";
import { createUpstream } from "./upstream.ts";

let gateway: Gateway;
afterEach(() => gateway.close());

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({ upstreams: 2, ...options });
}

/** A port that nobody listens on. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** `pm_0` leads to this port from now on. */
function lead(port: number, n = 0): void {
  const provider = { id: `prov_${n}`, format: 1, baseUrl: `http://127.0.0.1:${port}/v1`, credentials: { apiKey: "k" } };
  delta(gateway.table, [resource("provider", provider)]);
}

const attempts = (at = 0) =>
  gateway.journal.settlements[at]!.attempts.map(({ physicalModelId, kind, result, detail }) => [
    physicalModelId,
    kind,
    result,
    detail,
  ]);

const { FIRST, RETRY, FALLBACK } = AttemptKind;
const { CONNECTION_ERROR, SERVED } = AttemptResult;

describe("a refused connection", () => {
  test("is tried again at the same target before the next", async () => {
    await start();
    lead(await closedPort());
    expect((await gateway.chat()).status).toBe(200);
    expect(attempts()).toEqual([
      ["pm_0", FIRST, CONNECTION_ERROR, "ECONNREFUSED"],
      ["pm_0", RETRY, CONNECTION_ERROR, "ECONNREFUSED"],
      ["pm_1", FALLBACK, SERVED, ""],
    ]);
  });

  test("is not tried again at the cost of a target that was not tried", async () => {
    const dead = ATTEMPTS_MAX - 2;
    await start({ upstreams: dead + 1 });
    const port = await closedPort();
    for (let n = 0; n < dead; n++) lead(port, n);
    expect((await gateway.chat()).status).toBe(200);
    const kinds = attempts().map(([, kind]) => kind);
    expect(kinds.filter((kind) => kind === RETRY)).toHaveLength(1);
    expect(kinds).toHaveLength(ATTEMPTS_MAX);
  });

  test("succeeds when the upstream is back in a moment", async () => {
    await start();
    const port = await closedPort();
    lead(port);
    const pending = gateway.chat({ stream: true });
    await expect.poll(() => gateway.pipeline.live).toBe(1);
    const upstream = await startTestUpstream();
    upstream.always(sse(streamText(["back"])));
    const server = createServer((socket) => {
      const out = connect(Number(new URL(upstream.url).port), "127.0.0.1");
      socket.pipe(out).pipe(socket);
      socket.on("error", () => out.destroy());
      out.on("error", () => socket.destroy());
    });
    server.listen(port, "127.0.0.1");
    const response = await pending;
    expect(await response.text()).toContain("back");
    expect(attempts()).toEqual([
      ["pm_0", FIRST, CONNECTION_ERROR, "ECONNREFUSED"],
      ["pm_0", RETRY, SERVED, ""],
    ]);
    server.close();
    await upstream.close();
  });

  test("is not repeated beyond the budget of its Provider, so that an outage is not amplified", async () => {
    await start({ settings: { health: { failuresToCool: 1_000_000 } } });
    lead(await closedPort());
    const requests = 60;
    for (let i = 0; i < requests; i++) await (await gateway.chat()).text();
    const retries = gateway.journal.settlements
      .flatMap((settlement) => settlement.attempts)
      .filter(({ kind }) => kind === RETRY).length;
    expect(retries).toBeGreaterThanOrEqual(RETRIES_SAVED_MAX);
    expect(retries).toBeLessThanOrEqual(RETRIES_SAVED_MAX + requests * 0.1 + 1);
  });

  test("of a client that leaves meanwhile is not tried again", async () => {
    await start({ upstreams: 1 });
    lead(await closedPort());
    const leaving = new AbortController();
    const pending = gateway.chat({}, leaving.signal).catch(() => undefined);
    await expect.poll(() => gateway.metrics.attempts).toBe(1);
    leaving.abort();
    await pending;
    await gateway.journal.settled();
    expect(attempts()).toHaveLength(1);
  });
});

describe("what may have reached the upstream", () => {
  test.each([
    ["a reset after the request was sent", reset],
    ["a status", error(500)],
  ])("%s goes to the next target at once", async (_, handler) => {
    await start();
    gateway.upstreams[0]!.next(handler);
    await (await gateway.chat()).text();
    expect(gateway.upstreams[0]!.seen).toHaveLength(1);
    expect(attempts().map(([pm, kind]) => [pm, kind])).toEqual([
      ["pm_0", FIRST],
      ["pm_1", FALLBACK],
    ]);
  });
});

test("the only target is asked again after a reset within its Provider's budget alone", async () => {
  await start({ upstreams: 1 });
  gateway.upstreams[0]!.always(reset);
  const requests = 30;
  for (let i = 0; i < requests; i++) await (await gateway.chat()).text();
  const { length } = gateway.upstreams[0]!.seen;
  expect(length).toBeGreaterThan(requests);
  expect(length).toBeLessThanOrEqual(requests + RETRIES_SAVED_MAX + requests / 10);
});

describe("deadlines of a target", () => {
  test("hold for it alone, the others are the Logical Model's", async () => {
    await start({ deadlines: { firstByteMs: 5_000 }, targetDeadlines: [{ firstByteMs: 60 }] });
    gateway.upstreams[0]!.next(hang);
    gateway.upstreams[1]!.next((response, request) => void setTimeout(() => chat("slow")(response, request), 200));
    expect(await (await gateway.chat()).text()).toContain("slow");
    expect(attempts().map(([pm, , result]) => [pm, result])).toEqual([
      ["pm_0", AttemptResult.FIRST_BYTE_TIMEOUT],
      ["pm_1", SERVED],
    ]);
  });

  test("a short one for the content holds before the head too", async () => {
    await start({ deadlines: { firstContentMs: 80 } });
    gateway.upstreams[0]!.next(hang);
    gateway.upstreams[1]!.next(sse(streamText(["in time"])));
    expect(await (await gateway.chat({ stream: true })).text()).toContain("in time");
    expect(attempts()[0]).toEqual(["pm_0", FIRST, AttemptResult.FIRST_BYTE_TIMEOUT, ""]);
  });

  test("also between chunks", async () => {
    await start({ deadlines: { idleMs: 5_000 }, targetDeadlines: [{ idleMs: 80 }] });
    gateway.upstreams[0]!.next(sse(streamText(["a", "b"]).slice(0, 2), "hang"));
    const text = await (await gateway.chat({ stream: true })).text();
    expect(text).toContain('"code":"timeout"');
    expect(attempts()).toMatchObject([["pm_0", FIRST, AttemptResult.IDLE_TIMEOUT, ""]]);
  });

  test("to connect", async () => {
    const real = createUpstream({ allowPrivate: true });
    // The first target's connection never stands.
    const outbound: Upstream = {
      send: (request, sink) =>
        request.origin.endsWith(":9")
          ? { abort: () => undefined, pause: () => undefined, resume: () => undefined }
          : real.send(request, sink),
      close: () => real.close(),
    };
    await start({ outbound, deadlines: { connectMs: 60 } });
    lead(9);
    expect((await gateway.chat()).status).toBe(200);
    expect(attempts()[0]).toEqual(["pm_0", FIRST, AttemptResult.CONNECT_TIMEOUT, ""]);
  });
});

test("a tenth of the calls, and ten in reserve", () => {
  const budget = new RetryBudget();
  for (let i = 0; i < RETRIES_SAVED_MAX; i++) expect(budget.take()).toBe(true);
  expect(budget.take()).toBe(false);
  for (let i = 0; i < 11; i++) budget.deposit();
  expect(budget.take()).toBe(true);
  expect(budget.take()).toBe(false);
  for (let i = 0; i < 1_000; i++) budget.deposit();
  for (let i = 0; i < RETRIES_SAVED_MAX; i++) expect(budget.take()).toBe(true);
  expect(budget.take()).toBe(false);
});
