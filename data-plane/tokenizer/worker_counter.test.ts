/** The thread: bounds, deaths, and what it counts against counts that OpenAI reported and its own tokenizer. */

import pino from "pino";
import { get_encoding } from "tiktoken";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { Sampler, OUTPUT_SAMPLE_BYTES_MAX, type TextSample, type TokenCounts } from "./tokens.ts";
import { readInput } from "./input.ts";
import { PART_CHARS_MAX } from "./text.ts";
import { JOBS_MAX, WorkerCounter, type WorkerCounterOptions } from "./worker_counter.ts";

const log = pino({ level: "silent" });
/** One thread for all that only count. */
const shared = new WorkerCounter({ log, jobMsMax: 60_000 });
let counter = shared;
const start = (options: Partial<WorkerCounterOptions>): void => {
  counter = new WorkerCounter({ log, ...options });
};
afterEach(async () => {
  if (counter !== shared) await counter.close();
  counter = shared;
});
afterAll(() => shared.close());

const NOTHING: TextSample = { bytes: new Uint8Array(0), textBytes: 0, tokens: 0 };

function sampleOf(text: string): TextSample {
  const sampler = new Sampler(OUTPUT_SAMPLE_BYTES_MAX);
  sampler.addText(text);
  return sampler.sample();
}

function count(model: string, input: TextSample, output: TextSample): Promise<TokenCounts | null> {
  return new Promise((resolve) => counter.count({ model, input, output }, resolve));
}

const output = async (model: string, text: string): Promise<number> =>
  (await count(model, NOTHING, sampleOf(text)))!.output;
const input = async (model: string, body: unknown): Promise<number> =>
  (await count(model, readInput(Buffer.from(JSON.stringify(body))), NOTHING))!.input;

const WEATHER_TOOL = {
  type: "function",
  function: {
    name: "get_current_weather",
    description: "Get the current weather in a given location",
    parameters: {
      type: "object",
      properties: {
        location: { type: "string", description: "The city and state, e.g. San Francisco, CA" },
        unit: {
          type: "string",
          description: "The unit of temperature to return",
          enum: ["celsius", "fahrenheit"],
        },
      },
      required: ["location"],
    },
  },
};
const JARGON = [
  {
    role: "system",
    content: "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
  },
  { role: "system", name: "example_user", content: "New synergies will help drive top-line growth." },
  { role: "system", name: "example_assistant", content: "Things working well together will increase revenue." },
  {
    role: "system",
    name: "example_user",
    content: "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
  },
  {
    role: "system",
    name: "example_assistant",
    content: "Let's talk later when we're less busy about how to do better.",
  },
  {
    role: "user",
    content: "This late pivot means we don't have time to boil the ocean for the client deliverable.",
  },
];
const WEATHER = [
  { role: "system", content: "You are a helpful assistant that can answer to questions about the weather." },
  { role: "user", content: "What's the weather like in San Francisco?" },
];
const CALL = {
  id: "1",
  type: "function",
  function: { name: "get_current_weather", arguments: '{"location": "San Francisco"}' },
};

/** What OpenAI's API reported. Sources beside each; the texts are theirs. */
describe("input, beside what was reported", () => {
  test.each([
    // openai/openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, sections 6 and 7.
    ["messages, gpt-4o", "gpt-4o", { messages: JARGON }, 124, 0],
    ["messages, gpt-4", "gpt-4", { messages: JARGON }, 129, 0],
    ["messages, gpt-3.5-turbo", "gpt-3.5-turbo", { messages: JARGON }, 129, 0],
    ["a tool, gpt-4o", "gpt-4o", { messages: WEATHER, tools: [WEATHER_TOOL] }, 101, 0.05],
    ["a tool, gpt-4", "gpt-4", { messages: WEATHER, tools: [WEATHER_TOOL] }, 105, 0.08],
    // traceloop/openllmetry, recorded traffic test_chat/test_chat_tool_calls.yaml.
    [
      "a call and its answer",
      "gpt-3.5-turbo",
      {
        messages: [
          { role: "assistant", tool_calls: [CALL] },
          { role: "tool", tool_call_id: "1", content: "The weather in San Francisco is 70 degrees and sunny." },
        ],
      },
      40,
      0.1,
    ],
    // ajeetraina/talk-demos, openai-demo/README.md.
    [
      "a greeting",
      "gpt-4o-2024-08-06",
      {
        messages: [
          { role: "system", content: "You are a helpful assistant." },
          { role: "user", content: "Hello!" },
        ],
      },
      19,
      0.06,
    ],
    // Bharathkumarraju/learn-ai-llm-ml-ops, 11.OpenAI/3.chat_completions_api.sh: content in parts.
    [
      "text parts",
      "gpt-4o-2024-08-06",
      {
        messages: [
          { role: "user", content: [{ type: "text", text: "hello" }] },
          { role: "assistant", content: [{ type: "text", text: "Hello! How can I assist you today?" }] },
        ],
      },
      21,
      0.05,
    ],
  ])("%s", async (name, model, body, reported, bound) => {
    const counted = await input(model, body);
    console.log(`${name}: counted ${counted}, reported ${reported}`);
    expect(Math.abs(counted - reported) / reported).toBeLessThanOrEqual(bound);
  });
});

