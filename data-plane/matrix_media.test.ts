/** Images, embeddings, moderations and lists of models through OpenAI's SDK, at OpenAI, Azure and Bedrock. */

import type OpenAI from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { type Gateway, type GatewayOptions, KEY } from "./testing.ts";
import { anthropic, openAi } from "./testing_clients.ts";
import {
  answers,
  type Call,
  type FormatName,
  imitate,
  type Imitation,
  refuses,
  type Reply,
} from "./testing_formats.ts";
import { creditsOf, gatewayTo } from "./testing_matrix.ts";
import type { Fields } from "./testing_turns.ts";

let gateway: Gateway;
let imitations: Imitation[] = [];
let client: OpenAI;

const PATHS =
  /^\/(v1|openai\/v1|openai\/deployments\/my-deployment)\/(images\/generations|embeddings|moderations)(\?api-version=2024-10-21)?$|^\/model\/[^/]+\/invoke$/;

async function start(formats: readonly FormatName[], options: GatewayOptions = {}): Promise<void> {
  imitations = await Promise.all(formats.map((format) => imitate(format, { paths: PATHS })));
  gateway = await gatewayTo(imitations, options);
  client = openAi(gateway.url, KEY);
}

afterEach(async () => {
  await gateway.close();
  await Promise.all(imitations.map((imitation) => imitation.close()));
  expect(imitations.flatMap(({ wrong }) => wrong)).toEqual([]);
});

async function failure(promise: Promise<unknown>): Promise<Record<string, unknown> & Error> {
  try {
    await promise;
  } catch (error) {
    return error as Record<string, unknown> & Error;
  }
  throw new Error("it did not fail");
}

const units = (at = 0) =>
  gateway.journal.settlements[at]!.units.map(({ meter, quantity, size, quality }) => [meter, quantity, size, quality]);
const credits = (): readonly bigint[] => gateway.journal.settlements.map((record) => record.credits);
/** 0.01 Credit. */
const CENT = 10_000_000_000n;

function meters(...rows: readonly Fields[]) {
  return { id: "price_1", kind: { case: "detailed", value: { meters: rows } } };
}

/** Images by size; an image of an unknown size is 5 Cents. */
const BY_IMAGE = meters(
  { meter: 8, creditPerUnit: "0.05", perUnits: 1n },
  { meter: 8, size: "1024x1024", quality: "high", creditPerUnit: "0.08", perUnits: 1n },
  { meter: 8, size: "1536x1024", creditPerUnit: "0.12", perUnits: 1n },
);
const BY_TOKEN = meters(
  { meter: 1, creditPerUnit: "1", perUnits: 1000n },
  { meter: 4, creditPerUnit: "0", perUnits: 1000n },
  { meter: 13, creditPerUnit: "2", perUnits: 1000n },
  { meter: 14, creditPerUnit: "4", perUnits: 1000n },
);
const PRICE_PER_TOKEN = meters(
  { meter: 1, creditPerUnit: "1", perUnits: 1000n },
  { meter: 4, creditPerUnit: "0", perUnits: 1000n },
);
const USAGE = {
  input_tokens: 12,
  input_tokens_details: { text_tokens: 12, image_tokens: 0 },
  output_tokens: 4160,
  total_tokens: 4172,
};

function images(count: number, more: Fields = {}, b64_json = "aW1hZ2U="): Fields {
  const data = Array.from({ length: count }, () => ({ b64_json }));
  return { created: 1_700_000_000, output_format: "png", data, usage: USAGE, ...more };
}

const PROMPT = { model: "gpt", prompt: "A cat" };

