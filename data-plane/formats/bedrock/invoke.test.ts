import { describe, expect, test } from "vitest";
import { type HubContext, type HubTarget, type Json, type JsonUpstream, RefusedFieldError } from "../hub.ts";
import { EMBEDDING_CALLS_MAX } from "./embeddings.ts";
import { bedrockEmbeddings, bedrockImages } from "./invoke.ts";

const CONTEXT: HubContext = { id: "1", createdS: 1_700_000_000, model: "client-name", request: {} };

function targetOf(model: string, family = ""): HubTarget {
  return { model, family, maxOutputTokens: 0, apiVersion: "", stream: false };
}

const TITAN = targetOf("amazon.titan-embed-text-v2:0");
const COHERE3 = targetOf("cohere.embed-english-v3");
const COHERE4 = targetOf("us.cohere.embed-v4:0");
const NOVA = targetOf("amazon.nova-2-multimodal-embeddings-v1:0");
const CANVAS = targetOf("amazon.nova-canvas-v1:0");
const CORE = targetOf("stability.stable-image-core-v1:1");

function bodies(upstream: JsonUpstream, body: Json, target: HubTarget): readonly Json[] {
  return upstream.requests(body, target).map((call) => call.body);
}

function refusal(upstream: JsonUpstream, body: Json, target: HubTarget): RefusedFieldError {
  try {
    upstream.requests(body, target);
  } catch (error) {
    if (error instanceof RefusedFieldError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

const HEADER = "x-amzn-bedrock-input-token-count";

describe("embeddings", () => {
  test("one call for each text, where a model takes one", () => {
    const calls = bedrockEmbeddings.requests({ input: ["a", "b"], dimensions: 256 }, TITAN);
    expect(calls).toEqual(
      ["a", "b"].map((inputText) => ({
        path: "/model/amazon.titan-embed-text-v2%3A0/invoke",
        headers: ["accept", "application/json"],
        body: { inputText, dimensions: 256, normalize: true },
      })),
    );
  });

  test.each<[string, HubTarget, Json, readonly Json[]]>([
    ["Titan v1", targetOf("amazon.titan-embed-text-v1"), { input: "a" }, [{ inputText: "a" }]],
    [
      "Titan multimodal",
      targetOf("amazon.titan-embed-image-v1"),
      { input: "a", dimensions: 384 },
      [{ inputText: "a", embeddingConfig: { outputEmbeddingLength: 384 } }],
    ],
    [
      "Cohere v3",
      COHERE3,
      { input: ["a", "b"] },
      [{ texts: ["a", "b"], input_type: "search_document", embedding_types: ["float"] }],
    ],
    [
      "Cohere v4 behind an ARN",
      targetOf("arn:aws:bedrock:x", "cohere.embed-v4"),
      { input: "a", input_type: "search_query", dimensions: 512 },
      [{ texts: ["a"], input_type: "search_query", embedding_types: ["float"], output_dimension: 512 }],
    ],
    [
      "Nova",
      NOVA,
      { input: "a", dimensions: 1024 },
      [
        {
          taskType: "SINGLE_EMBEDDING",
          singleEmbeddingParams: {
            embeddingPurpose: "GENERIC_INDEX",
            embeddingDimension: 1024,
            text: { truncationMode: "NONE", value: "a" },
          },
        },
      ],
    ],
  ])("%s", (_, target, body, expected) => {
    expect(bodies(bedrockEmbeddings, body, target)).toEqual(expected);
  });

  test("Cohere takes 96 texts at a time", () => {
    const input = Array.from({ length: 200 }, (_, index) => `t${index}`);
    const texts = bodies(bedrockEmbeddings, { input }, COHERE3).map((body) => body["texts"] as string[]);
    expect(texts.map((each) => each.length)).toEqual([96, 96, 8]);
    expect(texts.flat()).toEqual(input);
  });

  const answer = (body: Json, headers: Record<string, string> = {}) => ({ body, headers });
  test.each<[string, HubTarget, Json, Parameters<JsonUpstream["answer"]>[0], unknown, number]>([
    [
      "Titan",
      TITAN,
      { input: ["a", "b"] },
      [
        answer({ embedding: [0.5, 1], inputTextTokenCount: 3 }, { [HEADER]: "99" }),
        answer({ embedding: [2, 3], inputTextTokenCount: 4 }),
      ],
      [
        [0.5, 1],
        [2, 3],
      ],
      7,
    ],
    ["Cohere", COHERE3, { input: ["a"] }, [answer({ embeddings: [[1]] }, { [HEADER]: "5" })], [[1]], 5],
    [
      "Cohere by types",
      COHERE4,
      { input: ["a", "b"] },
      [answer({ embeddings: { float: [[1], [2]] } }, { [HEADER]: "6" })],
      [[1], [2]],
      6,
    ],
    [
      "Nova",
      NOVA,
      { input: "a" },
      [answer({ embeddings: [{ embeddingType: "TEXT", embedding: [1] }], inputTokenCount: 0 })],
      [[1]],
      0,
    ],
  ])("answers of %s become one, with all tokens", (_, target, body, answers, vectors, tokens) => {
    const made = bedrockEmbeddings.answer(answers, body, target, CONTEXT)!;
    expect(made).toEqual({
      object: "list",
      data: (vectors as number[][]).map((embedding, index) => ({ object: "embedding", index, embedding })),
      model: "client-name",
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    });
  });

  test("may be wanted as base64", () => {
    const body = { input: "a", encoding_format: "base64" };
    const made = bedrockEmbeddings.answer(
      [answer({ embedding: [1, -2.5], inputTextTokenCount: 1 })],
      body,
      TITAN,
      CONTEXT,
    )!;
    const [{ embedding }] = made["data"] as [{ embedding: string }];
    const bytes = Buffer.from(embedding, "base64");
    expect([bytes.length, bytes.readFloatLE(0), bytes.readFloatLE(4)]).toEqual([8, 1, -2.5]);
  });

  test("claim no usage if one of the answers has none", () => {
    const answers = [answer({ embedding: [1], inputTextTokenCount: 3 }), answer({ embedding: [1] }, { [HEADER]: "x" })];
    const made = bedrockEmbeddings.answer(answers, { input: ["a", "b"] }, TITAN, CONTEXT)!;
    expect(made["usage"]).toBeUndefined();
    expect(made["data"]).toHaveLength(2);
  });

  test.each([[{}], [{ embedding: [] }], [{ embedding: ["x"] }], [{ embedding: "x" }]])("are not in %j", (body) => {
    expect(bedrockEmbeddings.answer([answer(body)], { input: "a" }, TITAN, CONTEXT)).toBeNull();
  });

  test("must be as many as the texts", () => {
    const short = [answer({ embeddings: [[1]] }, { [HEADER]: "1" })];
    expect(bedrockEmbeddings.answer(short, { input: ["a", "b"] }, COHERE3, CONTEXT)).toBeNull();
  });

  test.each<[string, Json, HubTarget, string, string]>([
    ["nothing", {}, TITAN, "missing_required_parameter", "input"],
    ["no texts", { input: [] }, TITAN, "missing_required_parameter", "input"],
    ["an empty text", { input: ["a", ""] }, TITAN, "invalid_value", "input[1]"],
    ["tokens", { input: [1, 2] }, TITAN, "invalid_type", "input[0]"],
    ["lists of tokens", { input: [[1]] }, TITAN, "invalid_type", "input[0]"],
    ["other dimensions", { input: "a", dimensions: 300 }, TITAN, "unsupported_value", "dimensions"],
    ["any dimensions", { input: "a", dimensions: 1024 }, COHERE3, "unsupported_value", "dimensions"],
    ["another encoding", { input: "a", encoding_format: "hex" }, TITAN, "invalid_value", "encoding_format"],
    ["an unknown input type", { input: "a", input_type: "x" }, COHERE3, "invalid_value", "input_type"],
    ["too many texts", { input: Array.from({ length: 2049 }, () => "a") }, COHERE3, "invalid_value", "input"],
    [
      "too many calls",
      { input: Array.from({ length: EMBEDDING_CALLS_MAX + 1 }, () => "a") },
      TITAN,
      "invalid_value",
      "input",
    ],
    ["another model", { input: "a" }, targetOf("meta.llama3"), "unsupported_value", "model"],
  ])("refuse %s", (_, body, target, code, param) => {
    expect(refusal(bedrockEmbeddings, body, target)).toMatchObject({ code, param });
  });
});

describe("images", () => {
  test("of Amazon's models", () => {
    const body = {
      prompt: "a cat",
      n: 2,
      size: "1024x512",
      quality: "hd",
      negative_prompt: "dogs",
      seed: 7,
      style: "x",
    };
    expect(bedrockImages.requests(body, CANVAS)).toEqual([
      {
        path: "/model/amazon.nova-canvas-v1%3A0/invoke",
        headers: ["accept", "application/json"],
        body: {
          taskType: "TEXT_IMAGE",
          textToImageParams: { text: "a cat", negativeText: "dogs" },
          imageGenerationConfig: { numberOfImages: 2, width: 1024, height: 512, quality: "premium", seed: 7 },
        },
      },
    ]);
  });

  test("more than five are made in two calls, with different seeds", () => {
    const configs = bodies(bedrockImages, { prompt: "a", n: 7 }, CANVAS).map((body) => body["imageGenerationConfig"]);
    expect(configs).toEqual([
      { numberOfImages: 5, quality: "standard", seed: 12 },
      { numberOfImages: 2, quality: "standard", seed: 13 },
    ]);
  });

  test.each([
    [undefined, undefined],
    ["auto", undefined],
    ["1024x1024", "1:1"],
    ["1792x1024", "16:9"],
    ["1024x1536", "2:3"],
    ["1536x640", "21:9"],
    ["640x1536", "9:21"],
  ])("of Stability's models, one for each call: %s is %s", (size, aspect_ratio) => {
    const one = { prompt: "a", ...(aspect_ratio === undefined ? {} : { aspect_ratio }), output_format: "jpeg" };
    const body = { prompt: "a", n: 2, size, output_format: "jpeg", quality: "low" };
    expect(bodies(bedrockImages, body, CORE)).toEqual([one, one]);
  });

  test("answers say what is counted and priced", () => {
    const images = [{ body: { images: ["AA==", "BB=="], error: null }, headers: {} }];
    expect(bedrockImages.answer(images, { prompt: "a", n: 2 }, CANVAS, CONTEXT)).toEqual({
      created: CONTEXT.createdS,
      data: [{ b64_json: "AA==" }, { b64_json: "BB==" }],
      size: "1024x1024",
      quality: "standard",
      output_format: "png",
    });
  });

  test("that are withheld are not counted", () => {
    const answers = [
      { body: { images: ["AA=="], seeds: [1], finish_reasons: [null] }, headers: {} },
      { body: { images: ["blur"], seeds: [1], finish_reasons: ["Filter reason: prompt"] }, headers: {} },
      { body: { finish_reasons: ["Filter reason: output image"] }, headers: {} },
    ];
    const made = bedrockImages.answer(answers, { prompt: "a", n: 3 }, CORE, CONTEXT)!;
    expect(made["data"]).toEqual([{ b64_json: "AA==" }]);
    const artifacts = [{ body: { artifacts: [{ base64: "AA==" }] }, headers: {} }];
    expect(bedrockImages.answer(artifacts, { prompt: "a" }, CORE, CONTEXT)!["data"]).toHaveLength(1);
    const blocked = [{ body: { error: "policy" }, headers: {} }];
    expect(bedrockImages.answer(blocked, { prompt: "a" }, CANVAS, CONTEXT)!["data"]).toEqual([]);
  });

  test.each([CANVAS, CORE])("are not in other answers", (target) => {
    expect(
      bedrockImages.answer([{ body: { message: "x" }, headers: {} }], { prompt: "a" }, target, CONTEXT),
    ).toBeNull();
  });

  test.each<[string, Json, HubTarget, string]>([
    ["no prompt", { prompt: " " }, CANVAS, "prompt"],
    ["too many", { prompt: "a", n: 11 }, CANVAS, "n"],
    ["none", { prompt: "a", n: 0 }, CANVAS, "n"],
    ["addresses", { prompt: "a", response_format: "url" }, CANVAS, "response_format"],
    ["streams", { prompt: "a", stream: true }, CANVAS, "stream"],
    ["an unknown size", { prompt: "a", size: "big" }, CANVAS, "size"],
    ["an unknown quality", { prompt: "a", quality: "best" }, CANVAS, "quality"],
    ["a format", { prompt: "a", output_format: "webp" }, CORE, "output_format"],
    ["a format", { prompt: "a", output_format: "jpeg" }, CANVAS, "output_format"],
    ["another model", { prompt: "a" }, TITAN, "model"],
  ])("refuse %s", (_, body, target, param) => {
    expect(refusal(bedrockImages, body, target).param).toBe(param);
  });
});
