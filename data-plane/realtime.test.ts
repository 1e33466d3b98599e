/** Realtime sessions end to end: turns and what they cost. */

import { afterEach, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { Outcome } from "./outcome.ts";
import { type RealtimeGateway, startRealtimeGateway, USAGE_CREDITS } from "./realtime/testing.ts";
import { CHECKOUT, KEY } from "./testing.ts";

let gateway: RealtimeGateway;
afterEach(() => gateway.close());

test("turns pass untouched and each is billed by itself, to the last token", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const created = await client.next("session.created");
  const upstream = await gateway.upstream.session();
  expect(upstream.path).toBe("/v1/realtime?model=up-0");
  expect(upstream.headers.authorization).toBe("Bearer sk-upstream-secret-0");
  expect(JSON.stringify(upstream.headers)).not.toContain("tbk_");
  expect(created["session"]).toMatchObject({ id: "sess_1" });

  const raw = '{ "type" : "response.create",  "event_id":"mine" , "response":{"x":1.0} }';
  client.socket.send(raw);
  const done = await client.next("response.done");
  expect(upstream.raw.map(String)).toEqual([raw]);
  const record = await gateway.journal.settled();
  expect(record).toMatchObject({
    endpoint: 12,
    stream: true,
    outcome: Outcome.COMPLETED,
    physicalModelId: "pm_0",
    priceId: "price_rt",
    logicalModel: "gpt",
    accessKeyId: "key_1",
    httpStatus: 101,
    credits: USAGE_CREDITS,
    upstreamRequestId: (done["response"] as { id: string }).id,
  });
  expect(record.units).toEqual([
    { meter: 1, quantity: 59, source: 1 },
    { meter: 2, quantity: 64, source: 1 },
    { meter: 6, quantity: 9, source: 1 },
    { meter: 4, quantity: 30, source: 1 },
    { meter: 7, quantity: 91, source: 1 },
    { meter: 11, quantity: 1, source: 1 },
  ]);
  expect(record.firstContentUs).toBeGreaterThan(0);
  await client.turn();
  expect(gateway.budget.spent).toBe(2n * USAGE_CREDITS);
  expect(new Set(gateway.journal.settlements.map(({ id }) => id)).size).toBe(2);
  // Between turns nothing is held.
  expect(gateway.budget.free).toBe(parseCredits("1000") - 2n * USAGE_CREDITS);
  expect(client.events.map(({ type }) => type)).toEqual([
    "session.created",
    ...Array.from({ length: 2 }, () => [
      "response.created",
      "response.output_text.delta",
      "response.output_text.delta",
      "response.done",
    ]).flat(),
  ]);
});

test("the end of a turn reaches the client only when it is written down", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  gateway.journal.held = [];
  client.send({ type: "response.create" });
  await gateway.journal.settled();
  const upstream = await gateway.upstream.session();
  upstream.send({ type: "rate_limits.updated", rate_limits: [] });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(client.events.at(-1)!["type"]).toBe("response.output_text.delta");
  for (const written of gateway.journal.held.splice(0)) written();
  await client.next("rate_limits.updated");
  expect(client.events.at(-2)!["type"]).toBe("response.done");
  gateway.journal.held = null;
});

test("an empty wallet refuses the next turn with the link, and the session stands", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  await client.turn();
  const { free } = gateway.budget;
  gateway.budget.free = 0n;
  client.send({ type: "response.create", event_id: "evt_7" });
  const { error } = (await client.next("error")) as { error: Record<string, unknown> };
  expect(error).toMatchObject({ code: "insufficient_quota", type: "insufficient_quota", event_id: "evt_7" });
  expect(error["checkout_url"]).toBe(CHECKOUT);
  expect(String(error["message"])).toContain(CHECKOUT);
  const upstream = await gateway.upstream.session();
  expect(upstream.seen.filter(({ type }) => type === "response.create")).toHaveLength(1);
  gateway.budget.free = free;
  await client.turn();
  expect(gateway.budget.spent).toBe(2n * USAGE_CREDITS);
});

test("the wallet is asked while the client goes on, and order is kept", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  gateway.budget.free = 10n ** 10n;
  gateway.budget.pending = [];
  client.send({ type: "response.create" });
  client.send({ type: "input_audio_buffer.append", audio: "AAAA" });
  client.send({ type: "response.cancel" });
  await expect.poll(() => gateway.budget.pending!.length).toBe(1);
  expect(upstream.seen).toEqual([]);
  gateway.budget.free = parseCredits("100");
  for (const answer of gateway.budget.pending.splice(0)) answer();
  await upstream.next("response.cancel");
  expect(upstream.seen.map(({ type }) => type)).toEqual([
    "response.create",
    "input_audio_buffer.append",
    "response.cancel",
  ]);
  await client.next("response.done");
});

