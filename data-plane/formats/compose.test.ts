/** Requests and answers from end to end, as bridges put them together: client, hub, upstream and back. */

import { describe, expect, test } from "vitest";
import { Meter } from "../../core/meters.ts";
import { scanBody } from "../body.ts";
import { CHAT, COMPLETIONS, MESSAGES, RESPONSES } from "../endpoints.ts";
import { RouteTable } from "../route_table.ts";
import { ModelApi, type RoutePm } from "../route_types.ts";
import { unitsFromUsage } from "../meter.ts";
import { parseFrame, type SseEvent } from "../sse.ts";
import { gatewayResources, snapshot, VE } from "../testing.ts";
import type { Asked, EndpointSpec } from "./format.ts";
import { bridgeOf } from "./index.ts";
import { blockOfItem } from "./responses/reasoning.ts";

interface Target {
  readonly format: number;
  readonly baseUrl: string;
  readonly apis?: readonly number[];
}

const ANTHROPIC: Target = { format: 3, baseUrl: "https://api.anthropic.com" };
const CONVERSE: Target = { format: 4, baseUrl: "https://bedrock-runtime.us-east-1.amazonaws.com" };
const OPENAI: Target = { format: 1, baseUrl: "https://api.openai.com/v1" };
const XAI: Target = { format: 1, baseUrl: "https://api.x.ai/v1", apis: [ModelApi.CHAT_COMPLETIONS] };
const GENERIC: Target = { format: 1, baseUrl: "https://x.example/v1" };

function pmOf({ format, baseUrl, apis = [] }: Target, upstreamName: string): RoutePm {
  const table = new RouteTable();
  const options = { provider: { format, baseUrl }, pm: { upstreamName, apis } };
  snapshot(table, gatewayResources([baseUrl], options));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group.pms[0]!;
}

function askedOf(endpoint: EndpointSpec, fields: Record<string, unknown>, clampTo: number | null): Asked {
  const body = scanBody(Buffer.from(JSON.stringify({ model: "gpt", ...fields })), endpoint === MESSAGES ? 0 : 1);
  const { stream } = body;
  const id = "usg_1";
  return {
    id,
    arriveMs: 0,
    endpoint,
    body,
    stream,
    clampTo,
    pinSecret: "",
    previousId: null,
    form: null,
    mediaSeconds: null,
  };
}

/** The body that the upstream gets. */
function sent(
  endpoint: EndpointSpec,
  pm: RoutePm,
  fields: Record<string, unknown>,
  clampTo: number | null = null,
): any {
  const call = bridgeOf(endpoint, pm)!.request(pm, askedOf(endpoint, fields, clampTo), []);
  return JSON.parse((call.body as Buffer).toString());
}

/** What the client gets of a whole answer, and the usage that is billed. */
function answered(endpoint: EndpointSpec, pm: RoutePm, fields: Record<string, unknown>, answer: unknown): any {
  const asked = askedOf(endpoint, fields, null);
  const reading = bridgeOf(endpoint, pm)!.readAnswer(Buffer.from(JSON.stringify(answer)), asked, pm, {});
  return { client: JSON.parse(reading.bytes!.toString()), usage: reading.usage };
}

