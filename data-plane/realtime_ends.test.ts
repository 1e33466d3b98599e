/** How realtime sessions end, and what is billed of the turn that was under way. */

import { afterEach, expect, test } from "vitest";
import { Outcome } from "./outcome.ts";
import { type FakeSession, type RealtimeGateway, startRealtimeGateway, type TestClient } from "./realtime/testing.ts";
import { delta, keyResource, KEY, resource, VE } from "./testing.ts";

let gateway: RealtimeGateway;
afterEach(() => gateway.close());

/** Two seconds of PCM. */
const AUDIO = Buffer.alloc(96_000).toString("base64");

/** A session whose turn is under way, with some text and two seconds of audio. */
async function inTurn(options: Parameters<typeof startRealtimeGateway>[0] = {}): Promise<[TestClient, FakeSession]> {
  gateway = await startRealtimeGateway(options);
  gateway.upstream.auto = false;
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  client.send({ type: "response.create" });
  await upstream.next("response.create");
  upstream.respond({ id: "resp_1", open: true, text: ["Hello ", "world"], audio: [AUDIO] });
  await client.next("response.output_audio.delta");
  return [client, upstream];
}

function done(usage: unknown): Record<string, unknown> {
  return { type: "response.done", response: { id: "resp_1", status: "cancelled", usage } };
}

test("a client that leaves: the response is cancelled, and its own usage billed", async () => {
  const [client, upstream] = await inTurn();
  client.socket.close();
  expect((await upstream.next("response.cancel"))["response_id"]).toBe("resp_1");
  upstream.send(done({ input_tokens: 100, output_tokens: 7 }));
  expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.CLIENT_GONE, credits: 114n * 10n ** 9n });
  await upstream.closed;
});

test("if the upstream does not say what it used, what arrived is estimated", async () => {
  const [client, upstream] = await inTurn({ realtime: { limits: { cancelMs: 50 } } });
  client.socket.terminate();
  const record = await gateway.journal.settled();
  expect(record.outcome).toBe(Outcome.CLIENT_GONE);
  // The session's own event is the input; the output has eleven bytes of text and forty tokens of audio.
  expect(record.units.slice(-3)).toEqual([
    { meter: 4, quantity: 3, source: 2 },
    { meter: 7, quantity: 40, source: 2 },
    { meter: 11, quantity: 1, source: 1 },
  ]);
  expect(record.units[0]).toMatchObject({ meter: 1, source: 2 });
  expect(gateway.journal.notes.at(-1)).toMatchObject({ id: record.id, physicalModelId: "pm_0" });
  await upstream.closed;
});

test("FREE: nothing is billed of a client that left; before the upstream began, nothing either", async () => {
  const [client] = await inTurn({ provider: { onDisconnect: 3 } });
  client.socket.terminate();
  expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.CLIENT_GONE, credits: 0n, units: [] });
});

test("an upstream that breaks off: what arrived is billed, and the client hears of it", async () => {
  const [client, upstream] = await inTurn();
  upstream.tcp.destroy();
  expect((await client.next("error"))["error"]).toMatchObject({ code: "upstream_cut" });
  expect(await client.closed).toEqual({ code: 1011, reason: "upstream_cut" });
  const record = await gateway.journal.settled();
  expect(record).toMatchObject({ outcome: Outcome.UPSTREAM_CUT, errorCode: "upstream_cut" });
  expect(record.units.at(-2)).toEqual({ meter: 7, quantity: 40, source: 2 });
});

test("an upstream that ends between turns ends the session likewise, and its last frames arrive", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  upstream.respond();
  upstream.socket.close(1000, "secret org-123456789");
  expect(await client.closed).toEqual({ code: 1000, reason: "upstream_closed" });
  expect(client.events.at(-1)!["type"]).toBe("response.done");
  expect((await gateway.journal.settled()).outcome).toBe(Outcome.COMPLETED);
});

test("a frame that is too large ends the session, not the node", async () => {
  gateway = await startRealtimeGateway({ realtime: { limits: { frameBytesMax: 4096 } } });
  const client = await gateway.connect();
  client.send({ type: "input_audio_buffer.append", audio: "A".repeat(8192) });
  expect((await client.closed).code).toBe(1009);
  const other = await gateway.connect();
  await other.turn();
});

test("a client that does not read stops the upstream, and nothing is lost", async () => {
  const bufferBytesMax = 64 * 1024;
  gateway = await startRealtimeGateway({ realtime: { limits: { bufferBytesMax } } });
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  client.socket.pause();
  const pad = "x".repeat(32 * 1024);
  const count = 400;
  for (let n = 0; n < count; n++) upstream.send({ type: "rate_limits.updated", n, pad });
  await new Promise((resolve) => setTimeout(resolve, 100));
  // Nearly all of it waits in the upstream and in the kernel: the gateway has stopped reading.
  expect(upstream.socket.bufferedAmount).toBeGreaterThan(bufferBytesMax * 8);
  client.socket.resume();
  await expect.poll(() => client.events.length, { timeout: 5000 }).toBe(count + 1);
  expect(client.events.slice(1).map(({ n }) => n)).toEqual(Array.from({ length: count }, (_, n) => n));
});

