import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";
import fc from "fast-check";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { responsesClient } from "./client.ts";
import { ANSWERS, context, delta, letters, streamOf } from "./testing.ts";

let server: Server;
let client: OpenAI;
let baseURL = "";
let body = "";

beforeAll(async () => {
  server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  baseURL = `http://127.0.0.1:${port}/v1`;
  client = new OpenAI({ baseURL, apiKey: "k", maxRetries: 0 });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

describe("the official SDK", () => {
  /** What the SDK makes of the events, without what it adds itself. */
  async function read(): Promise<{ text: string; response: Json }> {
    const stream = client.responses.stream({ model: "lm", input: "x" });
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    const { output_text: _, output_parsed: __, output, ...rest } = await stream.finalResponse();
    const plain = JSON.parse(JSON.stringify({ ...rest, output })) as Json;
    for (const item of listOf(plain["output"]).map(objectOf)) {
      const parsed = item as Record<string, unknown>;
      delete parsed["parsed_arguments"];
      for (const part of listOf(item["content"])) delete (part as Record<string, unknown>)["parsed"];
    }
    return { text, response: plain };
  }

  test.each(ANSWERS)("$name: reads the stream as it would read the whole answer", async ({ chat }) => {
    const request = { input: "x", instructions: "i", tools: [{ type: "function", name: "f", parameters: {} }] };
    body = streamOf(chat, request, letters);
    const { text, response } = await read();
    expect(response).toEqual(responsesClient.answer(chat, context(request)));
    expect(text).toBe(textOf(objectOf(objectOf(listOf(chat["choices"])[0])["message"])["content"]));
  });

  test("reads an answer that the wallet cut", async () => {
    const chat = ANSWERS[1]!.chat;
    body = streamOf(chat, {}, letters, "cut");
    const { response } = await read();
    expect(response).toMatchObject({
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      usage: ANSWERS[1]!.usage,
    });
    expect(listOf(response["output"]).map((item) => objectOf(item)["status"])).toEqual([
      undefined,
      "completed",
      "completed",
      "completed",
      "incomplete",
    ]);
  });

  test("reads any deltas in any order", async () => {
    const piece = fc.oneof(
      fc.string().map((content) => delta({ content })),
      fc.string().map((text) => delta({ reasoning_content: text })),
      fc.string().map((refusal) => delta({ refusal })),
      fc.tuple(fc.nat(3), fc.string()).map(([index, args]) =>
        delta({
          tool_calls: [{ index, id: `call_${index}`, type: "function", function: { name: "f", arguments: args } }],
        }),
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (deltas) => {
        const sink = responsesClient.sink(context());
        body = deltas.map((each) => sink.push(each)).join("") + sink.end({ prompt_tokens: 1, completion_tokens: 2 });
        const end = body.slice(body.lastIndexOf("data: ") + "data: ".length);
        const last = objectOf(objectOf(JSON.parse(end))["response"]);
        const { response } = await read();
        expect(response).toEqual(last);
        expect(response["usage"]).toMatchObject({ input_tokens: 1, output_tokens: 2, total_tokens: 3 });
      }),
      { numRuns: 30 },
    );
  });
});

describe("the Vercel AI SDK", () => {
  test("reads reasoning, text and calls, with usage", async () => {
    body = streamOf(ANSWERS[1]!.chat, { input: "x" }, letters);
    const model = createOpenAI({ baseURL, apiKey: "k" }).responses("gpt-5");
    const result = streamText({ model, prompt: "x", maxRetries: 0 });
    expect(await result.text).toBe("I look.");
    expect(await result.reasoningText).toBe("Think.");
    expect(await result.finishReason).toBe("tool-calls");
    expect((await result.toolCalls).map((call) => call.toolCallId)).toContain("call_1");
    expect(await result.usage).toMatchObject({ inputTokens: 3, outputTokens: 9 });
  });

  test("reads an answer that was too long", async () => {
    body = streamOf(ANSWERS[3]!.chat, { input: "x" }, letters);
    const model = createOpenAI({ baseURL, apiKey: "k" }).responses("gpt-5");
    const result = streamText({ model, prompt: "x", maxRetries: 0 });
    expect(await result.text).toBe("Hel");
    expect(await result.finishReason).toBe("length");
    expect(await result.usage).toMatchObject({ inputTokens: 3, outputTokens: 1 });
  });
});
