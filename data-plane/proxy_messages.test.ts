/** Anthropic's own SDK against a VE, whatever stands behind it. */

import Anthropic from "@anthropic-ai/sdk";
import { afterEach, describe, expect, test } from "vitest";
import { CHECKOUT, type Gateway, type GatewayOptions, KEY, startGateway, VE } from "./testing.ts";
import { chunk, DONE, error, json, sse, streamText } from "./testing_upstream.ts";

let gateway: Gateway;
let client: Anthropic;

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway(options);
  client = new Anthropic({ authToken: KEY, apiKey: null, baseURL: gateway.url, maxRetries: 0 });
}

afterEach(() => gateway.close());

const ASK = { model: "gpt", max_tokens: 100, messages: [{ role: "user" as const, content: "Hi" }] };
const USAGE = {
  prompt_tokens: 20,
  completion_tokens: 7,
  total_tokens: 27,
  prompt_tokens_details: { cached_tokens: 5 },
  completion_tokens_details: { reasoning_tokens: 3 },
};
/** `[meter, quantity]` of the only record. */
const units = () => gateway.journal.settlements[0]!.units.map(({ meter, quantity }) => [meter, quantity]);

describe("an upstream of OpenAI's format", () => {
  test("answers a message, and is billed by what it reports", async () => {
    await start();
    gateway.upstreams[0]!.next(
      json(200, {
        choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }],
        usage: USAGE,
      }),
    );
    const message = await client.messages.create({ ...ASK, system: "Be brief", metadata: { user_id: "u1" } });
    expect(message).toMatchObject({
      type: "message",
      role: "assistant",
      model: "gpt",
      content: [{ type: "text", text: "Hello" }],
      stop_reason: "end_turn",
      usage: { input_tokens: 15, cache_read_input_tokens: 5, output_tokens: 7 },
    });
    expect(message._request_id).toMatch(/^usg_/);
    const seen = gateway.upstreams[0]!.seen[0]!;
    expect(seen.path).toBe("/v1/chat/completions");
    expect(seen.headers["authorization"]).toBe("Bearer sk-upstream-secret-0");
    expect(seen.body).toMatchObject({
      model: "up-0",
      max_tokens: 100,
      messages: [
        { role: "system", content: "Be brief" },
        { role: "user", content: "Hi" },
      ],
    });
    expect(units()).toEqual([
      [1, 15],
      [2, 5],
      [4, 4],
      [5, 3],
      [11, 1],
    ]);
    expect(gateway.journal.settlements[0]).toMatchObject({ endpoint: 5, outcome: 1, httpStatus: 200 });
  });

  test("streams", async () => {
    await start();
    gateway.upstreams[0]!.next(sse(streamText(["Hel", "lo"], USAGE)));
    const stream = client.messages.stream(ASK);
    const message = await stream.finalMessage();
    expect(message.content).toMatchObject([{ type: "text", text: "Hello" }]);
    expect(message.usage).toMatchObject({ input_tokens: 15, output_tokens: 7 });
    expect(gateway.upstreams[0]!.seen[0]!.body).toMatchObject({
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(units()).toContainEqual([4, 4]);
  });

  test("parallel tools come as blocks of their own", async () => {
    await start();
    const call = (index: number, id: string, name: string) => ({
      tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }],
    });
    const args = (index: number, text: string) => ({ tool_calls: [{ index, function: { arguments: text } }] });
    gateway.upstreams[0]!.next(
      sse([
        chunk({ role: "assistant", content: null }),
        chunk(call(0, "call_a", "f")),
        chunk(call(1, "call_b", "g")),
        chunk(args(0, '{"a"')),
        chunk(args(1, '{"b":2}')),
        chunk(args(0, ":1}")),
        chunk({}, "tool_calls"),
        chunk(null, null, USAGE),
        DONE,
      ]),
    );
    const tools = ["f", "g"].map((name) => ({ name, input_schema: { type: "object" as const } }));
    const message = await client.messages.stream({ ...ASK, tools }).finalMessage();
    expect(message).toMatchObject({
      stop_reason: "tool_use",
      content: [
        { type: "tool_use", id: "call_a", name: "f", input: { a: 1 } },
        { type: "tool_use", id: "call_b", name: "g", input: { b: 2 } },
      ],
    });
  });

  test("that breaks in the middle raises the SDK's error, and what came is billed", async () => {
    await start();
    gateway.upstreams[0]!.next(sse([chunk({ role: "assistant", content: "Once upon" })], "break"));
    await expect(client.messages.stream(ASK).finalMessage()).rejects.toThrow("broke off");
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: 3 });
    expect(gateway.journal.settlements[0]!.credits).toBeGreaterThan(0n);
  });

  test("that falls over before any content is not seen", async () => {
    await start({ upstreams: 2 });
    gateway.upstreams[0]!.next(error(500));
    const message = await client.messages.create(ASK);
    expect(message.content[0]).toMatchObject({ type: "text" });
    expect(gateway.journal.settlements[0]!.attempts).toHaveLength(2);
  });
});

