/** Tokens of Messages bodies, counted here. */

import { describe, expect, test } from "vitest";
import { FILE_TOKENS, MESSAGE_TOKENS, MESSAGES_IMAGE_TOKENS, PRIMING_TOKENS } from "../../tokenizer/input.ts";
import {
  BYTES_PER_TOKEN,
  checkCountTokens,
  CLAUDE_FACTOR,
  countTokensAnswer,
  countTokensJob,
  NEW_CLAUDE_FACTOR,
  OPEN_FACTOR,
  tokenFactor,
} from "./count_tokens.ts";

test.each([
  ["claude-sonnet-4-5-20250929", "", CLAUDE_FACTOR],
  ["claude-opus-4-6", "", CLAUDE_FACTOR],
  ["claude-opus-4-20250514", "", CLAUDE_FACTOR],
  ["claude-3-haiku-20240307", "", CLAUDE_FACTOR],
  ["claude-3-5-sonnet-20240620", "", CLAUDE_FACTOR],
  ["claude-opus-4-7", "", NEW_CLAUDE_FACTOR],
  ["claude-opus-4-8", "", NEW_CLAUDE_FACTOR],
  ["us.anthropic.claude-sonnet-5-5", "", NEW_CLAUDE_FACTOR],
  ["claude-sonnet-5", "", NEW_CLAUDE_FACTOR],
  ["claude-fable-5-1", "", NEW_CLAUDE_FACTOR],
  ["arn:aws:bedrock:x", "claude-haiku-5-5", NEW_CLAUDE_FACTOR],
  ["my-deployment", "anthropic", CLAUDE_FACTOR],
  ["llama-3.3-70b", "", OPEN_FACTOR],
  ["deepseek-chat", "", OPEN_FACTOR],
  ["gpt-5", "", 1],
  ["", "", 1],
])("%s (%s) counts %d times", (model, family, factor) => {
  expect(tokenFactor(model, family)).toBe(factor);
});

const BODY = {
  model: "m",
  system: "Be short.",
  messages: [
    {
      role: "user",
      content: [
        { type: "text", text: "Look" },
        { type: "image", source: { type: "base64", media_type: "image/png", data: "A".repeat(100_000) } },
        { type: "document", source: { type: "base64", media_type: "application/pdf", data: "A".repeat(100_000) } },
      ],
    },
  ],
};
const FIXED = PRIMING_TOKENS + 2 * MESSAGE_TOKENS + MESSAGES_IMAGE_TOKENS + FILE_TOKENS;

describe("the answer", () => {
  const job = countTokensJob(Buffer.from(JSON.stringify(BODY)), "claude-sonnet-5");
  test("has the factor on text alone", () => {
    expect(job).toMatchObject({
      model: "claude-sonnet-5",
      input: { tokens: FIXED },
      output: { textBytes: 0, tokens: 0 },
    });
    expect(countTokensAnswer(job, { input: FIXED + 5, output: 0 }, 1.5)).toEqual({ input_tokens: FIXED + 8 });
    expect(countTokensAnswer(job, { input: FIXED + 5, output: 0 }, 1)).toEqual({ input_tokens: FIXED + 5 });
  });

  test("goes by bytes where nothing could be counted", () => {
    const text = Math.ceil(job.input.textBytes / BYTES_PER_TOKEN);
    expect(countTokensAnswer(job, null, 1)).toEqual({ input_tokens: FIXED + text });
  });
});

test("bodies need messages, and nothing else", () => {
  checkCountTokens(BODY);
  checkCountTokens({ messages: [], tools: [{ type: "web_search_20250305" }] });
  for (const [messages, code] of [
    [undefined, "missing_required_parameter"],
    [null, "missing_required_parameter"],
    ["Hi", "invalid_type"],
  ])
    expect(() => checkCountTokens({ messages })).toThrow(expect.objectContaining({ param: "messages", code }));
});
