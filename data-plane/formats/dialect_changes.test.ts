import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { changeBody, type Splice, scanBody } from "../body.ts";
import { allDialects, type Dialect, dialectOf, ProviderDialect } from "./dialects.ts";
import { dialectChanges } from "./dialect_changes.ts";
import { applyDialect } from "./dialect_rules.ts";
import type { Json } from "./hub.ts";

const MODEL = "some-model";
type Name = keyof typeof ProviderDialect;
const of = (name: Name) => dialectOf(ProviderDialect[name], "");

function changed(dialect: Dialect, text: string, model = MODEL, max: number | null = null): string {
  const body = scanBody(Buffer.from(text));
  const more = dialectChanges(dialect, body, model);
  return changeBody(
    body,
    {
      model: "up",
      includeUsage: body.stream && dialect.streamOptions,
      outputTokensMax: max,
      outputTokensField: dialect.limit,
    },
    more,
  ).toString();
}

const splices = (name: Name, body: Json, model = MODEL): readonly Splice[] | null =>
  dialectChanges(of(name), scanBody(Buffer.from(JSON.stringify(body))), model);

const HI = [{ role: "user", content: "hi" }];

/** Dialect, model, fields besides `messages`, and what goes upstream in their place. */
const FIELDS: readonly (readonly [Name, string, Json, Json])[] = [
  [
    "GENERIC",
    MODEL,
    { max_completion_tokens: 9, tools: [], store: true },
    { max_completion_tokens: 9, tools: [], store: true },
  ],
  ["OPENAI", "gpt-4o", { max_tokens: 9, temperature: 0, store: true }, { max_tokens: 9, temperature: 0, store: true }],
  ["OPENAI", "gpt-4o", { tools: [], tool_choice: "auto", parallel_tool_calls: true }, {}],
  ["OPENAI", "o3", { max_tokens: 9 }, { max_completion_tokens: 9 }],
  ["OPENAI", "o3", { max_tokens: 9, max_completion_tokens: 7 }, { max_completion_tokens: 7 }],
  ["OPENAI", "o3", { max_tokens: 9, max_completion_tokens: null }, { max_completion_tokens: 9 }],
  ["OPENAI", "o3", { max_tokens: null }, {}],
  [
    "OPENAI",
    "gpt-5",
    {
      temperature: 0.2,
      top_p: 0.5,
      logprobs: true,
      top_logprobs: 2,
      presence_penalty: 1,
      frequency_penalty: 1,
      logit_bias: { 1: 1 },
    },
    {},
  ],
  [
    "OPENAI",
    "gpt-5",
    { temperature: 1, top_p: 1.0, logprobs: false, presence_penalty: 0, seed: 1 },
    { temperature: 1, top_p: 1, logprobs: false, presence_penalty: 0, seed: 1 },
  ],
  ["OPENAI", "gpt-5.1", { temperature: 0.2 }, { temperature: 0.2 }],
  ["OPENAI", "gpt-5.1", { temperature: 0.2, reasoning_effort: "none" }, { temperature: 0.2, reasoning_effort: "none" }],
  ["OPENAI", "gpt-5.1", { temperature: 0.2, reasoning_effort: "low" }, { reasoning_effort: "low" }],
  [
    "DEEPSEEK",
    MODEL,
    { max_completion_tokens: 9, reasoning_effort: "high" },
    { max_tokens: 9, reasoning_effort: "high" },
  ],
  ["DEEPSEEK", MODEL, { reasoning_effort: "none" }, { thinking: { type: "disabled" } }],
  ["DEEPSEEK", MODEL, { reasoning_effort: "none", thinking: { type: "enabled" } }, { thinking: { type: "enabled" } }],
  ["QWEN", MODEL, { reasoning_effort: "low" }, { enable_thinking: true, thinking_budget: 2048 }],
  ["QWEN", MODEL, { reasoning_effort: "high" }, { enable_thinking: true }],
  ["QWEN", MODEL, { reasoning_effort: "none" }, { enable_thinking: false }],
  ["QWEN", MODEL, { reasoning_effort: "low", enable_thinking: false }, { enable_thinking: false }],
  [
    "MISTRAL",
    MODEL,
    { seed: 1, user: "u", stream_options: { include_usage: true }, store: true, n: 2 },
    { random_seed: 1, n: 2 },
  ],
  ["MISTRAL", MODEL, { random_seed: 2, seed: 1 }, { random_seed: 2 }],
  [
    "MISTRAL",
    MODEL,
    { seed: 1, random_seed: 2, reasoning_effort: "low", max_completion_tokens: 9 },
    { random_seed: 2, max_tokens: 9 },
  ],
  [
    "VLLM",
    MODEL,
    { max_completion_tokens: 9, top_k: 3, reasoning_effort: "low" },
    { max_completion_tokens: 9, top_k: 3, reasoning_effort: "low" },
  ],
  ["OLLAMA", MODEL, { max_completion_tokens: 9, tools: [] }, { max_tokens: 9, tools: [] }],
  [
    "OPENROUTER",
    MODEL,
    { max_tokens: 9, reasoning: { effort: "low" } },
    { max_tokens: 9, reasoning: { effort: "low" } },
  ],
  [
    "GROQ",
    MODEL,
    { logprobs: true, logit_bias: {}, store: false, service_tier: "flex", max_tokens: 9 },
    { service_tier: "flex", max_tokens: 9 },
  ],
  ["XAI", MODEL, { tools: [], max_tokens: 9 }, { max_tokens: 9 }],
  ["TOGETHER", MODEL, { max_completion_tokens: 9, top_k: 3 }, { max_tokens: 9, top_k: 3 }],
];