describe("errors", () => {
  test.each([
    ["an unknown model", { ...ASK, model: "none" }, 404, "not_found_error"],
    ["a missing limit", { model: "gpt", messages: ASK.messages }, 400, "invalid_request_error"],
    [
      "a tool that runs at Anthropic",
      { ...ASK, tools: [{ type: "bash_20250124", name: "bash" }] },
      400,
      "invalid_request_error",
    ],
  ])("%s", async (_, body, status, type) => {
    await start();
    const answer = await gateway.post("/v1/messages", body, { "anthropic-version": "2023-06-01" });
    expect(answer.status).toBe(status);
    expect(await answer.json()).toMatchObject({
      type: "error",
      error: { type },
      request_id: expect.stringMatching(/^usg_/),
    });
    expect(answer.headers.get("request-id")).toMatch(/^usg_/);
  });

  test("what others may have stored at the upstream cannot be named, where bytes pass through either", async () => {
    await start({ provider: { format: 3 } });
    const file = { type: "image", source: { type: "file", file_id: "file_1" } };
    const content = [{ type: "tool_result", tool_use_id: "t", content: [file] }];
    for (const [fields, param] of [
      [{ container: "container_1" }, "container"],
      [{ messages: [{ role: "user", content }] }, "messages[0].content[0].content[0].source.file_id"],
    ] as const) {
      const answer = await gateway.post("/v1/messages", { ...ASK, ...fields });
      expect(answer.status).toBe(400);
      expect(JSON.stringify(await answer.json())).toContain(param);
    }
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  });

  test("a wrong key", async () => {
    await start();
    const other = new Anthropic({ apiKey: "nope", baseURL: gateway.url, maxRetries: 0 });
    await expect(other.messages.create(ASK)).rejects.toThrow(Anthropic.AuthenticationError);
  });

  test("an empty wallet, with its link", async () => {
    await start();
    gateway.budget.free = 0n;
    const thrown = await client.messages
      .create(ASK)
      .catch((reason: unknown) => reason as InstanceType<typeof Anthropic.APIError>);
    expect(thrown).toBeInstanceOf(Anthropic.RateLimitError);
    expect((thrown as Error).message).toContain(CHECKOUT);
    expect((thrown as { error: unknown }).error).toMatchObject({ error: { checkout_url: CHECKOUT } });
    expect((thrown as { headers: Headers }).headers.get("x-should-retry")).toBe("false");
  });

  test("a stricter version of the API refuses what it refuses at Anthropic", async () => {
    await start();
    const strict = { "anthropic-version": "2026-10-21" };
    const answer = await gateway.post("/v1/messages", { ...ASK, temperature: 1 }, strict);
    expect(answer.status).toBe(400);
    expect(JSON.stringify(await answer.json())).toContain("temperature");
  });
});

describe("without any upstream", () => {
  test("the Magic Command, also with an empty wallet", async () => {
    await start();
    gateway.budget.free = 0n;
    const messages = [{ role: "user" as const, content: [{ type: "text" as const, text: " /tokenbill " }] }];
    const whole = await client.messages.create({ ...ASK, messages });
    expect(whole.content[0]).toMatchObject({ type: "text", text: expect.stringContaining(VE) });
    const streamed = await client.messages.stream({ ...ASK, messages }).finalMessage();
    expect(streamed.content).toEqual(whole.content);
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  });

  test("a cache that should be warmed", async () => {
    await start();
    const message = await client.messages.create({ ...ASK, max_tokens: 0 });
    expect(message).toMatchObject({ stop_reason: "max_tokens", usage: { output_tokens: 0 } });
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  });

  test("tokens are counted, and models listed", async () => {
    await start();
    const { model, messages } = ASK;
    expect((await client.messages.countTokens({ model, messages })).input_tokens).toBeGreaterThan(0);
    const models = await client.models.list();
    expect(models.data).toMatchObject([{ type: "model", id: "gpt" }]);
    await expect(client.models.retrieve("none")).rejects.toThrow(Anthropic.NotFoundError);
  });
});