/** What the client gets of a stream of chat chunks, and the usage that is billed. */
function streamed(
  endpoint: EndpointSpec,
  pm: RoutePm,
  fields: Record<string, unknown>,
  chunks: readonly unknown[],
): any {
  const bridge = bridgeOf(endpoint, pm)!;
  const reader = bridge.streamReader(askedOf(endpoint, { ...fields, stream: true }, null), pm);
  const event: SseEvent = { event: "", data: null };
  let client = "";
  const text = [...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"].map((each) => `data: ${each}\n\n`).join("");
  bridge.splitter().push(Buffer.from(text), (buffer, start, end) => {
    parseFrame(buffer, start, end, event);
    reader.read(event, false);
    client += reader.replacement(buffer, start, end)!.toString();
  });
  const events = client.split("\n").filter((line) => line.startsWith("data: {"));
  return { events: events.map((line): any => JSON.parse(line.slice("data: ".length))), usage: reader.usage };
}

const MESSAGE = { messages: [{ role: "user", content: "Hi" }] };

describe("a limit of the answer's length in another endpoint's field, by which Credits are held", () => {
  test.each<[string, EndpointSpec, RoutePm, Record<string, unknown>, (body: any) => unknown]>([
    ["chat at Anthropic", CHAT, pmOf(ANTHROPIC, "claude-opus-4-5"), MESSAGE, (body) => body.max_tokens],
    [
      "chat at Converse",
      CHAT,
      pmOf(CONVERSE, "amazon.nova-pro-v1:0"),
      MESSAGE,
      (body) => body.inferenceConfig.maxTokens,
    ],
    ["chat at a server of any kind", CHAT, pmOf(GENERIC, "llama"), MESSAGE, (body) => body.max_tokens],
    ["chat at OpenAI", CHAT, pmOf(OPENAI, "gpt-5"), MESSAGE, (body) => body.max_completion_tokens],
    ["completions", COMPLETIONS, pmOf(GENERIC, "llama"), { prompt: "Hi" }, (body) => body.max_tokens],
  ])("%s: is one there too", (_, endpoint, pm, fields, limit) => {
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7 }))).toBe(7);
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7, max_tokens: null }))).toBe(7);
    // It is not lowered by it.
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7, max_tokens: 9 }))).toBe(9);
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7 }, 3))).toBe(3);
  });

  test.each([
    ["responses", pmOf(OPENAI, "gpt-5"), (body: any) => body.max_output_tokens],
    ["responses, translated", pmOf(CONVERSE, "amazon.nova-pro-v1:0"), (body: any) => body.inferenceConfig.maxTokens],
  ])("%s: is one there too", (_, pm, limit) => {
    expect(limit(sent(RESPONSES, pm, { input: "Hi", max_tokens: 7 }))).toBe(7);
    expect(limit(sent(RESPONSES, pm, { input: "Hi", max_completion_tokens: 7, max_output_tokens: 9 }))).toBe(9);
  });
});

describe("Messages that go through to Claude", () => {
  const claude = pmOf(ANTHROPIC, "claude-sonnet-4-5");
  const use = { type: "tool_use", id: "t", name: "f", input: { signature: "" } };
  const signed = { type: "thinking", thinking: "Hm", signature: "c2ln" };
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: "1" }] };
  const history = (...content: unknown[]) => [{ role: "user", content: "Hi" }, { role: "assistant", content }, result];
  const thinking = { type: "enabled", budget_tokens: 8000, display: "omitted" };
  // What a client got of a model that thinks without signing, and of one whose reasoning only it can decrypt.
  const { signature: sealed } = blockOfItem({ id: "rs_1", summary: [], encrypted_content: "x" })! as any;

  test("stay as they came", () => {
    const fields = { max_tokens: 9000, thinking, messages: history(signed, use) };
    expect(sent(MESSAGES, claude, fields)).toEqual({ ...fields, model: "claude-sonnet-4-5" });
    const unclosed = { max_tokens: 10, thinking, messages: [{ role: "user", content: "Hi" }] };
    expect(sent(MESSAGES, claude, unclosed)).toMatchObject(unclosed);
  });

  test.each(["", sealed])(
    "lose thoughts that Claude did not sign, and the budget that cannot be then: %j",
    (signature) => {
      const unsigned = { type: "thinking", thinking: "Hm", signature };
      const fields = { max_tokens: 9000, thinking };
      expect(sent(MESSAGES, claude, { ...fields, messages: history(unsigned, use) })).toEqual({
        model: "claude-sonnet-4-5",
        max_tokens: 9000,
        thinking: { type: "disabled" },
        messages: history(use),
      });
      expect(sent(MESSAGES, claude, { ...fields, messages: history(signed, unsigned, use) })).toMatchObject({
        thinking,
        messages: history(signed, use),
      });
      // Nothing is left of that message.
      expect(sent(MESSAGES, claude, { max_tokens: 9, messages: history(unsigned) }).messages).toHaveLength(2);
    },
  );

  test("have room for thinking within what the wallet covers, or do not think", () => {
    const fields = { max_tokens: 32000, thinking, ...MESSAGE };
    expect(sent(MESSAGES, claude, fields, 9000)).toMatchObject({ max_tokens: 9000, thinking });
    expect(sent(MESSAGES, claude, fields, 5000)).toMatchObject({
      max_tokens: 5000,
      thinking: { ...thinking, budget_tokens: 4000 },
    });
    expect(sent(MESSAGES, claude, fields, 1100)).toMatchObject({ max_tokens: 1100, thinking: { type: "disabled" } });
  });

  test("so are those that are translated for Claude", () => {
    const tools = [{ name: "f", input_schema: { type: "object" } }];
    const fields = {
      tools,
      max_tokens: 9000,
      thinking,
      messages: history({ type: "thinking", thinking: "Hm", signature: sealed }, use),
    };
    const body = sent(MESSAGES, pmOf(CONVERSE, "anthropic.claude-sonnet-4-5-20250929-v1:0"), fields);
    expect(body.messages[1].content).toEqual([{ toolUse: { toolUseId: "t", name: "f", input: use.input } }]);
    expect(body.additionalModelRequestFields).toBeUndefined();
    const chat = {
      messages: [
        MESSAGE.messages[0],
        { role: "assistant", content: "Yes", thinking_blocks: [{ type: "thinking", thinking: "", signature: sealed }] },
        MESSAGE.messages[0],
      ],
    };
    expect(sent(CHAT, claude, chat).messages[1].content).toEqual([{ type: "text", text: "Yes" }]);
  });
});

