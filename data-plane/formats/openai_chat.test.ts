/** Requests of the hub for servers that speak OpenAI's format: what the hub has beyond it, and what each dialect takes. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { azureDialect } from "./azure.ts";
import { allDialects, type Dialect, dialectOf, ProviderDialect } from "./dialects.ts";
import { dialectRequest } from "./dialect_request.ts";
import { applyDialect } from "./dialect_rules.ts";
import type { HubTarget, Json } from "./hub.ts";
import { ProviderFormat, type RouteProvider } from "../route_types.ts";
import { NO_ACCOUNT } from "../route_account.ts";
import { openAiChatRequest, providerDialect } from "./openai_chat.ts";

type Name = keyof typeof ProviderDialect;
const of = (name: Name) => dialectOf(ProviderDialect[name], "");
const TARGET: HubTarget = { model: "up", family: "", maxOutputTokens: 0, apiVersion: "", stream: false };
const HI = [{ role: "user", content: "hi" }];

function sent(dialect: Dialect, chat: Json, target: Partial<HubTarget> = {}): Json {
  return openAiChatRequest({ model: "lm", messages: HI, ...chat }, { ...TARGET, ...target }, dialect).body;
}

/** Without what is the same everywhere. */
function fields(name: Name, chat: Json, family = ""): Json {
  const { model: _, messages: __, ...rest } = sent(of(name), chat, { family });
  return rest;
}

describe("openAiChatRequest", () => {
  test("names the model and the path", () => {
    const call = openAiChatRequest({ model: "lm", messages: HI, stream: true }, TARGET, of("GENERIC"));
    expect(call).toEqual({ path: "/chat/completions", headers: [], body: { model: "up", messages: HI } });
  });

  test.each<[Dialect, Json, Json]>([
    [of("GENERIC"), {}, { stream: true, stream_options: { include_usage: true } }],
    [
      of("OPENAI"),
      { stream_options: { include_obfuscation: false } },
      { stream: true, stream_options: { include_obfuscation: false, include_usage: true } },
    ],
    [of("MISTRAL"), { stream_options: { include_usage: true } }, { stream: true }],
    [azureDialect("2024-06-01"), {}, { stream: true }],
    [azureDialect("2024-10-21"), {}, { stream: true, stream_options: { include_usage: true } }],
  ])("asks for usage in streams", (dialect, chat, wanted) => {
    expect(sent(dialect, chat, { stream: true })).toEqual({ model: "up", messages: HI, ...wanted });
  });

  test("the family says what a model is, else its name", () => {
    const chat = { max_tokens: 5, temperature: 0.1 };
    expect(sent(of("OPENAI"), chat, { model: "my-deployment", family: "o3" })).toMatchObject({
      max_completion_tokens: 5,
      model: "my-deployment",
    });
    expect(sent(of("OPENAI"), chat, { model: "o3" })).not.toHaveProperty("temperature");
    expect(sent(of("OPENAI"), chat, { model: "my-deployment" })).toHaveProperty("temperature");
  });
});

test("a Provider's dialect follows what changes in place", () => {
  const provider = {
    format: ProviderFormat.OPENAI as number,
    origin: "https://api.openai.com",
    baseQuery: "",
    account: NO_ACCOUNT,
  } as RouteProvider;
  const titles = [providerDialect(provider).title, providerDialect(provider).title];
  provider.origin = "https://api.mistral.ai";
  titles.push(providerDialect(provider).title);
  provider.account = { ...NO_ACCOUNT, dialect: ProviderDialect.VLLM };
  titles.push(providerDialect(provider).title);
  provider.format = ProviderFormat.AZURE_OPENAI;
  titles.push(providerDialect(provider).title);
  provider.baseQuery = "?api-version=2024-06-01";
  titles.push(providerDialect(provider).title);
  const old = "Azure OpenAI before 2024-09-01-preview";
  expect(titles).toEqual(["OpenAI", "OpenAI", "Mistral", "vLLM", "OpenAI", old]);
});

