/**
 * PURE. Embeddings by InvokeModel: each family of models has a body of its own (reference/UPSTREAM-FORMATS.md D9). Some take
 * one text per call, so a request with many becomes many calls.
 */

import { type HubTarget, type Json, type JsonAnswer, RefusedFieldError } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";

/** A request that needs more calls is refused: they are made for one client at once. */
export const EMBEDDING_CALLS_MAX = 128;
/** As OpenAI has it. */
export const EMBEDDING_TEXTS_MAX = 2048;
const COHERE_TEXTS_MAX = 96;

export interface EmbeddingFamily {
  readonly textsPerCall: number;
  /** Empty: `dimensions` is refused. */
  readonly dimensions: readonly number[];
  body(texts: readonly string[], dimensions: number | undefined, request: Json): Json;
  /** The vectors of one answer; null if it holds none. */
  vectors(body: Json): readonly unknown[] | null;
  /** Tokens that went in, as the body says; undefined: ask the headers. */
  tokens(body: Json): number | undefined;
}

const TITAN_V1: EmbeddingFamily = {
  textsPerCall: 1,
  dimensions: [],
  body: ([inputText]) => ({ inputText }),
  vectors: (body) => [body["embedding"]],
  tokens: (body) => countOf(body["inputTextTokenCount"]),
};
const TITAN_V2: EmbeddingFamily = {
  ...TITAN_V1,
  dimensions: [256, 512, 1024],
  body: ([inputText], dimensions) => ({
    inputText,
    ...(dimensions === undefined ? {} : { dimensions }),
    normalize: true,
  }),
};
const TITAN_IMAGE: EmbeddingFamily = {
  ...TITAN_V1,
  dimensions: [256, 384, 1024],
  body: ([inputText], dimensions) => ({
    inputText,
    ...(dimensions === undefined ? {} : { embeddingConfig: { outputEmbeddingLength: dimensions } }),
  }),
};

/** What the texts are for. OpenAI has no word for it, so clients may use Cohere's own. */
const COHERE_INPUT_TYPES = new Set(["search_document", "search_query", "classification", "clustering"]);

const COHERE_V3: EmbeddingFamily = {
  textsPerCall: COHERE_TEXTS_MAX,
  dimensions: [],
  body: (texts, dimensions, request) => {
    const type = request["input_type"] ?? "search_document";
    if (typeof type !== "string" || !COHERE_INPUT_TYPES.has(type))
      throw new RefusedFieldError("invalid_value", "input_type", "This is no `input_type` of this model.");
    return {
      texts,
      input_type: type,
      embedding_types: ["float"],
      ...(dimensions === undefined ? {} : { output_dimension: dimensions }),
    };
  },
  vectors: ({ embeddings }) => {
    if (Array.isArray(embeddings)) return embeddings as unknown[];
    const { float } = objectOf(embeddings);
    return Array.isArray(float) ? (float as unknown[]) : null;
  },
  tokens: () => undefined,
};
const COHERE_V4: EmbeddingFamily = { ...COHERE_V3, dimensions: [256, 512, 1024, 1536] };

const NOVA: EmbeddingFamily = {
  textsPerCall: 1,
  dimensions: [256, 384, 1024, 3072],
  body: ([value], dimensions) => ({
    taskType: "SINGLE_EMBEDDING",
    singleEmbeddingParams: {
      embeddingPurpose: "GENERIC_INDEX",
      ...(dimensions === undefined ? {} : { embeddingDimension: dimensions }),
      text: { truncationMode: "NONE", value },
    },
  }),
  vectors: ({ embeddings }) => listOf(embeddings).map((each) => objectOf(each)["embedding"]),
  tokens: (body) => countOf(body["inputTokenCount"]) ?? countOf(body["inputTextTokenCount"]),
};

/** @throws RefusedFieldError */
export function embeddingFamilyOf(target: HubTarget): EmbeddingFamily {
  const name = (target.family || target.model).toLowerCase();
  if (name.includes("titan-embed")) {
    if (name.includes("image")) return TITAN_IMAGE;
    return name.includes("text-v2") ? TITAN_V2 : TITAN_V1;
  }
  if (name.includes("cohere") || name.includes("embed-english") || name.includes("embed-multilingual"))
    return name.includes("v4") ? COHERE_V4 : COHERE_V3;
  if (name.includes("nova")) return NOVA;
  throw new RefusedFieldError("unsupported_value", "model", "This model gives no embeddings.");
}