describe("reasoning that a server leaves out of what was completed", () => {
  const grok = pmOf(XAI, "grok-4");
  const usage = {
    prompt_tokens: 10,
    completion_tokens: 5,
    total_tokens: 45,
    completion_tokens_details: { reasoning_tokens: 30 },
  };
  const billed = (reported: unknown) =>
    unitsFromUsage(reported, true, true)!.map(({ meter, quantity }) => [meter, quantity]);
  const UNITS = [
    [Meter.INPUT_TOKENS, 10],
    [Meter.OUTPUT_TOKENS, 5],
    [Meter.REASONING_TOKENS, 30],
    [Meter.REQUESTS, 1],
  ];

  test.each([
    ["with a total", usage],
    ["as it shows by the numbers alone", { ...usage, total_tokens: undefined }],
  ])("%s is in what a client of another format is told", (_, reported) => {
    const message = { role: "assistant", content: "Yes" };
    const answer = { choices: [{ index: 0, message, finish_reason: "stop" }], usage: reported };
    const whole = answered(MESSAGES, grok, { max_tokens: 9, ...MESSAGE }, answer);
    expect(whole.client.usage).toMatchObject({ output_tokens: 35, output_tokens_details: { thinking_tokens: 30 } });
    expect(billed(whole.usage)).toEqual(UNITS);
    const chunks = [
      { choices: [{ index: 0, delta: { content: "Yes" }, finish_reason: "stop" }] },
      { choices: [], usage: reported },
    ];
    const stream = streamed(MESSAGES, grok, { max_tokens: 9, ...MESSAGE }, chunks);
    expect(stream.events.at(-2).usage).toMatchObject({
      output_tokens: 35,
      output_tokens_details: { thinking_tokens: 30 },
    });
    expect(billed(stream.usage)).toEqual(UNITS);
  });
});

describe("Messages at an upstream that has responses alone", () => {
  const fields = { max_tokens: 300, temperature: 0.2, top_p: 0.5, ...MESSAGE };
  test.each([
    ["gpt-5-pro", { type: "disabled" }, undefined, undefined],
    ["gpt-5.2-pro", { type: "disabled" }, { effort: "none" }, 0.2],
    ["gpt-5.2-pro", { type: "adaptive" }, { effort: "high", summary: "auto" }, undefined],
    ["gpt-5-codex", { type: "enabled", budget_tokens: 2048 }, { effort: "low", summary: "auto" }, undefined],
    ["gpt-4.1", { type: "adaptive" }, undefined, 0.2],
    ["grok-4", { type: "adaptive" }, { effort: "high", summary: "auto" }, 0.2],
  ])("%s with %j asks for what the model takes", (model, thinking, reasoning, temperature) => {
    const pm = pmOf({ ...OPENAI, apis: [ModelApi.RESPONSES] }, model);
    const body = sent(MESSAGES, pm, { ...fields, thinking });
    expect(body.reasoning).toEqual(reasoning);
    expect(body.temperature).toBe(temperature);
    expect(body.top_p).toBe(temperature === undefined ? undefined : 0.5);
  });

  test("the client's effort wins over its budget, at most high", () => {
    const pm = pmOf({ ...OPENAI, apis: [ModelApi.RESPONSES] }, "gpt-5-pro");
    const thinking = { type: "enabled", budget_tokens: 200 };
    const effort = (value: string) =>
      sent(MESSAGES, pm, { ...fields, thinking, output_config: { effort: value } }).reasoning.effort;
    expect([effort("low"), effort("medium"), effort("max")]).toEqual(["low", "medium", "high"]);
  });

  test("say that a tool failed", () => {
    const pm = pmOf({ ...OPENAI, apis: [ModelApi.RESPONSES] }, "gpt-5-pro");
    const content = [{ type: "tool_use", id: "t", name: "f", input: {} }];
    const result = { type: "tool_result", tool_use_id: "t", is_error: true, content: "no such file" };
    const messages = [...MESSAGE.messages, { role: "assistant", content }, { role: "user", content: [result] }];
    expect(sent(MESSAGES, pm, { max_tokens: 9, messages }).input.at(-1).output).toBe("Error: no such file");
  });
});