describe("output, beside what was reported", () => {
  test.each([
    // rileyeaton-ubc/SkySage, app/config/ai_generation_sample.py.
    [
      "gpt-4o-mini",
      "On Tuesday, we can expect a chilly day with a high temperature reaching around 10°C, while the low will dip down to -2°C. The average temperature for the day stands at a cool 5°C. Additionally, anticipate a significant amount of precipitation, approximately 30mm, so it's advisable to keep an umbrella handy. Overall, a rather wet and brisk day is in store!",
      79,
    ],
    // openai/openai-openapi, "Get chat completion".
    ["gpt-4o", "Mind of circuits hum,  \nLearning patterns in silence—  \nFuture's quiet spark.", 18],
    ["gpt-4o", "Hello! How can I assist you today?", 10],
    // pooya-jb/fitAIM, server/controllers/MockData.openAPI.js: cut at 50 tokens.
    [
      "gpt-3.5-turbo-0613",
      "Fitness refers to the state of being physically healthy, strong, and physically capable to perform daily activities without undue fatigue. It encompasses various aspects such as cardiovascular endurance, muscular strength and endurance, flexibility, body composition, and overall physical well-being. Fitness is",
      50,
    ],
    // possycrypto/openai_tut, 01_hello_openai.py.
    [
      "gpt-3.5-turbo-0125",
      "Arrr, me hearties, listen up ye scallywags! Asynchronous programming be like havin' a crew of pirates workin' on different tasks at the same time. Each pirate be doin' their own job, but they be communicatin' with the captain through messages in bottles. This way, the ship can be sailin' smoothly without all the pirates waitin' around for one task to be finished before movin' on to the next. So, me mateys, asynchronous programming be all about multitaskin' and keepin' the ship runnin' smoothly on the high seas of code! Arrr!",
      131,
    ],
    ["gpt-3.5-turbo", "The weather in San Francisco is 70 degrees and sunny.", 12],
  ])("%s: %s", async (model, text, reported) => {
    const counted = await output(model, text);
    console.log(`counted ${counted}, reported ${reported}`);
    // Newer models report the token that ends an answer as well.
    expect(reported - counted).toBeGreaterThanOrEqual(0);
    expect(reported - counted).toBeLessThanOrEqual(1);
  });
});

const TEXTS = {
  chinese: "预付费网关按令牌计费；上游没有报告用量时，由真正的分词器来数。".repeat(20),
  japanese: "ストリームが途中で切れたときは、届いた分だけを計算します。".repeat(20),
  russian: "Если поставщик не сообщает расход, токены считает настоящий токенизатор. ".repeat(20),
  arabic: "إذا لم يبلغ المزود عن الاستخدام فإن المحلل يعد الرموز. ".repeat(20),
  thai: "ภาษาไทยไม่มีช่องว่างระหว่างคำ".repeat(40),
  hindi: "यदि प्रदाता उपयोग नहीं बताता तो टोकन गिने जाते हैं। ".repeat(20),
  emoji: "👩‍👩‍👧‍👦🎉🚀 ok 🇩🇪🤷🏽‍♀️ ".repeat(60),
  code: 'export function add(a: number, b: number): number {\n  // sums\n  return a + b;\n}\n\tif (x) { y["k"] = `${z}`; }\n'.repeat(
    20,
  ),
  json: '{"location":"Zürich","unit":"celsius","days":[1,2,3],"nested":{"a":null,"b":[true,false]}}'.repeat(20),
  marks: "This says <|endoftext|> and <|im_start|> as text. ".repeat(10),
};

