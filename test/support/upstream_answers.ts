/**
 * What the simulated upstream says: pure and deterministic. One word is one token, so that everybody can count along.
 */

import { createHash } from "node:crypto";

const SENTENCE =
  "This is a simulated answer from the TokenBill test upstream: no real model was called, and every word counts as one " +
  "token, so that you can follow the wallet by hand while it falls to the last digit.";
export const SENTENCE_WORDS: readonly string[] = SENTENCE.split(" ");
export const EMBEDDING_DIMENSIONS = 16;
const CREATED = 1_764_000_000;

/** `include` is everything of an answer but its words. */
export interface Answer {
  readonly id: string;
  readonly model: string;
  /** One list of words for each choice. */
  readonly choices: readonly (readonly string[])[];
  readonly finishReason: "stop" | "length";
  readonly usage: Usage;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { cached_tokens: number; audio_tokens: number };
  readonly completion_tokens_details: { reasoning_tokens: number; audio_tokens: number };
}

export function countWords(text: string): number {
  return text.split(/\s+/).filter((word) => word !== "").length;
}

/** The words of all texts in a `messages`, `prompt` or `input` value; token arrays count their numbers. */
export function countTokens(value: unknown): number {
  if (typeof value === "string") return countWords(value);
  if (typeof value === "number") return 1;
  if (Array.isArray(value)) return value.reduce((sum: number, item) => sum + countTokens(item), 0);
  if (value === null || typeof value !== "object") return 0;
  const { content, text } = value as { content?: unknown; text?: unknown };
  return countTokens(content) + countTokens(text);
}

export interface AnswerRequest {
  readonly model: string;
  readonly input: unknown;
  readonly n: number;
  readonly maxTokens: number | undefined;
  readonly words: number;
  readonly cachedTokens: number;
  readonly reasoningTokens: number;
}

export function composeAnswer(id: string, request: AnswerRequest): Answer {
  const length = Math.min(request.words, request.maxTokens ?? request.words);
  const words = Array.from({ length }, (_, i) => SENTENCE_WORDS[i % SENTENCE_WORDS.length]!);
  const prompt = Math.max(1, countTokens(request.input));
  const completion = request.n * (length + request.reasoningTokens);
  return {
    id,
    model: request.model,
    choices: Array.from({ length: request.n }, () => words),
    finishReason: length < request.words ? "length" : "stop",
    usage: {
      prompt_tokens: prompt,
      completion_tokens: completion,
      total_tokens: prompt + completion,
      prompt_tokens_details: { cached_tokens: Math.min(request.cachedTokens, prompt), audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: request.n * request.reasoningTokens, audio_tokens: 0 },
    },
  };
}

export type Style = "chat" | "text";

export function answerBody(style: Style, answer: Answer, usage: unknown): object {
  const choices = answer.choices.map((words, index) => ({
    index,
    ...(style === "chat"
      ? { message: { role: "assistant", content: words.join(" "), refusal: null, annotations: [] } }
      : { text: words.join(" ") }),
    logprobs: null,
    finish_reason: answer.finishReason,
  }));
  return { ...head(style, answer, false), choices, ...(usage === undefined ? {} : { usage }) };
}

function head(style: Style, answer: Answer, stream: boolean): object {
  const object = style === "text" ? "text_completion" : stream ? "chat.completion.chunk" : "chat.completion";
  return { id: answer.id, object, created: CREATED, model: answer.model, system_fingerprint: "fp_simulated" };
}

/** One SSE frame; `content` says whether it carries words of the answer. */
export interface Frame {
  readonly data: string;
  readonly content: boolean;
}

/** The frames of a stream without `[DONE]`. `usage` undefined: the client did not ask; else it is the last chunk. */
export function answerFrames(style: Style, answer: Answer, usage: unknown): Frame[] {
  const frames: Frame[] = [];
  const pending = usage === undefined ? {} : { usage: null };
  const push = (choice: object, content: boolean): void => {
    frames.push({ data: JSON.stringify({ ...head(style, answer, true), choices: [choice], ...pending }), content });
  };
  for (let index = 0; index < answer.choices.length && style === "chat"; index++) {
    push(
      { index, delta: { role: "assistant", content: "", refusal: null }, logprobs: null, finish_reason: null },
      false,
    );
  }
  const length = answer.choices[0]?.length ?? 0;
  for (let i = 0; i < length; i++) {
    for (let index = 0; index < answer.choices.length; index++) {
      const text = (i === 0 ? "" : " ") + answer.choices[index]![i]!;
      push(
        { index, ...(style === "chat" ? { delta: { content: text } } : { text }), logprobs: null, finish_reason: null },
        true,
      );
    }
  }
  for (let index = 0; index < answer.choices.length; index++) {
    const empty = style === "chat" ? { delta: {} } : { text: "" };
    push({ index, ...empty, logprobs: null, finish_reason: answer.finishReason }, false);
  }
  if (usage !== undefined) {
    frames.push({ data: JSON.stringify({ ...head(style, answer, true), choices: [], usage }), content: false });
  }
  return frames;
}

/** Numbers in [-1, 1) that depend on the text alone. */
export function embed(text: string, dimensions: number): Float32Array {
  const vector = new Float32Array(dimensions);
  for (let i = 0; i < dimensions; i++) {
    vector[i] = createHash("sha256").update(`${i}:${text}`).digest().readInt32LE(0) / 2 ** 31;
  }
  return vector;
}

export function embeddingsBody(model: string, input: unknown, dimensions: number, base64: boolean): object {
  const many = Array.isArray(input) && typeof input[0] !== "number";
  const inputs: unknown[] = many ? (input as unknown[]) : [input];
  const tokens = Math.max(1, countTokens(input));
  return {
    object: "list",
    data: inputs.map((item, index) => {
      const vector = embed(JSON.stringify(item), dimensions);
      return {
        object: "embedding",
        index,
        embedding: base64 ? Buffer.from(vector.buffer).toString("base64") : Array.from(vector),
      };
    }),
    model,
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  };
}

export function modelBody(id: string): object {
  return { id, object: "model", created: CREATED, owned_by: "tokenbill-simulated-upstream" };
}

export function errorBody(message: string, type: string, code: string | null, param: string | null = null): object {
  return { error: { message: `${message} (simulated upstream)`, type, param, code } };
}
