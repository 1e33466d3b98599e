import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import OpenAI from "openai";
import { describe, expect, test } from "vitest";
import { exhaustedFields } from "../../errors.ts";
import { pinId, renameInAnswer, unpinId } from "../../pins.ts";
import { parseFrame, type SseEvent, SseSplitter } from "../../sse.ts";
import { FrameKind } from "../format.ts";
import type { Json } from "../hub.ts";
import { objectOf } from "../json.ts";
import { ResponsesStream, responsesErrorFrame } from "./native.ts";
import { readResponse, readResponseTail } from "./native_answer.ts";

function bytesOf(name: string): Buffer {
  return readFileSync(new URL(`../../../test/fixtures/responses/${name}`, import.meta.url));
}

const ANSWERS = JSON.parse(bytesOf("upstream_answers.json").toString("utf8")) as {
  name: string;
  response: Json;
  chat: Json;
}[];
const SECRET = "s".repeat(32);
const rename = (id: string): string => pinId(SECRET, id, "pm-1");

describe("whole answers", () => {
  test.each(ANSWERS)("$name: report usage in the hub's shape", ({ response, chat }) => {
    const reading = readResponse(Buffer.from(JSON.stringify(response)));
    expect(reading.valid).toBe(true);
    expect(reading.hasContent()).toBe(true);
    expect(reading.textBytes()).toBeGreaterThan(0);
    expect(reading.usage).toEqual(chat["usage"]);
  });

  test.each<[string, Json, boolean, boolean]>([
    ["one in the background", { status: "queued", output: [], usage: null }, true, false],
    [
      "one without text",
      { status: "completed", output: [{ type: "message", content: [{ type: "output_text", text: "" }] }] },
      true,
      false,
    ],
    [
      "reasoning alone",
      { status: "incomplete", output: [{ type: "reasoning", id: "rs_1", summary: [] }] },
      true,
      false,
    ],
    ["a search alone", { status: "completed", output: [{ type: "web_search_call", id: "ws_1" }] }, true, true],
    ["a failed one", { status: "failed", output: [], error: { code: "server_error" } }, false, false],
    ["a failed one that does not say why", { status: "failed", output: [] }, false, false],
    ["an error", { error: { message: "x" } }, false, false],
    ["a chat completion", { choices: [] }, false, false],
  ])("%s", (_, body, valid, content) => {
    const reading = readResponse(Buffer.from(JSON.stringify(body)));
    expect([reading.valid, reading.hasContent(), reading.usage]).toEqual([valid, content, null]);
  });

  test("searches are counted by the calls where nothing else says them", () => {
    const usage = { input_tokens: 1, output_tokens: 2 };
    const output = [{ type: "web_search_call" }, { type: "web_search_call" }];
    expect(readResponse(Buffer.from(JSON.stringify({ output, usage }))).usage).toMatchObject({ tool_calls: 2 });
    const none = { output, usage, tool_usage: { web_search: { num_requests: 0 } } };
    expect(readResponse(Buffer.from(JSON.stringify(none))).usage).not.toHaveProperty("tool_calls");
  });

  test("drawings as SVG are told by their own model's tokens, and added to those of images", () => {
    const output = [
      { type: "image_generation_call", status: "completed", svg_usage: { input_tokens: 3, output_tokens: 40 } },
      { type: "image_generation_call", status: "completed", svg_usage: { input_tokens: 2, output_tokens: 10 } },
    ];
    const body = {
      output,
      usage: { input_tokens: 1, output_tokens: 2 },
      tool_usage: { image_gen: { input_tokens: 7, output_tokens: 100 } },
    };
    expect(readResponse(Buffer.from(JSON.stringify(body))).usage).toMatchObject({
      images: 2,
      image_input_tokens: 12,
      image_output_tokens: 150,
    });
  });

  test.each(["", "null", "[]", "{", '{"output":[]'])("%s is none", (text) => {
    expect(readResponse(Buffer.from(text))).toMatchObject({ valid: false, usage: null });
  });

  test("too long to keep: the tokens are in the tail", () => {
    const text = JSON.stringify(ANSWERS[0]!.response);
    expect(readResponseTail(Buffer.from(text.slice(-600)))).toEqual(ANSWERS[0]!.chat["usage"]);
    expect(readResponseTail(Buffer.from(text.slice(-50)))).toBeNull();
  });

  test("have ids of the client's, and nothing else changes", () => {
    const text = JSON.stringify({ ...ANSWERS[0]!.response, previous_response_id: "resp_0" });
    const changed = renameInAnswer(Buffer.from(text), rename).toString("utf8");
    expect(unpinId(SECRET, objectOf(JSON.parse(changed))["id"] as string, ["pm-1"])?.upstreamId).toBe("resp_68af02");
    expect(changed.replace(rename("resp_68af02"), "resp_68af02").replace(rename("resp_0"), "resp_0")).toBe(text);
  });
});

