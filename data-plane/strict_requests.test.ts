import { afterEach, describe, expect, test } from "vitest";
import type { ClientShape } from "./formats/format.ts";
import { strictView } from "./strict_requests.ts";
import { type Gateway, startGateway } from "./testing.ts";
import { IMAGE_TOKENS_MAX } from "./tokenizer/media.ts";

const paramOf = (shape: ClientShape, body: Record<string, unknown>) =>
  strictView(shape, body).refusal?.fields.param ?? null;
const user = (...content: unknown[]) => [{ role: "user", content }];

describe("what cannot be held for", () => {
  test.each<[string, ClientShape, Record<string, unknown>, string | null]>([
    ["a stored context", "responses", { input: "Hi", previous_response_id: "resp_1" }, "previous_response_id"],
    ["none", "responses", { input: "Hi", previous_response_id: null }, null],
    ["a stored item", "responses", { input: [{ type: "item_reference", id: "msg_1" }] }, "input[0]"],
    ["a tool of the upstream", "responses", { tools: [{ type: "function" }, { type: "web_search" }] }, "tools[1].type"],
    ["tools of the client", "responses", { tools: [{ type: "function" }, { type: "custom" }] }, null],
    ["a server tool", "messages", { tools: [{ name: "f" }, { type: "web_search_20250305" }] }, "tools[1].type"],
    ["searches", "chat", { web_search_options: {} }, "web_search_options"],
    ["a stored file", "chat", { messages: user({ type: "file", file: { file_id: "f" } }) }, "messages[0].content[0]"],
    ["a file with its data", "chat", { messages: user({ type: "file", file: { file_data: "data:" } }) }, null],
    [
      "a remote document",
      "messages",
      { messages: user({ type: "document", source: { type: "url" } }) },
      "messages[0].content[0]",
    ],
  ])("%s", (_, shape, body, param) => {
    expect(paramOf(shape, body)).toBe(param);
  });

  test("images are held for, wherever they stand", () => {
    const image = { type: "image", source: { type: "url", url: "https://x.example/a.png" } };
    const result = { type: "tool_result", content: [image, { type: "text", text: "image" }] };
    expect(strictView("messages", { messages: user(image, result) }).imageTokens).toBe(2 * IMAGE_TOKENS_MAX);
    expect(strictView("chat", { messages: [{ role: "user", content: "image" }] }).imageTokens).toBe(0);
  });
});

describe("at a VE", () => {
  let gateway: Gateway;
  afterEach(() => gateway.close());
  const part = { type: "image_url", image_url: { url: "https://x.example/a.png" } };

  test("STRICT refuses before anything is sent, and holds for images", async () => {
    gateway = await startGateway({ ve: { budgetMode: 2 } });
    const answer = await gateway.chat({ web_search_options: {} });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { param: "web_search_options" } });
    expect((await gateway.chat({ max_tokens: 10, messages: user(part) })).status).toBe(200);
    expect(gateway.budget.reservations[0]!.held).toBeGreaterThan(BigInt(IMAGE_TOKENS_MAX) * 10n ** 9n);
  });

  test("BALANCED takes both", async () => {
    gateway = await startGateway();
    expect((await gateway.chat({ web_search_options: {}, max_tokens: 10, messages: user(part) })).status).toBe(200);
  });
});