describe("images", () => {
  test.each<[string, Fields, Fields, bigint, unknown[]]>([
    ["of a size and quality", { size: "1024x1024", quality: "high" }, {}, 8n, [8, 1, "1024x1024", "high"]],
    ["of a size alone", { size: "1536x1024", quality: "low" }, {}, 12n, [8, 1, "1536x1024", "low"]],
    ["that say less than was asked", {}, { size: "1536x1024" }, 12n, [8, 1, "1536x1024", undefined]],
    ["that say nothing", {}, {}, 5n, [8, 1, undefined, undefined]],
  ])("%s are billed one by one", async (_, said, asked, cents, unit) => {
    await start(["openai"], { pms: [{ upstreamName: "gpt-image-1", price: BY_IMAGE }] });
    imitations[0]!.next(answers(images(1, said)));
    const answer = await client.images.generate({ ...PROMPT, ...asked });
    expect(answer.data).toEqual([{ b64_json: "aW1hZ2U=" }]);
    expect(imitations[0]!.calls[0]!.body).toEqual({ ...PROMPT, ...asked, model: "gpt-image-1" });
    expect(units()).toContainEqual(unit);
    expect(credits()).toEqual([cents * CENT]);
    expect(gateway.journal.settlements[0]).toMatchObject({ endpoint: 6, outcome: 1 });
  });

  test("are billed by tokens", async () => {
    await start(["azure"], { pms: [{ upstreamName: "my-deployment", price: BY_TOKEN }] });
    imitations[0]!.next(answers(images(2, { size: "1024x1024" })));
    const answer = await client.images.generate({ ...PROMPT, n: 2 });
    expect(answer.data).toHaveLength(2);
    expect(imitations[0]!.calls[0]!.path).toContain("/deployments/my-deployment/images/generations");
    // 12 of input at 0.001, 4160 of images at 0.004.
    expect(credits()).toEqual([(12n * CENT) / 10n + (4160n * 4n * CENT) / 10n]);
  });

  test("of three megabytes pass through, and are counted", async () => {
    await start(["openai"], { pms: [{ upstreamName: "gpt-image-1", price: BY_IMAGE }] });
    const large = "QUJD".repeat(256 * 1024);
    imitations[0]!.next(answers(images(3, { size: "1024x1024", quality: "high" }, large)));
    const answer = await client.images.generate({ ...PROMPT, n: 3 });
    expect(answer.data!.map(({ b64_json }) => b64_json === large)).toEqual([true, true, true]);
    expect(answer.usage).toMatchObject({ output_tokens: 4160 });
    expect(units()).toContainEqual([8, 3, "1024x1024", "high"]);
    expect(credits()).toEqual([24n * CENT]);
  });

  test("stream with partial ones, of which only the whole are billed", async () => {
    await start(["openai"], { pms: [{ upstreamName: "gpt-image-1", price: BY_IMAGE }] });
    const event = (type: string, fields: Fields): string =>
      `event: ${type}\ndata: ${JSON.stringify({ type, b64_json: "aW1hZ2U=", size: "1024x1024", quality: "high", ...fields })}\n\n`;
    const stream: Reply = (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(event("image_generation.partial_image", { partial_image_index: 0 }));
      response.write(event("image_generation.partial_image", { partial_image_index: 1 }));
      response.end(event("image_generation.completed", { usage: USAGE }));
    };
    imitations[0]!.next(stream);
    const types: string[] = [];
    for await (const { type } of await client.images.generate({ ...PROMPT, stream: true, partial_images: 2 }))
      types.push(type.replace("image_generation.", ""));
    expect(types).toEqual(["partial_image", "partial_image", "completed"]);
    expect(units()).toContainEqual([8, 1, "1024x1024", "high"]);
    expect(credits()).toEqual([8n * CENT]);
  });

  test("of Bedrock, in several calls", async () => {
    await start(["converse"], { pms: [{ upstreamName: "amazon.nova-canvas-v1:0", price: BY_IMAGE }] });
    imitations[0]!.always((response, call, wire) => {
      const config = call.body["imageGenerationConfig"] as Fields;
      answers({ images: Array(config["numberOfImages"]).fill("aW1hZ2U=") })(response, call, wire);
    });
    const answer = await client.images.generate({ ...PROMPT, n: 7, size: "1536x1024" });
    expect(answer.data).toHaveLength(7);
    const { calls } = imitations[0]!;
    expect(calls.map(({ path }) => path)).toEqual(Array(2).fill("/model/amazon.nova-canvas-v1%3A0/invoke"));
    expect(units()).toContainEqual([8, 7, "1536x1024", "standard"]);
    expect(credits()).toEqual([84n * CENT]);
    const error = await failure(client.images.generate({ ...PROMPT, response_format: "url" }));
    expect(error).toMatchObject({ status: 400, param: "response_format" });
  });

  test("fall over to another format", async () => {
    await start(["openai", "converse"], {
      pms: [
        { upstreamName: "gpt-image-1", price: BY_IMAGE },
        { upstreamName: "stability.sd3-5-large-v1:0", price: BY_IMAGE },
      ],
    });
    imitations[0]!.next(refuses(500, null, "down"));
    imitations[1]!.always(answers({ images: ["aW1hZ2U="], seeds: [1], finish_reasons: [null] }));
    const answer = await client.images.generate({ ...PROMPT, size: "1024x1024" });
    expect(answer.data).toEqual([{ b64_json: "aW1hZ2U=" }]);
    expect(gateway.journal.settlements[0]).toMatchObject({ physicalModelId: "pm_1", credits: 5n * CENT });
  });
});

const VECTOR = [0.25, -0.5, 1];
const titan: Reply = (response, call, wire) => {
  const text = call.body["inputText"] as string;
  const body = { embedding: [text.length, 0.5], inputTextTokenCount: text.length };
  // Later ones answer first.
  setTimeout(() => answers(body)(response, call, wire), Math.max(0, 10 - text.length));
};

