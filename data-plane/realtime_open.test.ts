/** How realtime sessions begin, or are refused. */

import { lookup } from "node:dns";
import { once } from "node:events";
import { afterEach, expect, test } from "vitest";
import { AttemptResult, Outcome } from "./outcome.ts";
import { rawSocket, type RealtimeGateway, Refused, startRealtimeGateway, USAGE_CREDITS } from "./realtime/testing.ts";
import { RateLimiter } from "./rates/rate_limiter.ts";
import { CHECKOUT, delta, KEY, keyResource, resource, VE } from "./testing.ts";

let gateway: RealtimeGateway;
afterEach(() => gateway.close());

async function refused(...of: Parameters<RealtimeGateway["connect"]>): Promise<Refused> {
  const error: unknown = await gateway.connect(...of).then(
    () => "accepted",
    (reason: unknown) => reason,
  );
  if (!(error instanceof Refused)) throw new Error(`not refused: ${String(error)}`);
  expect(error.headers["x-request-id"]).toMatch(/^usg_/);
  return error;
}

const AUTH = { authorization: `Bearer ${KEY}` };

test("keys come as a header or a sub-protocol, VEs by path; the rest is a 401 in the same words", async () => {
  gateway = await startRealtimeGateway();
  const other = `ve_${"b".repeat(26)}`;
  delta(gateway.table, [
    resource("virtualEndpoint", { id: other, name: "Other", exhaustedStatus: 429 }),
    keyResource("key_2", other, "tbk_other"),
  ]);
  const browser = await gateway.connect(undefined, {}, ["realtime", `openai-insecure-api-key.${KEY}`]);
  expect(browser.socket.protocol).toBe("realtime");
  await browser.turn();
  await gateway.connect(`/ve/${VE}/v1/realtime?model=gpt`);
  const words = new Set<string>();
  for (const [path, headers] of [
    ["/v1/realtime?model=gpt", {}],
    ["/v1/realtime?model=gpt", { authorization: "Bearer tbk_unknown" }],
    [`/ve/${VE}/v1/realtime?model=gpt`, { authorization: "Bearer tbk_other" }],
    [`/ve/${other}/v1/realtime?model=gpt`, AUTH],
  ] as const) {
    const { status, error } = await refused(path, headers);
    expect(status).toBe(401);
    words.add(JSON.stringify(error));
  }
  expect(words.size).toBe(1);
  // Another VE's Logical Models are not this one's.
  expect((await refused("/v1/realtime?model=gpt", { authorization: "Bearer tbk_other" })).status).toBe(404);
  expect(gateway.upstream.calls).toHaveLength(2);
});

test.each([
  ["/v1/realtime", 404, "model_not_found"],
  ["/v1/realtime?model=nope", 404, "model_not_found"],
  ["/v1/realtime?call_id=rtc_1", 400, "unsupported_parameter"],
  ["/v1/realtime?intent=transcription", 400, "unsupported_parameter"],
  // Nothing else takes WebSockets: the pipeline answers as it does without.
  ["/v1/realtimes?model=gpt", 404, "unknown_url"],
])("%s is refused with %i", async (path, status, code) => {
  gateway = await startRealtimeGateway();
  expect(await refused(path)).toMatchObject({ status, error: { code } });
});

test("offers of other protocols are ignored, as before", async () => {
  gateway = await startRealtimeGateway();
  const socket = rawSocket(gateway.url);
  socket.write(
    `GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n`,
  );
  const [answer] = (await once(socket, "data")) as [Buffer];
  expect(answer.toString()).toContain("HTTP/1.1 200");
  socket.destroy();
});

test("an empty wallet is a 429 with the link before there is a session", async () => {
  gateway = await startRealtimeGateway();
  gateway.budget.free = 0n;
  const { status, error, headers } = await refused();
  expect({ status, error }).toMatchObject({
    status: 429,
    error: { code: "insufficient_quota", checkout_url: CHECKOUT },
  });
  expect(headers["x-should-retry"]).toBe("false");
  gateway.budget.failure = "unavailable";
  expect((await refused()).status).toBe(503);
  expect(gateway.upstream.calls).toEqual([]);
});