/** The texts of a request. @throws RefusedFieldError */
export function textsOf(body: Json): readonly string[] {
  const { input } = body;
  const texts: readonly unknown[] = Array.isArray(input) ? (input as unknown[]) : [input];
  if (texts.length === 0 || input === undefined || input === null)
    throw new RefusedFieldError("missing_required_parameter", "input", "`input` must hold at least one text.");
  if (texts.length > EMBEDDING_TEXTS_MAX)
    throw new RefusedFieldError("invalid_value", "input", `\`input\` may hold ${EMBEDDING_TEXTS_MAX} texts at most.`);
  return texts.map((text, index) => {
    const param = Array.isArray(input) ? `input[${index}]` : "input";
    if (typeof text !== "string")
      throw new RefusedFieldError("invalid_type", param, "This model takes texts, not lists of tokens.");
    if (text === "") throw new RefusedFieldError("invalid_value", param, "A text must not be empty.");
    return text;
  });
}

/** The bodies of the calls to make. @throws RefusedFieldError */
export function embeddingBodies(body: Json, family: EmbeddingFamily): readonly Json[] {
  const { dimensions, encoding_format } = body;
  const wanted = countOf(dimensions);
  if (
    dimensions !== undefined &&
    dimensions !== null &&
    (wanted === undefined || !family.dimensions.includes(wanted))
  ) {
    const known = family.dimensions.join(", ");
    const what = known === "" ? "This model has one number of dimensions." : `This model has ${known} dimensions.`;
    throw new RefusedFieldError("unsupported_value", "dimensions", what);
  }
  if (encoding_format !== undefined && encoding_format !== "float" && encoding_format !== "base64")
    throw new RefusedFieldError("invalid_value", "encoding_format", "`encoding_format` must be `float` or `base64`.");
  const texts = textsOf(body);
  const { textsPerCall } = family;
  if (texts.length > EMBEDDING_CALLS_MAX * textsPerCall) {
    const most = EMBEDDING_CALLS_MAX * textsPerCall;
    throw new RefusedFieldError("invalid_value", "input", `This model takes ${most} texts at a time at most.`);
  }
  const bodies: Json[] = [];
  for (let at = 0; at < texts.length; at += textsPerCall)
    bodies.push(family.body(texts.slice(at, at + textsPerCall), wanted, body));
  return bodies;
}

function isVector(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === "number");
}

/** As OpenAI encodes it: 32-bit floats, the lowest byte first. */
function base64Of(vector: readonly number[]): string {
  const bytes = Buffer.alloc(4 * vector.length);
  vector.forEach((each, index) => bytes.writeFloatLE(each, 4 * index));
  return bytes.toString("base64");
}

const TOKENS_HEADER = "x-amzn-bedrock-input-token-count";

function tokensOf({ body, headers }: JsonAnswer, family: EmbeddingFamily): number | undefined {
  const told = family.tokens(body);
  if (told !== undefined) return told;
  const header = textOf(headers[TOKENS_HEADER]);
  return /^\d+$/.test(header) ? countOf(Number(header)) : undefined;
}

/** One answer of OpenAI's for all calls; without usage if one of them did not say its own. Null: this is no answer. */
export function embeddingAnswer(
  answers: readonly JsonAnswer[],
  body: Json,
  family: EmbeddingFamily,
  model: string,
): Json | null {
  const vectors: (readonly number[])[] = [];
  let tokens: number | undefined = 0;
  for (const answer of answers) {
    for (const vector of family.vectors(answer.body) ?? []) {
      if (!isVector(vector)) return null;
      vectors.push(vector);
    }
    const some = tokensOf(answer, family);
    tokens = some === undefined || tokens === undefined ? undefined : tokens + some;
  }
  if (vectors.length !== textsOf(body).length) return null;
  const base64 = body["encoding_format"] === "base64";
  return {
    object: "list",
    data: vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: base64 ? base64Of(vector) : vector,
    })),
    model,
    ...(tokens === undefined ? {} : { usage: { prompt_tokens: tokens, total_tokens: tokens } }),
  };
}