test("an upstream that does not read stops the client", async () => {
  const bufferBytesMax = 64 * 1024;
  gateway = await startRealtimeGateway({ realtime: { limits: { bufferBytesMax } } });
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  upstream.socket.pause();
  const audio = "A".repeat(32 * 1024);
  for (let n = 0; n < 400; n++) client.send({ type: "input_audio_buffer.append", n, audio });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(client.socket.bufferedAmount).toBeGreaterThan(bufferBytesMax * 8);
  upstream.socket.resume();
  await expect.poll(() => upstream.seen.length, { timeout: 5000 }).toBe(400);
});

test("a node that stops: idle sessions go at once, a turn is finished first", async () => {
  const [client, upstream] = await inTurn();
  const idle = await gateway.connect();
  const closing = gateway.server.close({ drainMs: 5_000, lingerMs: 0 });
  expect((await idle.next("error"))["error"]).toMatchObject({ code: "shutting_down" });
  expect(await idle.closed).toEqual({ code: 1001, reason: "shutting_down" });
  client.send({ type: "response.create", event_id: "late" });
  expect((await client.next("error"))["error"]).toMatchObject({ code: "shutting_down", event_id: "late" });
  upstream.send(done({ input_tokens: 5, output_tokens: 5 }));
  await client.next("response.done");
  expect((await client.closed).code).toBe(1001);
  expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.COMPLETED, credits: 15n * 10n ** 9n });
  await closing;
});

test("a node that cannot wait cuts the turn and bills what arrived", async () => {
  const [client] = await inTurn();
  await gateway.server.close({ drainMs: 20, lingerMs: 0 });
  expect((await client.closed).code).toBe(1001);
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.UPSTREAM_CUT });
  expect(gateway.journal.settlements[0]!.credits).toBeGreaterThan(0n);
});

test("a revoked key or a disabled VE ends the session at the next turn", async () => {
  gateway = await startRealtimeGateway();
  const first = await gateway.connect();
  const second = await gateway.connect();
  delta(gateway.table, [], ["key_1"]);
  first.send({ type: "response.create" });
  expect(await first.closed).toEqual({ code: 1008, reason: "invalid_api_key" });
  delta(gateway.table, [keyResource("key_1", VE, KEY)]);
  delta(gateway.table, [
    resource("virtualEndpoint", { id: VE, name: "Test VE", exhaustedStatus: 429, disabled: true }),
  ]);
  const upstream = await gateway.upstream.session(2);
  upstream.respond({ id: "resp_9", open: true });
  expect((await second.closed).code).toBe(1008);
  expect((await upstream.next("response.cancel"))["response_id"]).toBe("resp_9");
  upstream.send({ type: "response.done", response: { id: "resp_9", usage: { input_tokens: 1, output_tokens: 0 } } });
  expect((await gateway.journal.settled()).credits).toBe(10n ** 9n);
});

test("sessions end when nobody says anything", async () => {
  gateway = await startRealtimeGateway({ realtime: { limits: { idleMs: 500 } } });
  const client = await gateway.connect();
  expect((await client.next("error"))["error"]).toMatchObject({ code: "idle_timeout" });
  expect(await client.closed).toEqual({ code: 4408, reason: "idle_timeout" });
});

test("an upstream that does not take a turn up, or falls silent in one", async () => {
  gateway = await startRealtimeGateway({ realtime: { limits: { pendingMs: 300, turnIdleMs: 300, cancelMs: 50 } } });
  gateway.upstream.auto = false;
  const untaken = await gateway.connect();
  untaken.send({ type: "response.create", event_id: "e1" });
  const silent = await gateway.connect();
  silent.send({ type: "response.create" });
  const upstream = await gateway.upstream.session(2);
  await upstream.next("response.create");
  upstream.respond({ open: true });
  expect((await untaken.next("error"))["error"]).toMatchObject({ code: "timeout", event_id: "e1" });
  expect(await silent.closed).toEqual({ code: 1011, reason: "timeout" });
  await gateway.journal.settled(2);
  const ends = gateway.journal.settlements.map(({ outcome, credits }) => [outcome, credits > 0n]);
  expect(ends).toContainEqual([Outcome.UPSTREAM_ERROR, false]);
  expect(ends).toContainEqual([Outcome.TIMEOUT, true]);
});