test("a node that cannot write, or has enough sessions, says 503", async () => {
  gateway = await startRealtimeGateway({ realtime: { limits: { sessionsMax: 1 } } });
  gateway.journal.accepting = false;
  expect((await refused()).status).toBe(503);
  gateway.journal.accepting = true;
  const client = await gateway.connect();
  expect(await refused()).toMatchObject({ status: 503, error: { code: "too_many_sessions" } });
  client.socket.close();
  await client.closed;
  await expect.poll(() => gateway.realtime.live).toBe(0);
  await gateway.connect();
});

test("targets that fail at the handshake are passed over and cool down; the first record tells of them", async () => {
  gateway = await startRealtimeGateway({ upstreams: 4 });
  const [first, second, third] = gateway.upstreams;
  first!.next({ status: 401, body: { error: { code: "invalid_api_key", message: "sk-x" } } });
  second!.next({ status: 429, headers: { "retry-after": "7" } });
  const error = { type: "invalid_request_error", code: "model_not_found", message: "none" };
  third!.next({ first: { type: "error", error }, close: 1008 });
  const client = await gateway.connect();
  await client.turn();
  const { attempts, physicalModelId, credits } = await gateway.journal.settled();
  expect(physicalModelId).toBe("pm_3");
  expect(credits).toBe(USAGE_CREDITS);
  expect(attempts).toMatchObject([
    { physicalModelId: "pm_0", result: AttemptResult.STATUS, httpStatus: 401, detail: "invalid_api_key" },
    { physicalModelId: "pm_1", result: AttemptResult.STATUS, httpStatus: 429 },
    { physicalModelId: "pm_2", result: AttemptResult.STATUS, httpStatus: 101, detail: "model_not_found" },
    { physicalModelId: "pm_3", tier: 3, result: AttemptResult.SERVED, httpStatus: 101, credits: USAGE_CREDITS },
  ]);
  // All three cool down: the next session goes straight to the one that is well.
  await gateway.connect();
  expect(gateway.upstreams.map(({ calls }) => calls.length)).toEqual([1, 1, 1, 2]);
  await client.turn();
  expect((await gateway.journal.settled(2)).attempts).toHaveLength(1);
});

test("when no target is left the client gets what HTTP requests get, and the record says why", async () => {
  gateway = await startRealtimeGateway({ upstreams: 2 });
  for (const upstream of gateway.upstreams) upstream.next({ status: 500 }, { status: 500 });
  expect(await refused()).toMatchObject({ status: 503, error: { code: "no_available_target" } });
  const record = await gateway.journal.settled();
  expect(record).toMatchObject({ endpoint: 12, outcome: Outcome.UPSTREAM_ERROR, credits: 0n, httpStatus: 503 });
  expect(record.attempts.length).toBeGreaterThanOrEqual(2);
});

test("an upstream that says nothing is given up in time", async () => {
  gateway = await startRealtimeGateway({ upstreams: 2, deadlines: { connectMs: 30, firstByteMs: 30 } });
  gateway.upstreams[0]!.next({ first: null });
  const client = await gateway.connect();
  await client.turn();
  expect((await gateway.journal.settled()).attempts).toMatchObject([
    { physicalModelId: "pm_0", result: AttemptResult.FIRST_CONTENT_TIMEOUT },
    { physicalModelId: "pm_1", result: AttemptResult.SERVED },
  ]);
});

test("a refusal that is about the request itself is the client's to see, scrubbed", async () => {
  gateway = await startRealtimeGateway({ upstreams: 2 });
  const message = "bad thing at https://internal.example/x for sk-upstream-secret-0";
  gateway.upstreams[0]!.next({ status: 400, body: { error: { message, type: "invalid_request_error", code: "bad" } } });
  const { status, error } = await refused();
  expect({ status, error }).toMatchObject({ status: 400, error: { code: "bad" } });
  expect(String(error["message"])).not.toMatch(/internal|secret/);
  expect((await gateway.journal.settled()).outcome).toBe(Outcome.CLIENT_ERROR);
  expect(gateway.upstreams[1]!.calls).toEqual([]);
});