describe("fields", () => {
  const budget = (tokens: number) => ({ thinking: { type: "enabled", budget_tokens: tokens } });
  const off = { thinking: { type: "disabled" } };
  const adaptive = { thinking: { type: "adaptive" } };
  test.each<[Name, Json, Json, string?]>([
    // Limits.
    ["GENERIC", { max_completion_tokens: 5 }, { max_tokens: 5 }],
    ["OPENAI", { max_tokens: 5 }, { max_completion_tokens: 5 }],
    ["GROQ", { max_tokens: 5 }, { max_completion_tokens: 5 }],
    ["MISTRAL", { max_completion_tokens: 5, max_tokens: null }, { max_tokens: 5 }],
    // Thinking.
    ["GENERIC", budget(1024), { reasoning_effort: "low" }],
    ["GENERIC", budget(8192), { reasoning_effort: "medium" }],
    ["GENERIC", budget(8193), { reasoning_effort: "high" }],
    ["GENERIC", adaptive, { reasoning_effort: "high" }],
    ["GENERIC", { ...adaptive, reasoning_effort: "low" }, { reasoning_effort: "low" }],
    ["GENERIC", { ...adaptive, reasoning_effort: "max" }, { reasoning_effort: "high" }],
    ["GENERIC", off, {}],
    ["GENERIC", { ...off, reasoning_effort: "high" }, {}],
    ["GENERIC", { reasoning_effort: "none" }, { reasoning_effort: "none" }],
    ["OPENAI", budget(9000), { reasoning_effort: "high" }, "o3"],
    ["OPENAI", budget(9000), {}, "gpt-4o"],
    ["OPENAI", off, {}, "o3"],
    ["OPENAI", off, { reasoning_effort: "none" }, "gpt-5.1"],
    ["OPENAI", { reasoning_effort: "xhigh" }, { reasoning_effort: "xhigh" }, "gpt-5.2"],
    ["OLLAMA", off, { reasoning_effort: "none" }],
    ["DEEPSEEK", off, off],
    ["DEEPSEEK", budget(1000), { thinking: { type: "enabled" }, reasoning_effort: "low" }],
    ["DEEPSEEK", { reasoning_effort: "none" }, off],
    ["QWEN", budget(1000), { enable_thinking: true, thinking_budget: 1000 }],
    ["QWEN", adaptive, { enable_thinking: true }],
    ["QWEN", { ...adaptive, reasoning_effort: "low" }, { enable_thinking: true, thinking_budget: 2048 }],
    ["QWEN", off, { enable_thinking: false }],
    ["MISTRAL", budget(1000), {}],
    // What only some know.
    ["GENERIC", { top_k: 5, store: false, metadata: {}, prompt_cache_key: "k", user: "u" }, { user: "u" }],
    [
      "OPENAI",
      { top_k: 5, store: false, metadata: {}, prompt_cache_key: "k" },
      { store: false, metadata: {}, prompt_cache_key: "k" },
    ],
    ["VLLM", { top_k: 5 }, { top_k: 5 }],
    ["OPENROUTER", { top_k: 5 }, { top_k: 5 }],
    ["GENERIC", { tools: [], tool_choice: "auto" }, {}],
    ["GENERIC", { tools: [{ type: "function", cache_control: {} }] }, { tools: [{ type: "function" }] }],
    [
      "OPENROUTER",
      { tools: [{ type: "function", cache_control: {} }] },
      { tools: [{ type: "function", cache_control: {} }] },
    ],
  ])("%s %j: %j %s", (name, chat, wanted, family) => {
    expect(fields(name, chat, family)).toEqual(wanted);
  });
});

