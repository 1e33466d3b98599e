import { describe, expect, test } from "vitest";
import type { RequestSize } from "../budget/estimate.ts";
import { AUDIO_BYTES_PER_TOKEN, IMAGE_TOKENS } from "../tokenizer/input.ts";
import { mediaOf } from "../tokenizer/media.ts";
import { expectedTokens } from "./expected_tokens.ts";

const SIZE: RequestSize = {
  inputTokens: 0,
  images: 0,
  characters: 0,
  seconds: 0,
  mediaInputTokens: 0,
  mediaOutputTokens: 0,
  hasOutput: true,
  stream: true,
  outputTokensMax: 0,
  answers: 1,
};
const of = (body: unknown, size: Partial<RequestSize> = {}) => {
  const bytes = Buffer.from(JSON.stringify(body));
  return expectedTokens(bytes, mediaOf(bytes), { ...SIZE, ...size });
};

test("text counts by its bytes, and an answer as it is expected", () => {
  const text = "x".repeat(400);
  expect(of({ text })).toEqual({ input: 103, all: 103 + 1024 });
  expect(of({ text }, { outputTokensMax: 10, answers: 3 }).all).toBe(103 + 30);
  expect(of({ text }, { hasOutput: false }).all).toBe(103);
});

describe("media count by what models make of them, not by their bytes", () => {
  const base64 = "QUJD".repeat(250_000);

  test("images and files", () => {
    const image = { type: "image_url", image_url: { url: `data:image/png;base64,${base64}` } };
    const { input } = of({ messages: [{ role: "user", content: [image, image, { type: "text", text: "hi" }] }] });
    expect(input).toBeGreaterThan(2 * IMAGE_TOKENS);
    expect(input).toBeLessThan(2 * IMAGE_TOKENS + 100);
  });

  test("audio", () => {
    const audio = { type: "input_audio", input_audio: { data: base64, format: "mp3" } };
    const { input } = of({ messages: [{ role: "user", content: [audio] }] });
    expect(input).toBeGreaterThan(base64.length / AUDIO_BYTES_PER_TOKEN);
    expect(input).toBeLessThan(base64.length / AUDIO_BYTES_PER_TOKEN + 100);
  });

  test("but long text is text", () => {
    expect(of({ text: "word ".repeat(20_000) }).input).toBeGreaterThan(24_000);
    // In the shape of neither: what follows is not taken for media.
    expect(of({ text: `"input_audio" base64, ${"word ".repeat(20_000)}` }).input).toBeGreaterThan(24_000);
  });
});
