/** What is sampled, how it is cut, and which encoding counts. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodingOf } from "./encodings.ts";
import {
  AUDIO_BYTES_PER_TOKEN,
  FILE_TOKENS,
  IMAGE_LOW_TOKENS,
  IMAGE_TOKENS,
  MESSAGE_TOKENS,
  MESSAGES_IMAGE_TOKENS,
  PRIMING_TOKENS,
  readInput,
  TOOL_CALL_TOKENS,
  TOOL_TOKENS,
  TOOLS_TOKENS,
} from "./input.ts";
import { PART_CHARS_MAX, partsOf, textsOf } from "./text.ts";
import { extrapolate, INPUT_SAMPLE_BYTES_MAX, Sampler } from "./tokens.ts";

test.each([
  ["gpt-4", "cl100k_base"],
  ["gpt-4-0613", "cl100k_base"],
  ["openai/gpt-4-turbo", "cl100k_base"],
  ["ft:gpt-3.5-turbo:acme::id", "cl100k_base"],
  ["gpt-35-turbo", "cl100k_base"],
  ["text-embedding-3-large", "cl100k_base"],
  ["gpt-4o-mini", "o200k_base"],
  ["gpt-4.1", "o200k_base"],
  ["gpt-5", "o200k_base"],
  ["o3-mini", "o200k_base"],
  ["llama-3.3-70b", "o200k_base"],
  ["", "o200k_base"],
])("%s counts with %s", (model, encoding) => {
  expect(encodingOf(model)).toBe(encoding);
});

const read = (body: unknown) => readInput(Buffer.from(JSON.stringify(body)));
const lines = (body: unknown): string[] => textsOf(read(body).bytes);

describe("the text of a request", () => {
  test("is what the model reads, and not its settings", () => {
    const body = {
      model: "gpt",
      temperature: 0.5,
      user: "somebody",
      messages: [
        { role: "system", content: 'Say "hi"\n' },
        { role: "user", content: [{ type: "text", text: "你好" }] },
      ],
    };
    expect(lines(body)).toEqual(['Say "hi"\n', "你好"]);
    expect(read(body).tokens).toBe(PRIMING_TOKENS + 2 * MESSAGE_TOKENS);
  });

  test("images, audio and files count by constants, whatever their length", () => {
    const of = (part: Record<string, unknown>): [number, string[]] => {
      const body = { messages: [{ role: "user", content: [part] }] };
      return [read(body).tokens - PRIMING_TOKENS - MESSAGE_TOKENS, lines(body)];
    };
    const data = "A".repeat(10 * AUDIO_BYTES_PER_TOKEN);
    expect(of({ type: "image_url", image_url: { url: `data:image/png;base64,${data}` } })).toEqual([IMAGE_TOKENS, []]);
    expect(of({ type: "image_url", image_url: { url: "https://x.example/a", detail: "low" } })).toEqual([
      IMAGE_LOW_TOKENS,
      [],
    ]);
    expect(of({ type: "input_image", image_url: "https://x.example/a" })).toEqual([IMAGE_TOKENS, []]);
    expect(of({ type: "file", file: { file_data: data, filename: "a.pdf" } })).toEqual([FILE_TOKENS, []]);
    expect(of({ type: "input_audio", input_audio: { data, format: "mp3" } })).toEqual([11, []]);
  });

  test("prompts and inputs are text or tokens", () => {
    expect(lines({ prompt: ["a b", "c"], suffix: "d" })).toEqual(["a b", "c", "d"]);
    expect(read({ input: [[1, 2, 3], [40]] }).tokens).toBe(4);
    expect(
      lines({ instructions: "Be short.", input: [{ role: "user", content: [{ type: "input_text", text: "x" }] }] }),
    ).toEqual(["Be short.", "x"]);
  });

  test("of Messages is read, and bytes and marks are not", () => {
    const data = "A".repeat(1000);
    const body = {
      model: "claude",
      max_tokens: 7,
      metadata: { user_id: "u" },
      system: [{ type: "text", text: "Be short.", cache_control: { type: "ephemeral", ttl: "1h" } }],
      messages: [
        { role: "user", content: "Hi" },
        {
          role: "assistant",
          content: [
            { type: "thinking", thinking: "Hm.", signature: data },
            { type: "redacted_thinking", data },
            { type: "tool_use", id: "toolu_1", name: "get", input: { id: 7, type: "x" } },
          ],
        },
        {
          role: "user",
          content: [
            {
              type: "tool_result",
              tool_use_id: "toolu_1",
              content: [
                { type: "text", text: "found" },
                { type: "image", source: { type: "base64", media_type: "image/png", data } },
              ],
            },
            { source: { data, media_type: "image/png", type: "base64" }, type: "image" },
            { type: "image", source: { type: "url", url: "https://x.example" } },
            { type: "document", source: { type: "base64", media_type: "application/pdf", data }, title: "T" },
            { type: "document", source: { type: "text", media_type: "text/plain", data: "plain" } },
            { type: "document", source: { type: "content", content: [{ type: "text", text: "inner" }] } },
          ],
        },
      ],
      tools: [{ name: "get", description: "Gets.", input_schema: { type: "object" }, cache_control: { ttl: "1h" } }],
    };
    expect(lines(body)).toEqual([
      "Be short.",
      "Hi",
      "Hm.",
      "get",
      '{"id":7,"type":"x"}',
      "found",
      "T",
      "plain",
      "inner",
      "get",
      "Gets.",
    ]);
    const around = PRIMING_TOKENS + 4 * MESSAGE_TOKENS + TOOL_CALL_TOKENS + TOOLS_TOKENS + TOOL_TOKENS;
    expect(read(body).tokens).toBe(around + 3 * MESSAGES_IMAGE_TOKENS + FILE_TOKENS);
  });

  test("of Responses is read, and encrypted reasoning is not", () => {
    const body = {
      model: "gpt",
      previous_response_id: "resp_1",
      instructions: "Be short.",
      input: [
        { role: "user", content: "Hi" },
        { type: "reasoning", id: "rs_1", summary: [{ type: "summary_text", text: "Hm." }], encrypted_content: "A" },
        { type: "function_call", call_id: "c", name: "get", arguments: '{"a":1}' },
        { type: "function_call_output", call_id: "c", output: "found" },
        { role: "user", content: [{ type: "input_image", image_url: "data:image/png;base64,AAAA" }] },
        {
          role: "user",
          content: [{ type: "input_file", filename: "a.pdf", file_data: "data:application/pdf;base64,A" }],
        },
      ],
      tools: [{ type: "function", name: "get", description: "Gets.", parameters: { type: "object" } }],
    };
    expect(lines(body)).toEqual(["Be short.", "Hi", "Hm.", "get", '{"a":1}', "found", "a.pdf", "get", "Gets."]);
    const around = PRIMING_TOKENS + 6 * MESSAGE_TOKENS + TOOL_CALL_TOKENS + TOOLS_TOKENS + TOOL_TOKENS;
    expect(read(body).tokens).toBe(around + IMAGE_TOKENS + FILE_TOKENS);
    expect(lines({ instructions: "a", input: "b" })).toEqual(["a", "b"]);
  });

  test("only the first of a long one is kept, but all of it is measured", () => {
    const sample = read({ messages: [{ role: "user", content: "x".repeat(300_000) }] });
    expect([sample.bytes.length, sample.textBytes]).toEqual([INPUT_SAMPLE_BYTES_MAX, 300_001]);
    expect(extrapolate(100, { ...sample, tokens: 7 })).toBe(7 + Math.round((100 * 300_001) / INPUT_SAMPLE_BYTES_MAX));
  });
});

describe("samples", () => {
  test("hold the first bytes of any pieces", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "binary", maxLength: 200 }), { maxLength: 30 }),
        fc.integer({ min: 0, max: 2000 }),
        (pieces, max) => {
          const sampler = new Sampler(max);
          const all = Buffer.from(pieces.join(""));
          for (const piece of pieces.map((text) => Buffer.from(text))) sampler.add(piece, 0, piece.length);
          expect(Buffer.from(sampler.sample().bytes)).toEqual(all.subarray(0, max));
          expect(sampler.textBytes).toBe(all.length);
        },
      ),
    );
  });

  test("come out of JSON as they went in", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 100 }), (text) => {
        const sampler = new Sampler(10_000);
        sampler.addText(text);
        expect(textsOf(sampler.sample().bytes)).toEqual([text]);
      }),
    );
  });

  test("what is cut within an escape is still text", () => {
    expect(textsOf(Buffer.from('a\\"b\\n\\ud83c\\udf89 c\\u00'))).toEqual(['a"b\n🎉 c\\u00']);
  });
});

test("long texts are cut between words, and never within a character", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 5000 }), (text) => {
      const parts = partsOf(text);
      expect(parts.join("")).toBe(text);
      for (const part of parts) {
        expect(part.length).toBeLessThanOrEqual(PART_CHARS_MAX);
        expect(part.isWellFormed()).toBe(text.isWellFormed() || part.isWellFormed());
      }
    }),
  );
  const words = partsOf("some words ".repeat(500));
  expect(words.slice(1).every((part) => /^ \S/.test(part))).toBe(true);
});

test.each([
  ["arrays", "messages", "[1,", "1", "]"],
  ["objects", "messages", '{"a":', '"b"', "}"],
  ["sources", "messages", '{"source":{"content":', "[]", "}}"],
  ["schemas", "tools", '[{"properties":{"a":', '{"type":"string"}', "}}]"],
])("%s within each other are read once, however deep they stand", (_, place, opening, inner, closing) => {
  const reads = (depth: number): number => {
    let count = 0;
    const text = `{"${place}":[${opening.repeat(depth)}${inner}${closing.repeat(depth)}]}`;
    const counting = new Proxy(Buffer.from(text), {
      get(target, name) {
        if (typeof name === "string" && /^\d+$/.test(name)) count++;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? (value as () => unknown).bind(target) : value;
      },
    });
    readInput(counting);
    return count;
  };
  // Three times as deep: nine times as many where each level is read again from each one around it.
  expect(reads(75)).toBeLessThan(4 * reads(25));
});