describe("messages", () => {
  const IMAGE = { type: "image_url", image_url: { url: "data:image/png;base64,AA==" } };
  const text = (words: string) => ({ type: "text", text: words });
  const calls = [{ id: "call_1", type: "function", function: { name: "f", arguments: "{}" } }];
  const messages = (name: Name, list: readonly Json[]) => sent(of(name), { messages: list })["messages"];

  const THOUGHT = {
    role: "assistant",
    content: "done",
    thinking_blocks: [
      { type: "thinking", thinking: "a", signature: "s" },
      { type: "redacted_thinking", data: "x" },
      { type: "thinking", thinking: "b", signature: "s" },
    ],
  };

  test("thoughts go back where they are wanted", () => {
    const history = [
      THOUGHT,
      { ...THOUGHT, tool_calls: calls },
      { ...THOUGHT, tool_calls: calls, reasoning_content: "r" },
    ];
    const plain = { role: "assistant", content: "done" };
    expect(messages("OPENAI", history)).toEqual([
      plain,
      { ...plain, tool_calls: calls },
      { ...plain, tool_calls: calls },
    ]);
    expect(messages("DEEPSEEK", history)).toEqual([
      plain,
      { ...plain, tool_calls: calls, reasoning_content: "ab" },
      { ...plain, tool_calls: calls, reasoning_content: "r" },
    ]);
    expect(messages("OPENROUTER", history)).toEqual([
      { ...plain, reasoning: "ab" },
      { ...plain, tool_calls: calls, reasoning: "ab" },
      { ...plain, tool_calls: calls, reasoning: "r" },
    ]);
  });

  test("what tools show comes after all their results, before what the user says", () => {
    const history = [
      { role: "assistant", content: null, tool_calls: calls },
      { role: "tool", tool_call_id: "1", content: [text("a"), IMAGE, text("b")] },
      { role: "tool", tool_call_id: "2", content: [IMAGE], is_error: true },
    ];
    const results = [
      history[0],
      { role: "tool", tool_call_id: "1", content: "a\nb" },
      { role: "tool", tool_call_id: "2", content: "Error: " },
    ];
    expect(messages("GENERIC", history)).toEqual([...results, { role: "user", content: [IMAGE, IMAGE] }]);
    expect(messages("GENERIC", [...history, { role: "user", content: "and?" }])).toEqual([
      ...results,
      { role: "user", content: [IMAGE, IMAGE, text("and?")] },
    ]);
    expect(messages("GENERIC", [...history, { role: "assistant", content: "ok" }, ...HI])).toEqual([
      ...results,
      { role: "user", content: [IMAGE, IMAGE] },
      { role: "assistant", content: "ok" },
      ...HI,
    ]);
  });

  test("a failed tool says so", () => {
    const history = [{ role: "tool", tool_call_id: "1", content: "no such file", is_error: true }];
    expect(messages("OPENAI", history)).toEqual([{ role: "tool", tool_call_id: "1", content: "Error: no such file" }]);
  });

  test("marks for caches stay only where they mean something", () => {
    const marked = [
      { role: "system", content: [{ ...text("s"), cache_control: { type: "ephemeral" } }], cache_control: {} },
    ];
    expect(messages("OPENAI", marked)).toEqual([{ role: "system", content: [text("s")] }]);
    expect(messages("QWEN", marked)).toEqual(marked);
  });

  test("the developer becomes the system where that is not known", () => {
    const role = (name: Name) => (messages(name, [{ role: "developer", content: "d" }]) as Json[])[0]!["role"];
    expect([role("OPENAI"), role("XAI"), role("GENERIC"), role("MISTRAL")]).toEqual([
      "developer",
      "developer",
      "system",
      "system",
    ]);
  });
});

test("a request without extensions needs only the dialect's own rules", () => {
  const message = fc.record(
    {
      role: fc.constantFrom("system", "user", "assistant", "tool"),
      content: fc.string(),
      name: fc.string(),
      tool_call_id: fc.string(),
    },
    { requiredKeys: ["role", "content"] },
  );
  const chat = fc.record(
    {
      model: fc.constant("m"),
      messages: fc.array(message, { maxLength: 4 }),
      max_tokens: fc.nat(),
      temperature: fc.constantFrom(0, 1),
      seed: fc.nat(),
      reasoning_effort: fc.constantFrom("none", "low", "high"),
      tools: fc.constantFrom([], [{ type: "function" }]),
      tool_choice: fc.constant("auto"),
    },
    { requiredKeys: ["model", "messages"] },
  );
  const models = fc.constantFrom("gpt-4o", "o3", "mistral-small");
  fc.assert(
    fc.property(fc.constantFrom(...allDialects().slice(1)), chat, models, (dialect, request, model) => {
      const { max_tokens: limit, ...rest } = applyDialect(dialect, request, model) as { max_tokens?: number };
      const wanted = limit === undefined ? rest : { ...rest, [dialect.limit]: limit };
      expect(dialectRequest(dialect, request, model)).toEqual(wanted);
      // The input is not touched.
      expect(dialectRequest(dialect, structuredClone(request), model)).toEqual(wanted);
    }),
    { numRuns: 300 },
  );
});
