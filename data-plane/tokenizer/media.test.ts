/** What counts as media, and what only looks like it. */

import { expect, test } from "vitest";
import { AUDIO_BYTES_PER_TOKEN_MIN, FILE_TOKENS_MAX, IMAGE_TOKENS_MAX, inputTokensMax, mediaOf } from "./media.ts";

const BYTES = 4_000_000;
const base64 = "QUJD".repeat(BYTES / 4);
const url = `data:image/png;base64,${base64}`;
const source = (type: string, media_type: string) => ({ type, media_type, data: base64 });
const user = (...content: unknown[]) => ({ messages: [{ role: "user", content }] });

/** The most tokens, but for those of what surrounds the media. */
function most(body: unknown): number {
  const bytes = Buffer.from(JSON.stringify(body));
  return inputTokensMax(bytes, mediaOf(bytes));
}

test.each([
  ["an image of chat", user({ type: "image_url", image_url: { url, detail: "high" } }), IMAGE_TOKENS_MAX],
  [
    "an image of Responses",
    { input: [{ role: "user", content: [{ type: "input_image", image_url: url }] }] },
    IMAGE_TOKENS_MAX,
  ],
  ["an image of Messages", user({ type: "image", source: source("base64", "image/png") }), IMAGE_TOKENS_MAX],
  [
    "an image in the result of a tool",
    user({ type: "tool_result", content: [{ type: "image", source: source("base64", "image/png") }] }),
    IMAGE_TOKENS_MAX,
  ],
  [
    "a screenshot",
    { input: [{ type: "computer_call_output", output: { type: "computer_screenshot", image_url: url } }] },
    IMAGE_TOKENS_MAX,
  ],
  [
    "an image to be edited",
    { images: [{ image_url: url }], mask: { image_url: "data:image/png;base64,AA" } },
    IMAGE_TOKENS_MAX,
  ],
  ["an image to be judged", { input: [{ type: "image_url", image_url: { url } }] }, IMAGE_TOKENS_MAX],
  ["a document", user({ type: "document", source: source("base64", "application/pdf") }), FILE_TOKENS_MAX],
  [
    "a file of chat",
    user({ type: "file", file: { file_data: `data:application/pdf;base64,${base64}` } }),
    FILE_TOKENS_MAX,
  ],
  ["a recording", user({ type: "input_audio", input_audio: { data: base64 } }), BYTES / AUDIO_BYTES_PER_TOKEN_MIN],
])("%s has no token for each byte", (_, body, tokens) => {
  const found = most(body);
  expect(found).toBeGreaterThanOrEqual(tokens);
  expect(found).toBeLessThan(tokens + 300);
});

test.each([
  ["a text that begins like an image", user({ type: "text", text: url })],
  ["a message that is one", { messages: [{ role: "user", content: url }] }],
  [
    "a text with quotes",
    user({ type: "text", text: `{"image_url":"${url}"} "media_type":"image/png","data":"${base64}"` }),
  ],
  ["the input of a tool", user({ type: "tool_use", input: { type: "image_url", image_url: { url } } })],
  ["a schema", { messages: [], tools: [{ parameters: { examples: [{ type: "input_image", image_url: url }] } }] }],
  ["texts to be embedded", { input: [url] }],
  ["a document that is text", user({ type: "document", source: source("text", "text/plain") })],
  [
    "a type that is said twice",
    `{"messages":[{"content":[{"type":"input_image","image_url":"${url}","text":"","type":"text"}]}]}`,
  ],
])("%s has", (_, body) => {
  const bytes = Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  expect(inputTokensMax(bytes, mediaOf(bytes))).toBe(bytes.length);
});