describe("embeddings", () => {
  test.each(["openai", "azure_v1"] as const)("of %s", async (format) => {
    await start([format]);
    const bytes = Buffer.alloc(12);
    VECTOR.forEach((each, i) => bytes.writeFloatLE(each, 4 * i));
    imitations[0]!.next((response, call, wire) => {
      const embedding = call.body["encoding_format"] === "base64" ? bytes.toString("base64") : VECTOR;
      const data = [{ object: "embedding", index: 0, embedding }];
      answers({ object: "list", data, model: "m", usage: { prompt_tokens: 5, total_tokens: 5 } })(response, call, wire);
    });
    const answer = await client.embeddings.create({ model: "gpt", input: "Hi" });
    expect([...answer.data[0]!.embedding]).toEqual(VECTOR);
    expect(answer.usage.prompt_tokens).toBe(5);
    expect(credits()).toEqual([
      creditsOf([
        [1, 5],
        [11, 1],
      ]),
    ]);
    expect(gateway.journal.settlements[0]).toMatchObject({ endpoint: 3, outcome: 1 });
  });

  test("of Bedrock: a call for each text, in their order, signed one by one", async () => {
    await start(["converse"], { pms: [{ upstreamName: "amazon.titan-embed-text-v2:0", price: PRICE_PER_TOKEN }] });
    imitations[0]!.always(titan);
    const input = Array.from({ length: 20 }, (_, i) => "x".repeat(i + 1));
    const answer = await client.embeddings.create({ model: "gpt", input });
    expect(answer.data.map(({ embedding }) => embedding[0])).toEqual(input.map(({ length }) => length));
    expect(answer.usage).toEqual({ prompt_tokens: 210, total_tokens: 210 });
    expect(answer.model).toBe("gpt");
    const signatures = imitations[0]!.calls.map(({ headers }: Call) => headers.authorization);
    expect(new Set(signatures).size).toBe(20);
    expect(units()).toEqual([
      [1, 210, undefined, undefined],
      [11, 1, undefined, undefined],
    ]);
    expect(credits()).toEqual([21n * CENT]);
  });

  test("of which one fails are one failure, and the next target is asked", async () => {
    await start(["converse", "openai"], {
      pms: [
        { upstreamName: "amazon.titan-embed-text-v2:0", price: PRICE_PER_TOKEN },
        { upstreamName: "text-embedding-3-small", price: PRICE_PER_TOKEN },
      ],
    });
    imitations[0]!.always((response, call, wire) =>
      (call.body["inputText"] === "b" ? refuses(500, null, "down") : titan)(response, call, wire),
    );
    const data = ["a", "b"].map((_, index) => ({ object: "embedding", index, embedding: VECTOR }));
    imitations[1]!.always(answers({ object: "list", data, usage: { prompt_tokens: 2, total_tokens: 2 } }));
    await client.embeddings.create({ model: "gpt", input: ["a", "b"], encoding_format: "float" });
    const record = gateway.journal.settlements[0]!;
    expect(record.attempts.map(({ result }) => result)).toEqual([4, 1]);
    expect(record.credits).toBe(CENT / 5n);
    expect(imitations[1]!.calls[0]!.body["input"]).toEqual(["a", "b"]);
  });

  test("whose count stands in a header", async () => {
    await start(["converse"], { pms: [{ upstreamName: "cohere.embed-v4:0", price: PRICE_PER_TOKEN }] });
    const count = { "x-amzn-bedrock-input-token-count": "9" };
    imitations[0]!.next(answers({ embeddings: { float: [VECTOR, VECTOR] } }, count));
    const answer = await client.embeddings.create({ model: "gpt", input: ["a", "b"] });
    expect(answer.data.map(({ embedding }) => [...embedding])).toEqual([VECTOR, VECTOR]);
    expect(credits()).toEqual([(9n * CENT) / 10n]);
  });

  test("are nothing for Anthropic", async () => {
    await start(["anthropic"]);
    const error = await failure(client.embeddings.create({ model: "gpt", input: "Hi" }));
    expect(error).toMatchObject({ status: 400, code: "unsupported_endpoint" });
  });
});

test("moderations cost what a request costs", async () => {
  await start(["openai"]);
  const results = [{ flagged: false, categories: {}, category_scores: {}, category_applied_input_types: {} }];
  imitations[0]!.next(answers({ id: "modr_1", model: "omni-moderation-latest", results }));
  const answer = await client.moderations.create({ model: "gpt", input: "Hi" });
  expect(answer.results[0]!.flagged).toBe(false);
  expect(imitations[0]!.calls[0]!).toMatchObject({ path: "/v1/moderations", body: { model: "gpt-4.1", input: "Hi" } });
  expect(gateway.journal.settlements[0]).toMatchObject({ endpoint: 11, outcome: 1 });
  expect(credits()).toEqual([creditsOf([[11, 1]])]);
});

test("models are listed for either SDK, whatever stands behind them", async () => {
  await start(["converse"]);
  const models = await client.models.list();
  expect(models.data).toMatchObject([{ id: "gpt", object: "model" }]);
  expect((await client.models.retrieve("gpt")).id).toBe("gpt");
  expect((await anthropic(gateway.url, KEY).models.list()).data).toMatchObject([{ id: "gpt", type: "model" }]);
  expect(imitations[0]!.calls).toHaveLength(0);
});