const CALL = { id: "call_abc", type: "function", function: { name: "f", arguments: "{}" } };
const RICH = [
  { role: "developer", content: "be brief", name: "n" },
  { role: "user", content: [{ type: "text", text: "hi", cache_control: { type: "ephemeral" } }] },
  {
    role: "assistant",
    content: null,
    tool_calls: [CALL],
    thinking_blocks: [{ type: "thinking", thinking: "t", signature: "s" }],
  },
  { role: "tool", tool_call_id: "call_abc", content: "ok" },
  { role: "assistant", content: "done", reasoning_content: "why", refusal: null, annotations: [] },
];

describe("dialectChanges", () => {
  test.each(FIELDS)("%s %s %j", (name, model, fields, wanted) => {
    const text = changed(of(name), JSON.stringify({ model: "m", messages: HI, ...fields }), model);
    expect(JSON.parse(text)).toEqual({ model: "up", messages: HI, ...wanted });
  });

  test("messages of each dialect", () => {
    const seen = Object.fromEntries(
      allDialects().map((dialect) => {
        const { messages } = JSON.parse(changed(dialect, JSON.stringify({ model: "m", messages: RICH }))) as {
          messages: Json[];
        };
        const keys = messages.flatMap((message) => Object.keys(message));
        const extra = ["name", "thinking_blocks", "reasoning_content", "refusal"].filter((key) => keys.includes(key));
        return [dialect.title, [messages[0]!["role"], ...extra, JSON.stringify(messages).includes("cache_control")]];
      }),
    );
    const everything = ["name", "thinking_blocks", "reasoning_content", "refusal", true];
    expect(seen).toEqual({
      Generic: ["developer", ...everything],
      OpenAI: ["developer", "name", "refusal", false],
      DeepSeek: ["system", "name", "reasoning_content", "refusal", false],
      "Qwen (DashScope)": ["system", "name", "reasoning_content", "refusal", true],
      Mistral: ["system", false],
      vLLM: ["system", ...everything],
      Ollama: ["system", ...everything],
      OpenRouter: ["developer", ...everything],
      Groq: ["system", false],
      xAI: ["developer", "name", "reasoning_content", "refusal", false],
      Together: ["system", ...everything],
    });
  });

  test("what must go from parts alone is found", () => {
    const part = { type: "text", text: "hi" };
    const marked = [{ role: "user", content: [part, { ...part, cache_control: { type: "ephemeral" } }] }];
    const { messages } = JSON.parse(changed(of("OPENAI"), JSON.stringify({ model: "m", messages: marked })));
    expect(messages).toEqual([{ role: "user", content: [part, part] }]);
  });

  test("DeepSeek wants reasoning with tool calls, and only there", () => {
    const { messages } = JSON.parse(changed(of("DEEPSEEK"), JSON.stringify({ model: "m", messages: RICH })));
    expect(messages[2]).toEqual({ role: "assistant", content: null, tool_calls: [CALL], reasoning_content: "" });
    expect(messages[4]).toEqual({ role: "assistant", content: "done", refusal: null, annotations: [] });
  });

  test("Mistral's ids of tool calls are nine letters or digits, the same ones in calls and results", () => {
    const { messages } = JSON.parse(changed(of("MISTRAL"), JSON.stringify({ model: "m", messages: RICH })));
    const id = messages[2].tool_calls[0].id as string;
    expect(id).toMatch(/^[A-Za-z0-9]{9}$/);
    expect(messages[3].tool_call_id).toBe(id);
    const kept = [{ role: "tool", tool_call_id: "abcDEF123", content: "" }];
    expect(splices("MISTRAL", { model: "m", messages: kept })).toBeNull();
  });

  test("a body that needs nothing is left alone", () => {
    const body = {
      model: "m",
      messages: [...HI, { role: "assistant", content: "ho" }],
      temperature: 0.3,
      max_tokens: 5,
    };
    for (const dialect of allDialects())
      expect(dialectChanges(dialect, scanBody(Buffer.from(JSON.stringify(body))), MODEL), dialect.title).toBeNull();
    const talk = { model: "m", messages: [{ role: "user", content: 'say "developer", "name", "tools":[] twice' }] };
    for (const dialect of allDialects())
      expect(dialectChanges(dialect, scanBody(Buffer.from(JSON.stringify(talk))), MODEL), dialect.title).toBeNull();
  });

  test("every other byte stays as it came", () => {
    const text =
      '{ "seed" : 1,\n "model":"m", "x": 1.0e2, "user":"u" , "messages":[ {"role":"user","content":"\\u0068i"} ] }';
    expect(changed(of("MISTRAL"), text)).toBe(
      '{ "random_seed" : 1,\n "model":"up", "x": 1.0e2, "messages":[ {"role":"user","content":"\\u0068i"} ] }',
    );
  });

  test("a limit that goes takes its clamp along", () => {
    const text = '{"model":"m","max_tokens":50,"messages":[],"max_completion_tokens":70}';
    expect(changed(of("OPENAI"), text, "o3", 20)).toBe('{"model":"up","messages":[],"max_completion_tokens":20}');
    expect(changed(of("TOGETHER"), '{"model":"m","max_completion_tokens":70}', MODEL, 20)).toBe(
      '{"model":"up","max_tokens":20}',
    );
    expect(changed(of("TOGETHER"), '{"model":"m","max_completion_tokens":null}', MODEL, 20)).toBe(
      '{"max_tokens":20,"model":"up"}',
    );
  });

  test("fields that came twice and must go leave no comma behind", () => {
    const text = '{"model":"m","user":"a","store":true,"user":"b"}';
    expect(changed(of("MISTRAL"), text)).toBe('{"model":"up"}');
    const twice = '{"user":"a","user":"b","max_completion_tokens":1,"max_completion_tokens":2,"model":"m"}';
    expect(changed(of("MISTRAL"), twice)).toBe('{"max_tokens":2,"model":"up"}');
  });

  test("what cannot be read is left to the upstream", () => {
    const text = '{"model":"m","messages":[{"role":"developer","content":"\\q"}]}';
    expect(changed(of("VLLM"), text)).toBe(text.replace('"m"', '"up"'));
  });
});