test("a forbidden address is not called, whether it is written down or a name leads there", async () => {
  gateway = await startRealtimeGateway({ realtime: { allowPrivate: false } });
  expect(await refused()).toMatchObject({ status: 503, error: { code: "no_available_target" } });
  expect((await gateway.journal.settled()).attempts).toMatchObject([{ result: AttemptResult.ADDRESS_NOT_ALLOWED }]);
  expect(gateway.upstream.calls).toEqual([]);
  await gateway.close();

  const asked: string[] = [];
  const toLocalhost = ((host: string, options: object, done: never) => {
    asked.push(host);
    lookup("127.0.0.1", options, done);
  }) as never;
  gateway = await startRealtimeGateway({ realtime: { allowPrivate: false, lookup: toLocalhost } });
  const port = new URL(gateway.upstream.url).port;
  delta(gateway.table, [
    resource("provider", {
      id: "prov_0",
      format: 1,
      baseUrl: `http://inner.example:${port}/v1`,
      credentials: { apiKey: "sk-upstream-secret-0" },
    }),
  ]);
  expect((await refused()).status).toBe(503);
  expect(asked).toEqual(["inner.example"]);
  expect(gateway.upstream.calls).toEqual([]);
});

test("rate limits: a session is one request and one of those at a time, and each turn is a request", async () => {
  const rates = new RateLimiter({ now: () => performance.now(), random: () => 0.5 });
  gateway = await startRealtimeGateway({ rates, keyRateLimits: { requestsPerMinute: 3, concurrentRequests: 1 } });
  const client = await gateway.connect();
  expect(await refused()).toMatchObject({ status: 429, error: { code: "rate_limit_exceeded" } });
  await client.turn();
  await client.turn();
  client.send({ type: "response.create", event_id: "e3" });
  expect((await client.next("error"))["error"]).toMatchObject({ code: "rate_limit_exceeded", event_id: "e3" });
  client.socket.close();
  await client.closed;
  await expect.poll(() => gateway.realtime.live).toBe(0);
  expect(await refused()).toMatchObject({ status: 429, error: { code: "rate_limit_exceeded", type: "requests" } });
});

test("a client that leaves while its upstream is called is let go", async () => {
  gateway = await startRealtimeGateway({ upstreams: 1 });
  gateway.upstream.next({ first: null });
  const socket = rawSocket(gateway.url);
  socket.write(
    `GET /v1/realtime?model=gpt HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\nconnection: upgrade\r\n` +
      "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
  await expect.poll(() => gateway.upstream.calls.length).toBe(1);
  expect(gateway.realtime.live).toBe(1);
  socket.end();
  await expect.poll(() => gateway.realtime.live).toBe(0);
  expect(gateway.journal.settlements).toEqual([]);
});

test("what is no WebSocket handshake is refused before anybody is called", async () => {
  gateway = await startRealtimeGateway();
  const socket = rawSocket(gateway.url);
  socket.write(
    `GET /v1/realtime?model=gpt HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${KEY}\r\nconnection: upgrade\r\n` +
      "upgrade: websocket\r\nsec-websocket-version: 12\r\n\r\n",
  );
  const [answer] = (await once(socket, "data")) as [Buffer];
  expect(answer.toString()).toContain("HTTP/1.1 400 Bad Request");
  expect(gateway.upstream.calls).toEqual([]);
});

test("credentials can come later, from somebody else, or not at all", async () => {
  const refusals: number[] = [];
  let asked = 0;
  gateway = await startRealtimeGateway({
    upstreams: 3,
    realtime: {
      auth: {
        authorize(_, request, done) {
          asked++;
          if (asked === 1) return Object.assign(new Error("none"), { code: "no_credentials" });
          const headers = [...request.headers, "authorization", `Bearer token-${asked}`];
          setTimeout(() => done({ ...request, headers }), 5);
          return null;
        },
        refused: (_, status) => void refusals.push(status),
      },
    },
  });
  gateway.upstreams[1]!.next({ status: 401 });
  const client = await gateway.connect();
  await client.turn();
  expect(gateway.upstreams.map(({ calls }) => calls.map(({ headers }) => headers.authorization))).toEqual([
    [],
    ["Bearer token-2"],
    ["Bearer token-3"],
  ]);
  expect(refusals).toEqual([401]);
  expect((await gateway.journal.settled()).attempts[0]).toMatchObject({ detail: "no_credentials" });
});