describe.each(["o200k_base", "cl100k_base"] as const)("%s, beside OpenAI's own implementation", (encoding) => {
  test.each(Object.entries(TEXTS))("%s", async (_, text) => {
    const reference = get_encoding(encoding);
    const expected = reference.encode_ordinary(text).length;
    reference.free();
    const counted = await output(encoding === "o200k_base" ? "some-model" : "gpt-4-turbo", text);
    // Long texts are cut into parts; a cut costs a few tokens where there is no space to cut at.
    const cuts = Math.ceil(text.length / PART_CHARS_MAX) - 1;
    expect(Math.abs(counted - expected)).toBeLessThanOrEqual(3 * cuts);
  });

  test("a text beyond the sample is extrapolated", async () => {
    const text = TEXTS.russian.repeat(40);
    expect(Buffer.byteLength(text)).toBeGreaterThan(2 * OUTPUT_SAMPLE_BYTES_MAX);
    const reference = get_encoding(encoding);
    const expected = reference.encode_ordinary(text).length;
    reference.free();
    const counted = await output(encoding === "o200k_base" ? "some-model" : "gpt-4-turbo", text);
    expect(Math.abs(counted - expected) / expected).toBeLessThan(0.01);
  });
});

describe("the thread", () => {
  const script = (source: string): URL => new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const HANGS = script(
    'import { parentPort } from "node:worker_threads"; parentPort.on("message", () => { for (;;); });',
  );
  const DIES = script(
    'import { parentPort } from "node:worker_threads"; parentPort.on("message", () => process.exit(1));',
  );
  const THROWS = script(
    'import { parentPort } from "node:worker_threads"; parentPort.on("message", () => { throw new Error("x"); });',
  );
  const SILENT = script('import { parentPort } from "node:worker_threads"; parentPort.on("message", () => undefined);');

  test("texts that take seconds when encoded whole are counted", async () => {
    const counts = [];
    for (const text of ["a".repeat(40_000), " ".repeat(40_000), "🎉".repeat(10_000), "!@#$%^&*".repeat(5_000)])
      counts.push(await output("gpt-4o", text));
    for (const tokens of counts) expect(tokens).toBeGreaterThan(100);
  });

  test.each([
    ["hangs", HANGS],
    ["dies", DIES],
    ["throws", THROWS],
  ])("one that %s is given up, and those who wait go without", async (_, url) => {
    start({ script: url, jobMsMax: 200, restartMs: 20 });
    const answers = await Promise.all([count("m", NOTHING, sampleOf("a")), count("m", NOTHING, sampleOf("b"))]);
    expect(answers).toEqual([null, null]);
  });

  test("after its death a new one is started", async () => {
    start({ script: HANGS, jobMsMax: 100, restartMs: 10 });
    expect(await count("m", NOTHING, sampleOf("a"))).toBeNull();
    // Right after a death nobody waits.
    expect(await count("m", NOTHING, sampleOf("a"))).toBeNull();
    await expect.poll(() => (counter as unknown as { restart: unknown }).restart).toBeNull();
    (counter as unknown as { script: URL }).script = new URL("./token_worker.ts", import.meta.url);
    (counter as unknown as { jobMsMax: number }).jobMsMax = 60_000;
    expect((await count("gpt-4o", NOTHING, sampleOf("Hello!")))!.output).toBe(2);
  });

  test("only so many jobs wait, and closing answers them all", async () => {
    start({ script: SILENT });
    let refused = 0;
    const all = Array.from({ length: JOBS_MAX }, () => count("m", NOTHING, sampleOf("a")));
    await count("m", NOTHING, sampleOf("one too many")).then((counts) => (refused += counts === null ? 1 : 0));
    expect(refused).toBe(1);
    await counter.close();
    expect((await Promise.all(all)).every((counts) => counts === null)).toBe(true);
    expect(await count("m", NOTHING, sampleOf("late"))).toBeNull();
  });
});