const value = fc.constantFrom<unknown>(
  null,
  0,
  1,
  0.5,
  12,
  true,
  false,
  "none",
  "low",
  "high",
  "auto",
  {},
  { type: "disabled" },
  [],
);
const part = fc.record(
  { type: fc.constant("text"), text: fc.string(), cache_control: fc.constant({ type: "ephemeral" }) },
  { requiredKeys: ["type", "text"] },
);
const message = fc.record(
  {
    role: fc.constantFrom("developer", "system", "user", "assistant", "tool"),
    content: fc.oneof(fc.string(), fc.constant(null), fc.array(part, { maxLength: 2 })),
    name: fc.string(),
    reasoning_content: fc.oneof(fc.string(), fc.constant(null)),
    thinking_blocks: fc.constant([{ type: "thinking", thinking: "t", signature: "s" }]),
    tool_calls: fc.array(fc.record({ id: fc.string(), type: fc.constant("function") }), { maxLength: 2 }),
    tool_call_id: fc.string(),
  },
  { requiredKeys: ["role"] },
);
const topKeys = [
  "seed",
  "random_seed",
  "user",
  "store",
  "temperature",
  "top_p",
  "logprobs",
  "tools",
  "tool_choice",
  "reasoning_effort",
  "thinking",
  "enable_thinking",
  "thinking_budget",
  "other",
];
const limits = fc.record(
  { max_tokens: fc.constantFrom(null, 3, 900), max_completion_tokens: fc.constantFrom(null, 5, 800) },
  { requiredKeys: [] },
);
const chat = fc
  .tuple(
    fc.dictionary(fc.constantFrom(...topKeys), value),
    limits,
    fc.record({ messages: fc.array(message, { maxLength: 4 }) }, { requiredKeys: [] }),
    fc.nat(9),
  )
  .map(([fields, limit, messages, turn]) => {
    const members = Object.entries({ model: "m", ...fields, ...limit, ...messages });
    return Object.fromEntries([...members.slice(turn % members.length), ...members.slice(0, turn % members.length)]);
  });