interface Seen {
  readonly reader: ResponsesStream;
  readonly kinds: FrameKind[];
  /** What the client gets. */
  readonly sent: string;
}

function read(bytes: Buffer, exact: boolean, ends: readonly number[] = [], pinned = true): Seen {
  const reader = new ResponsesStream(pinned ? rename : null);
  const kinds: FrameKind[] = [];
  const splitter = new SseSplitter();
  const event: SseEvent = { event: "", data: null };
  let sent = "";
  let from = 0;
  for (const end of [...ends, bytes.length].sort((a, b) => a - b)) {
    splitter.push(bytes.subarray(from, end), (buffer, start, stop) => {
      parseFrame(buffer, start, stop, event);
      kinds.push(reader.read(event, exact));
      sent += (reader.replacement(buffer, start, stop) ?? buffer.subarray(start, stop)).toString("latin1");
    });
    from = end;
  }
  return { reader, kinds, sent };
}

const NAMES = ["text", "tools", "refusal", "incomplete", "hosted"];
const usageOf = (name: string): unknown => ANSWERS.find((answer) => answer.name === name)!.chat["usage"];

describe("streams", () => {
  test.each(NAMES)("%s: report usage in the hub's shape and are whole", (name) => {
    const { reader, kinds } = read(bytesOf(`upstream_${name}.sse`), true);
    expect(reader.usage).toEqual(usageOf(name));
    expect(reader.finished).toBe(true);
    expect(kinds.at(-1)).toBe(FrameKind.CONTENT);
    expect(kinds.slice(0, 2)).toEqual([FrameKind.EMPTY, FrameKind.EMPTY]);
  });

  test.each<[string, number, number]>([
    ["text", Buffer.byteLength('Grüße, \\"Welt\\"\\n👋'), 3],
    // Reasoning, three names, and the arguments.
    [
      "tools",
      "Look it up.Twice.".length + "look".length * 2 + "shell".length + '{\\"q\\":\\"a\\"}'.length + "ls -l{}".length,
      11,
    ],
    ["refusal", "I can't do that.".length, 2],
    ["hosted", "Looking.Here.".length, 2],
  ])("%s: %i bytes of text in %i pieces", (name, bytes, pieces) => {
    const { reader } = read(bytesOf(`upstream_${name}.sse`), false);
    expect([reader.textBytes, reader.pieces]).toEqual([bytes, pieces]);
    expect(reader.sample().bytes.length).toBeGreaterThan(0);
  });

  test("what hosted tools did is known before the usage comes", () => {
    const text = bytesOf("upstream_hosted.sse").toString("utf8");
    const { reader, kinds } = read(Buffer.from(text.slice(0, text.indexOf("event: response.completed"))), false);
    expect(reader.hosted).toEqual({ images: 1, tool_calls: 1 });
    expect([reader.usage, reader.finished]).toEqual([null, false]);
    expect(kinds).toContain(FrameKind.CONTENT);
  });

  test.each(NAMES)("%s: are read the same on bytes, parsed, without event lines, and cut anywhere", (name) => {
    const bytes = bytesOf(`upstream_${name}.sse`);
    const plain = Buffer.from(bytes.toString("utf8").replaceAll(/^event: .*\n/gm, ""));
    const facts = ({ reader, kinds }: Seen) => ({
      kinds,
      usage: reader.usage,
      bytes: reader.textBytes,
      pieces: reader.pieces,
      hosted: reader.hosted,
    });
    const whole = read(bytes, true);
    expect(facts(read(bytes, false))).toEqual(facts(whole));
    expect(facts(read(plain, true))).toEqual(facts(whole));
    expect(facts(read(plain, false))).toEqual(facts(whole));
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.length), { maxLength: 20 }), (ends) => {
        const cut = read(bytes, false, ends);
        expect(facts(cut)).toEqual(facts(whole));
        expect(cut.sent).toBe(whole.sent);
      }),
      { numRuns: 20 },
    );
  });

  test.each(NAMES)("%s: only the response's ids change", (name) => {
    const bytes = bytesOf(`upstream_${name}.sse`);
    const { sent } = read(bytes, false);
    const ids = [...sent.matchAll(/"id":"(resp_[^"]*)"/g)].map((match) => match[1]!);
    expect(ids).toHaveLength(3);
    for (const id of ids) expect(unpinId(SECRET, id, ["pm-1"])?.upstreamId).toBe("resp_68af02");
    expect(sent.replaceAll(rename("resp_68af02"), "resp_68af02")).toBe(bytes.toString("latin1"));
    expect(read(bytes, false, [], false).sent).toBe(bytes.toString("latin1"));
  });

  test("data on several lines comes out on one", () => {
    const text = 'event: response.created\ndata: {"type":"response.created",\ndata: "response":{"id":"resp_1"}}\n\n';
    expect(read(Buffer.from(text), false).sent).toBe(
      `event: response.created\ndata: {"type":"response.created", "response":{"id":"${rename("resp_1")}"}}\n\n`,
    );
  });

  test("that fail report what they used, and why", () => {
    const { reader, kinds } = read(bytesOf("upstream_failed.sse"), false);
    expect(kinds.at(-1)).toBe(FrameKind.ERROR);
    expect(reader.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 2 });
    expect(reader.error).toMatchObject({ code: "server_error", message: "The model had trouble.", clientFault: false });
  });

  test.each<[string, FrameKind]>([
    [": ping\n\n", FrameKind.COMMENT],
    ["data:\n\n", FrameKind.COMMENT],
    ["data: [DONE]\n\n", FrameKind.DONE],
    ["data: nonsense\n\n", FrameKind.BROKEN],
    ["data: {broken\n\n", FrameKind.BROKEN],
    ["event: error\n\n", FrameKind.ERROR],
    ['event: error\ndata: {"type":"error","message":"x","code":null,"param":null}\n\n', FrameKind.ERROR],
    ['data: {"type":"error","message":"x"}\n\n', FrameKind.ERROR],
    ['data: {"error":{"message":"x"}}\n\n', FrameKind.ERROR],
    ['event: response.new.thing\ndata: {"type":"response.new.thing","delta":"x"}\n\n', FrameKind.EMPTY],
    ['data: {"type":"response.output_text.delta","delta":""}\n\n', FrameKind.EMPTY],
    ['data: {"type":"response.output_text.delta","x":"delta"}\n\n', FrameKind.EMPTY],
    ['data: { "type": "response.output_text.delta", "x": "delta", "delta" : "y" }\n\n', FrameKind.CONTENT],
    ['data: {"type":"response.web_search_call.searching","item_id":"ws_1"}\n\n', FrameKind.CONTENT],
    ['data: {"type":"response.output_item.added","item":{"type":"message"}}\n\n', FrameKind.EMPTY],
    ['data: {"type":"response.output_item.added","item":{"type":"reasoning"}}\n\n', FrameKind.EMPTY],
    ['data: {"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}\n\n', FrameKind.CONTENT],
  ])("%j", (text, kind) => {
    expect(read(Buffer.from(text), true).kinds).toEqual([kind]);
    expect(read(Buffer.from(text), false).kinds).toEqual([kind]);
  });

  test("that the wallet cut end in the name of the response", () => {
    const text = bytesOf("upstream_text.sse").toString("utf8");
    const bytes = Buffer.from(text.split("\n\n").slice(0, 5).join("\n\n") + "\n\n");
    const { reader } = read(bytes, false);
    // The bytes are the socket's: what is needed later must have been copied.
    bytes.fill(0);
    const [event, data] = reader.lengthFrame().toString("utf8").split("\n");
    expect(event).toBe("event: response.incomplete");
    expect(JSON.parse(data!.slice("data: ".length))).toMatchObject({
      type: "response.incomplete",
      sequence_number: 5,
      response: {
        id: rename("resp_68af02"),
        model: "gpt-5.4-2026-03-05",
        status: "incomplete",
        incomplete_details: { reason: "max_output_tokens" },
        output: [],
        usage: null,
      },
    });
    expect(new ResponsesStream(null).lengthFrame().toString("utf8")).toContain('"status":"incomplete"');
  });
});

test("the official SDK raises the error that ends a stream", async () => {
  const body = bytesOf("upstream_text.sse").toString("utf8").split("\n\n").slice(0, 5).join("\n\n");
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(
      Buffer.concat([Buffer.from(`${body}\n\n`), responsesErrorFrame(exhaustedFields("https://pay.example/ve"), 5)]),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "k", maxRetries: 0 });
  const stream = await client.responses.create({ model: "lm", input: "x", stream: true });
  let text = "";
  const reading = async () => {
    for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  };
  await expect(reading()).rejects.toMatchObject({
    code: "insufficient_quota",
    type: "insufficient_quota",
    error: { checkout_url: "https://pay.example/ve" },
  });
  expect(text).toBe("Grüße, ");
  server.closeAllConnections();
  server.close();
});
