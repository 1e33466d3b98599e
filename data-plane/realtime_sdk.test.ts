/** The official SDK's realtime client against the gateway. */

import { connect } from "node:net";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { afterEach, expect, test } from "vitest";
import { type RealtimeGateway, startRealtimeGateway, USAGE_CREDITS } from "./realtime/testing.ts";
import { CHECKOUT, KEY } from "./testing.ts";

let gateway: RealtimeGateway;
afterEach(() => gateway.close());

/** The SDK speaks `wss:` only; here its connection goes without TLS. */
function realtime(): OpenAIRealtimeWS {
  const { hostname, port } = new URL(gateway.url);
  const client = new OpenAI({ apiKey: KEY, baseURL: `http://${hostname}:${port}/v1` });
  const createConnection = (() => connect(Number(port), hostname)) as never;
  return new OpenAIRealtimeWS({ model: "gpt", options: { createConnection } }, client);
}

test("a conversation: session, text and audio, usage", async () => {
  gateway = await startRealtimeGateway();
  gateway.upstream.reply = { audio: ["AAAA"] };
  const rt = realtime();
  const failed: unknown[] = [];
  rt.on("error", (error) => failed.push(error));
  await new Promise((resolve) => rt.on("session.created", resolve));
  rt.send({ type: "session.update", session: { type: "realtime", model: "gpt", instructions: "Be brief." } });
  const content = [{ type: "input_text" as const, text: "Hello" }];
  rt.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  let text = "";
  let audio = "";
  rt.on("response.output_text.delta", ({ delta }) => (text += delta));
  rt.on("response.output_audio.delta", ({ delta }) => (audio += delta));
  const done = new Promise<number | undefined>((resolve) =>
    rt.on("response.done", ({ response }) => resolve(response.usage?.output_tokens)),
  );
  rt.send({ type: "response.create" });
  expect(await done).toBe(121);
  expect({ text, audio }).toEqual({ text: "Hello", audio: "AAAA" });
  expect((await gateway.journal.settled()).credits).toBe(USAGE_CREDITS);
  expect(failed).toEqual([]);
  rt.close();
});

test("an empty wallet is a typed error with the link", async () => {
  gateway = await startRealtimeGateway();
  const rt = realtime();
  const failed = new Promise<{ error?: { code?: string | null; message?: string } | undefined }>((resolve) =>
    rt.on("error", resolve),
  );
  await new Promise((resolve) => rt.on("session.created", resolve));
  gateway.budget.free = 0n;
  rt.send({ type: "response.create" });
  const { error } = await failed;
  expect(error?.code).toBe("insufficient_quota");
  expect(error?.message).toContain(CHECKOUT);
  rt.close();
});