describe("Messages that other formats are stricter about", () => {
  const gpt = pmOf({ ...OPENAI, apis: [ModelApi.CHAT_COMPLETIONS] }, "gpt-5");
  const pro = pmOf({ ...OPENAI, apis: [ModelApi.RESPONSES] }, "gpt-5-pro");
  const sonnet = pmOf(CONVERSE, "anthropic.claude-sonnet-4-5-20250929-v1:0");
  const schema = (required: string[]) => {
    const properties = { a: { type: "string" }, b: { anyOf: [{ type: "null" }, { type: "integer" }] } };
    return { type: "object", properties, required, additionalProperties: false };
  };
  const strictness = (required: string[]) => {
    const tools = [{ name: "f", strict: true, input_schema: schema(required) }];
    const format = { type: "json_schema", schema: { type: "array", items: schema(required) } };
    const fields = { max_tokens: 9, tools, output_config: { format }, ...MESSAGE };
    const [chat, responses, converse] = [gpt, pro, sonnet].map((pm) => sent(MESSAGES, pm, fields));
    return [
      chat.tools[0].function.strict === true,
      chat.response_format.json_schema.strict,
      responses.tools[0].strict,
      responses.text.format.strict,
      converse.toolConfig.tools[0].toolSpec.strict,
    ];
  };

  test("strict tools and formats are strict at OpenAI only if they demand all of their properties", () => {
    expect(strictness(["a", "b"])).toEqual([true, true, true, true, true]);
    expect(strictness(["a"])).toEqual([false, false, false, false, true]);
  });

  test("chat takes four stop sequences, Converse all of them", () => {
    const fields = { max_tokens: 9, stop_sequences: ["1", "2", "3", "4", "5"], ...MESSAGE };
    expect(sent(MESSAGES, gpt, fields).stop).toEqual(["1", "2", "3", "4"]);
    expect(sent(MESSAGES, sonnet, fields).inferenceConfig.stopSequences).toEqual(fields.stop_sequences);
  });

  test("Converse takes four cache points, of which the last stay", () => {
    const cache_control = { type: "ephemeral" };
    const text = (each: string) => ({ type: "text", text: each, cache_control });
    const tools = [{ name: "f", input_schema: { type: "object" }, cache_control }];
    const messages = [{ role: "user", content: ["1", "2", "3", "4"].map(text) }];
    const point = { cachePoint: { type: "default" } };
    const body = sent(MESSAGES, sonnet, { max_tokens: 9, tools, system: [text("s")], messages });
    expect(body.toolConfig.tools).toHaveLength(1);
    expect(body.system).toEqual([{ text: "s" }]);
    expect(body.messages[0].content).toEqual(["1", "2", "3", "4"].flatMap((each) => [{ text: each }, point]));
  });

  test("thoughts of an answer that was cut are no turn of their own", () => {
    const content = [{ type: "thinking", thinking: "Hm", signature: "c2ln" }];
    const messages = [...MESSAGE.messages, { role: "assistant", content }, { role: "user", content: "Go on" }];
    const roles = (body: any) => body.messages.map(({ role }: any) => role);
    expect(roles(sent(MESSAGES, sonnet, { max_tokens: 9, messages }))).toEqual(["user"]);
    const chat = [
      ...MESSAGE.messages,
      { role: "assistant", content: "", thinking_blocks: content },
      { role: "user", content: "Go on" },
    ];
    expect(roles(sent(CHAT, pmOf(ANTHROPIC, "claude-opus-4-5"), { messages: chat }))).toEqual(["user"]);
    const input = [
      { role: "user", content: "Hi" },
      { type: "reasoning", id: "r", summary: [] },
      { role: "user", content: "Go on" },
    ];
    expect(sent(RESPONSES, pmOf(GENERIC, "llama"), { input }).messages[1]).toEqual({ role: "assistant", content: "" });
  });

  test("a PDF is named so that its ending tells what it is", () => {
    const source = { type: "base64", media_type: "application/pdf", data: "JVBERi0=" };
    const named = (title?: string) => {
      const messages = [{ role: "user", content: [{ type: "document", title, source }] }];
      return sent(MESSAGES, gpt, { max_tokens: 9, messages }).messages[0].content[0].file.filename;
    };
    expect([named(), named("Report"), named("a.PDF")]).toEqual(["document.pdf", "Report.pdf", "a.PDF"]);
  });
});