test("turns that the upstream begins by itself are billed; without cover they are cancelled and the session ends", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  upstream.respond({ id: "resp_vad" });
  await client.next("response.done");
  expect((await gateway.journal.settled()).credits).toBe(USAGE_CREDITS);
  gateway.budget.free = 0n;
  upstream.respond({ id: "resp_poor", open: true });
  const cancel = await upstream.next("response.cancel");
  expect(cancel["response_id"]).toBe("resp_poor");
  const { error } = (await client.next("error")) as { error: Record<string, unknown> };
  expect(error).toMatchObject({ code: "insufficient_quota", checkout_url: CHECKOUT });
  expect(await client.closed).toEqual({ code: 1008, reason: "insufficient_quota" });
  const usage = { input_tokens: 40, output_tokens: 3, total_tokens: 43 };
  upstream.send({ type: "response.done", response: { id: "resp_poor", status: "cancelled", usage } });
  const record = await gateway.journal.settled(2);
  expect(record).toMatchObject({
    outcome: Outcome.BUDGET_CUT,
    credits: 46n * 10n ** 9n,
    errorCode: "insufficient_quota",
  });
  expect(client.events.filter(({ type }) => type === "response.created")).toHaveLength(1);
});

test("a turn that outgrows the wallet is cancelled upstream and billed exactly", async () => {
  gateway = await startRealtimeGateway();
  gateway.budget.free = parseCredits("3");
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  gateway.upstream.auto = false;
  client.send({ type: "response.create" });
  await upstream.next("response.create");
  // Twenty seconds of audio are 400 tokens, which cost 8 Credits: more than what is there and half a slice.
  upstream.respond({ id: "resp_long", open: true, audio: [Buffer.alloc(960_000).toString("base64")] });
  expect((await upstream.next("response.cancel"))["response_id"]).toBe("resp_long");
  expect((await client.next("error"))["error"]).toMatchObject({ code: "insufficient_quota" });
  const usage = { input_tokens: 10, output_tokens: 150, output_token_details: { audio_tokens: 150 } };
  upstream.send({ type: "response.done", response: { id: "resp_long", status: "cancelled", usage } });
  await client.next("response.done");
  expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.BUDGET_CUT, credits: parseCredits("3.01") });
});

test("STRICT limits an answer to what is held", async () => {
  gateway = await startRealtimeGateway({ ve: { budgetMode: 2 } });
  gateway.budget.free = parseCredits("60");
  const client = await gateway.connect();
  await client.turn({ response: { instructions: "Hi", max_output_tokens: "inf" } });
  const upstream = await gateway.upstream.session();
  const { response } = upstream.seen[0] as { response: Record<string, number> };
  // The wallet less one token for each byte so far, at the dearest rates.
  expect(response["instructions"]).toBe("Hi");
  expect(response["max_output_tokens"]).toBeGreaterThan(1000);
  expect(response["max_output_tokens"]).toBeLessThan(3000);
});

test("transcriptions are records of their own, in seconds or tokens", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  const type = "conversation.item.input_audio_transcription.completed";
  upstream.send({ type, item_id: "i", transcript: "Hi", usage: { type: "duration", seconds: 2.5 } });
  await client.next(type);
  expect(await gateway.journal.settled()).toMatchObject({
    units: [{ meter: 9, quantity: 2500, source: 1 }],
    credits: parseCredits("0.015"),
    outcome: Outcome.COMPLETED,
  });
  const usage = { type: "tokens", input_tokens: 20, output_tokens: 5, input_token_details: { audio_tokens: 20 } };
  gateway.budget.free = 0n;
  upstream.send({ type, item_id: "j", transcript: "Ho", usage });
  expect((await gateway.journal.settled(2)).credits).toBe(parseCredits("0.21"));
  expect((await client.next("error"))["error"]).toMatchObject({ code: "insufficient_quota" });
  expect((await client.closed).code).toBe(1008);
});

test("a response that the upstream refuses is an error of the client's, and free", async () => {
  gateway = await startRealtimeGateway();
  gateway.upstream.auto = false;
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  client.send({ type: "response.create", event_id: "e1" });
  await upstream.next("response.create");
  const error = { type: "invalid_request_error", code: "invalid_value", message: "No.", param: "x", event_id: "e1" };
  upstream.send({ type: "error", error });
  expect((await client.next("error"))["error"]).toEqual(error);
  expect(await gateway.journal.settled()).toMatchObject({
    outcome: Outcome.CLIENT_ERROR,
    credits: 0n,
    errorCode: "invalid_value",
  });
});