test("bytes and parsed JSON are changed alike", () => {
  const model = fc.constantFrom("gpt-4o", "o3", "gpt-5.1", "mistral-small");
  const spaces = fc.constantFrom(undefined, 1);
  fc.assert(
    fc.property(fc.constantFrom(...allDialects()), chat, model, spaces, (dialect, request, name, space) => {
      const wanted = applyDialect(dialect, { ...request, model: "up" }, name);
      expect(JSON.parse(changed(dialect, JSON.stringify(request, null, space), name))).toEqual(
        JSON.parse(JSON.stringify(wanted)),
      );
      // A second time nothing is left to do.
      expect(applyDialect(dialect, wanted, name)).toEqual(wanted);
    }),
    { numRuns: 400 },
  );
});

test("fields that came twice do not confuse it", () => {
  const limit = fc.tuple(
    fc.constantFrom("max_tokens", "max_completion_tokens"),
    fc.constantFrom<unknown>(1, 700, null),
  );
  const other = fc.tuple(fc.constantFrom("user", "tools", "seed", "store", "x"), fc.constantFrom<unknown>("a", []));
  const name = fc.constant<[string, unknown]>(["model", "m"]);
  const members = fc
    .tuple(fc.array(fc.oneof(limit, other, name), { maxLength: 7 }), fc.nat(7))
    .map(([list, at]) => list.toSpliced(at, 0, ["model", "m"]));
  fc.assert(
    fc.property(fc.constantFrom(...allDialects()), members, fc.constantFrom("o3", "m"), (dialect, list, model) => {
      const text = `{${list.map(([key, each]) => `${JSON.stringify(key)} : ${JSON.stringify(each)}`).join(" , ")}}`;
      const wanted = applyDialect(dialect, { ...(JSON.parse(text) as Json), model: "up" }, model);
      expect(JSON.parse(changed(dialect, text, model))).toEqual(wanted);
    }),
    { numRuns: 300 },
  );
});