test("what an upstream says of the gateway's account is not shown", async () => {
  gateway = await startRealtimeGateway();
  gateway.upstream.reply = {
    text: [],
    usage: null,
    status: "failed",
    statusDetails: {
      type: "failed",
      error: { type: "insufficient_quota", code: "insufficient_quota", message: "org-abc123456 has no quota" },
    },
  };
  const client = await gateway.connect();
  const done = await client.turn();
  expect(JSON.stringify(done)).not.toMatch(/org-|quota/);
  expect(done["response"]).toMatchObject({ status_details: { error: { code: "upstream_error" } } });
  expect(await gateway.journal.settled()).toMatchObject({ outcome: Outcome.UPSTREAM_ERROR, credits: 0n });
  expect(gateway.table.cooling()).not.toEqual(0);
});

test("a session's model is its own: the client may repeat it, and no more", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  client.send({ type: "session.update", session: { type: "realtime", model: "gpt" } });
  client.send({ type: "session.update", event_id: "e9", session: { type: "realtime", model: "dearer" } });
  client.socket.send('{"type":"input_audio_buffer.clear","type":"response.create"}');
  expect((await client.next("error"))["error"]).toMatchObject({ code: "model_change_not_supported", event_id: "e9" });
  expect((await client.next("error"))["error"]).toMatchObject({ code: "invalid_event" });
  client.send({ type: "input_audio_buffer.clear" });
  await upstream.next("input_audio_buffer.clear");
  expect(upstream.seen).toEqual([
    { type: "session.update", session: { type: "realtime", model: "up-0" } },
    { type: "input_audio_buffer.clear" },
  ]);
});

test("what cannot be written down is not begun", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  gateway.journal.accepting = false;
  client.send({ type: "response.create", event_id: "e1" });
  expect((await client.next("error"))["error"]).toMatchObject({ code: "service_unavailable", event_id: "e1" });
  gateway.journal.accepting = true;
  await client.turn();
});

test("limits of the Physical Model are held by turn, and settled with what it used", async () => {
  // Resources are made from plain fields, as the feed has them: a Unit Limit of tokens, and a Credit Limit.
  gateway = await startRealtimeGateway({ pm: { unitLimitUnit: 1, creditLimited: true } });
  const units = { free: 5_000n * 10n ** 12n };
  const credits = { free: parseCredits("100") };
  gateway.budget.limits.set("pm_0/units", units).set("pm_0/credits", credits);
  const client = await gateway.connect();
  await client.turn();
  // 132 tokens in, and 121 out.
  expect(units.free).toBe((5_000n - 253n) * 10n ** 12n);
  expect(credits.free).toBe(parseCredits("100") - USAGE_CREDITS);
  expect((await gateway.journal.settled()).limits).toEqual([
    { account: "pm_0/units", amount: 253n * 10n ** 12n },
    { account: "pm_0/credits", amount: USAGE_CREDITS },
  ]);
  // What nothing was held for counts all the same.
  const upstream = await gateway.upstream.session();
  const usage = { type: "tokens", input_tokens: 7, output_tokens: 0 };
  upstream.send({ type: "conversation.item.input_audio_transcription.completed", usage });
  await client.next("conversation.item.input_audio_transcription.completed");
  expect(units.free).toBe((5_000n - 260n) * 10n ** 12n);
  units.free = 0n;
  client.send({ type: "response.create" });
  expect((await client.next("error"))["error"]).toMatchObject({ code: "model_limit_reached" });
  await expect(gateway.connect()).rejects.toMatchObject({ status: 429, error: { code: "model_limit_reached" } });
});

test("/tokenbill is answered here, free, and only as the last message", async () => {
  gateway = await startRealtimeGateway();
  const client = await gateway.connect();
  const upstream = await gateway.upstream.session();
  const message = (text: string) => ({
    type: "conversation.item.create",
    item: { type: "message", role: "user", content: [{ type: "input_text", text }] },
  });
  gateway.budget.free = 0n;
  client.send(message(" /tokenbill "));
  await client.next("conversation.item.done");
  const done = await client.turn();
  const { output, usage } = done["response"] as { output: { content: { text: string }[] }[]; usage: unknown };
  expect(usage).toEqual({ total_tokens: 0, input_tokens: 0, output_tokens: 0 });
  const { text } = output[0]!.content[0]!;
  expect(text).toMatch(/^TokenBill VE Info\n\{/);
  expect(JSON.parse(text.slice(text.indexOf("{")))).toMatchObject({
    credit_remaining: "12.5",
    logical_models: ["gpt"],
  });
  expect(text).not.toContain(KEY);
  expect(upstream.seen).toEqual([]);
  // Once answered, or followed by another message, it is over.
  gateway.budget.free = parseCredits("10");
  client.send(message("/tokenbill"));
  client.send(message("What is /tokenbill?"));
  await client.turn();
  expect(upstream.seen.map(({ type }) => type)).toEqual(["conversation.item.create", "response.create"]);
  expect(gateway.budget.spent).toBe(USAGE_CREDITS);
});
