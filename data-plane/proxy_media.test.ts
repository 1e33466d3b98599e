/** Images and audio through a VE, with OpenAI's own SDK: what arrives, and what is billed. */

import OpenAI, { toFile } from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { formatCredits } from "../core/credits.ts";
import { CHECKOUT, type Gateway, type GatewayOptions, KEY, startGateway } from "./testing.ts";
import { type Handler, json, sse } from "./testing_upstream.ts";

let gateway: Gateway;
let client: OpenAI;

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({ forms: true, ...options });
  client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
}

afterEach(() => gateway.close());

interface MeterPrice {
  readonly meter: number;
  readonly creditPerUnit: string;
  readonly size?: string;
  readonly quality?: string;
}

/** A Physical Model with these prices. */
function priced(...meters: readonly MeterPrice[]): Record<string, unknown> {
  const value = { meters: meters.map((meter) => ({ perUnits: 1n, ...meter })) };
  return { price: { id: "price_media", kind: { case: "detailed", value } } };
}

const record = () => gateway.journal.settlements[0]!;
const units = () =>
  record().units.map(({ meter, quantity, source, size }) =>
    size === undefined ? [meter, quantity, source] : [meter, quantity, source, size],
  );
const credits = () => formatCredits(record().credits);

/** A WAV of silence, 16 kHz, 16 bit, mono. */
function wav(seconds: number): Buffer {
  const data = Buffer.alloc(seconds * 32_000);
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + data.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(16_000, 24);
  head.writeUInt32LE(32_000, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(data.length, 40);
  return Buffer.concat([head, data]);
}

function bytes(type: string, ...chunks: readonly Buffer[]): Handler {
  return (response) => {
    response.writeHead(200, { "content-type": type });
    for (const chunk of chunks) response.write(chunk);
    response.end();
  };
}

describe("transcriptions", () => {
  const SECONDS = priced({ meter: 9, creditPerUnit: "2" });

  test("are billed by the seconds that the upstream reports; the model may come after the file", async () => {
    await start({ pm: SECONDS });
    gateway.upstreams[0]!.next(json(200, { text: "Hello", usage: { type: "duration", seconds: 3 } }));
    const file = await toFile(wav(2), "a.wav", { type: "audio/wav" });
    const answer = await client.audio.transcriptions.create({ file, model: "gpt" });
    expect(answer.text).toBe("Hello");
    expect(units()).toEqual([
      [9, 3000, 1],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("6");
    const seen = gateway.upstreams[0]!.seen[0]!;
    expect(seen.path).toBe("/v1/audio/transcriptions");
    expect(seen.headers["content-type"]).toMatch(/^multipart\/form-data; boundary=/);
    expect(seen.headers["authorization"]).toBe("Bearer sk-upstream-secret-0");
    expect(seen.text).toContain("up-0");
    expect(seen.text).not.toContain("\r\ngpt\r\n");
  });

  test("in plain text are billed by the seconds that were measured", async () => {
    await start({ pm: SECONDS });
    gateway.upstreams[0]!.next(bytes("text/plain; charset=utf-8", Buffer.from("Hello\n")));
    const file = await toFile(wav(5), "a.wav");
    const answer = await client.audio.transcriptions.create({ file, model: "gpt", response_format: "text" });
    expect(answer).toBe("Hello\n");
    expect(units()).toEqual([
      [9, 5000, 2],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("10");
  });

  test.each([
    ["whose length cannot be told are billed by their bytes", Buffer.alloc(8_000, 7), "Hi\n", 2000],
    ["with a longer text than their head admits are billed by that", wav(1), "word ".repeat(60), 3000],
    [
      "with later subtitles than their head admits are billed by those",
      wav(1),
      "1\n00:00:00,000 --> 00:00:09,000\nHi\n\n",
      9000,
    ],
  ])("%s", async (_, audio, text, thousandths) => {
    await start({ pm: SECONDS });
    gateway.upstreams[0]!.next(bytes("text/plain; charset=utf-8", Buffer.from(text)));
    const file = await toFile(audio, "a.bin");
    await client.audio.transcriptions.create({ file, model: "gpt", response_format: "text" });
    expect(units()[0]).toEqual([9, thousandths, 2]);
  });

  test("in plain text, priced by tokens alone, are estimated", async () => {
    await start({ pm: priced({ meter: 1, creditPerUnit: "1" }, { meter: 4, creditPerUnit: "10" }) });
    gateway.upstreams[0]!.next(bytes("text/plain; charset=utf-8", Buffer.from("Hello\n")));
    const file = await toFile(wav(2), "a.wav");
    await client.audio.transcriptions.create({ file, model: "gpt", response_format: "text" });
    expect(units()).toEqual([
      [9, 2000, 2],
      [11, 1, 1],
      [6, 20, 2],
      [4, 2, 2],
    ]);
    expect(credits()).toBe("40");
  });

  test("stream, and fall over to another target with the whole file", async () => {
    await start({ upstreams: 2, pm: priced({ meter: 1, creditPerUnit: "1" }, { meter: 4, creditPerUnit: "10" }) });
    gateway.upstreams[0]!.next(json(503, {}));
    const usage = {
      type: "tokens",
      input_tokens: 50,
      input_token_details: { audio_tokens: 45, text_tokens: 5 },
      output_tokens: 4,
      total_tokens: 54,
    };
    const frame = (value: { type: string }) => `event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`;
    gateway.upstreams[1]!.next(
      sse([
        frame({ type: "transcript.text.delta", delta: "Hel" } as { type: string }),
        frame({ type: "transcript.text.done", text: "Hello", usage } as { type: string }),
      ]),
    );
    const file = await toFile(wav(1), "a.wav");
    const stream = await client.audio.transcriptions.create({ file, model: "gpt", stream: true });
    const events = [];
    for await (const event of stream) events.push(event.type);
    expect(events).toEqual(["transcript.text.delta", "transcript.text.done"]);
    expect(gateway.upstreams[1]!.seen[0]!.text.length).toBe(gateway.upstreams[0]!.seen[0]!.text.length);
    expect(units()).toEqual([
      [9, 1000, 2],
      [1, 5, 1],
      [6, 45, 1],
      [4, 4, 1],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("90");
  });

  test("longer than the wallet covers are refused with the link", async () => {
    await start({ pm: SECONDS });
    gateway.budget.free = 3n * 10n ** 12n;
    const file = await toFile(wav(2), "a.wav");
    await expect(client.audio.transcriptions.create({ file, model: "gpt" })).rejects.toMatchObject({
      status: 429,
      code: "insufficient_quota",
      message: expect.stringContaining(CHECKOUT),
    });
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  });

  test("go on with a content type that names its boundary and nothing else", async () => {
    await start({ pm: SECONDS });
    gateway.upstreams[0]!.next(json(200, { text: "Hi", usage: { type: "duration", seconds: 1 } }));
    const part = (name: string, value: string) =>
      `--b c\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
    const type = "multipart/form-data; boundary*=utf-8''z; charset=utf-7; boundary=\"b c\"";
    const answer = await gateway.post("/v1/audio/transcriptions", `${part("model", "gpt")}--b c--`, {
      "content-type": type,
    });
    expect(answer.status).toBe(200);
    expect(gateway.upstreams[0]!.seen[0]!.headers["content-type"]).toBe('multipart/form-data; boundary="b c"');
  });

  test.each([
    ["no form", JSON.stringify({ model: "gpt" }), "application/json", "file"],
    [
      "no model",
      '--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n',
      "multipart/form-data; boundary=b",
      "model",
    ],
    [
      "a form that is cut",
      '--b\r\ncontent-disposition: form-data; name="model"\r\n\r\ngpt',
      "multipart/form-data; boundary=b",
      null,
    ],
  ])("%s is a 400", async (_, body, type, param) => {
    await start();
    const answer = await gateway.post("/v1/audio/transcriptions", body, { "content-type": type });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { type: "invalid_request_error", param } });
  });
});

describe("speech", () => {
  test("passes through, billed by characters, or by what it lasts", async () => {
    await start({ pm: priced({ meter: 10, creditPerUnit: "1" }, { meter: 9, creditPerUnit: "100" }) });
    const pcm = [Buffer.alloc(24_000, 1), Buffer.alloc(24_000, 2)];
    gateway.upstreams[0]!.next(bytes("audio/pcm", ...pcm));
    const answer = await client.audio.speech.create({
      model: "gpt",
      voice: "alloy",
      input: "Grüße 🎈",
      response_format: "pcm",
    });
    expect(answer.headers.get("content-type")).toBe("audio/pcm");
    expect(Buffer.from(await answer.arrayBuffer())).toEqual(Buffer.concat(pcm));
    expect(units()).toEqual([
      [10, 7, 1],
      [9, 1000, 1],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("107");
  });

  test("priced by tokens alone is estimated where its bytes say nothing of them", async () => {
    await start({ pm: priced({ meter: 1, creditPerUnit: "1" }, { meter: 4, creditPerUnit: "2" }) });
    gateway.upstreams[0]!.next(bytes("audio/pcm", Buffer.alloc(48_000)));
    const input = "What is spoken here.";
    await gateway.post("/v1/audio/speech", { model: "gpt", voice: "alloy", input, response_format: "pcm" });
    expect(units().slice(3)).toEqual([
      [1, 5, 2],
      [7, 20, 2],
    ]);
    expect(credits()).toBe("45");
  });

  test("in frames", async () => {
    await start({ pm: priced({ meter: 1, creditPerUnit: "1" }, { meter: 4, creditPerUnit: "2" }) });
    const usage = { input_tokens: 9, output_tokens: 21, total_tokens: 30 };
    const frame = (value: object) => `data: ${JSON.stringify(value)}\n\n`;
    gateway.upstreams[0]!.next(
      sse([
        frame({ type: "speech.audio.delta", audio: Buffer.alloc(4800).toString("base64") }),
        frame({ type: "speech.audio.done", usage }),
      ]),
    );
    const body = { model: "gpt", voice: "alloy", input: "Hi", response_format: "pcm", stream_format: "sse" };
    const answer = await gateway.post("/v1/audio/speech", body);
    expect(await answer.text()).toContain("speech.audio.done");
    expect(units()).toEqual(
      expect.arrayContaining([
        [1, 9, 1],
        [7, 21, 1],
      ]),
    );
    expect(credits()).toBe("51");
  });
});

describe("images", () => {
  const IMAGES = priced(
    { meter: 8, creditPerUnit: "5" },
    { meter: 8, creditPerUnit: "9", size: "1536x1024", quality: "high" },
  );
  const answer = (count: number, fields: object = {}) =>
    json(200, { created: 1, data: Array.from({ length: count }, () => ({ b64_json: "QUJD" })), ...fields });

  test("are billed by number, and by size and quality where the price says so", async () => {
    await start({ pm: IMAGES });
    gateway.upstreams[0]!.next(answer(2, { size: "1536x1024", quality: "high" }));
    const made = await client.images.generate({
      model: "gpt",
      prompt: "A cat",
      n: 2,
      size: "1536x1024",
      quality: "high",
    });
    expect(made.data).toHaveLength(2);
    expect(units()).toEqual([
      [8, 2, 1, "1536x1024"],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("18");
  });

  test("of megabytes pass through, and their tokens are read", async () => {
    await start({ pm: priced({ meter: 1, creditPerUnit: "0.01" }, { meter: 4, creditPerUnit: "0.02" }) });
    const usage = {
      input_tokens: 60,
      input_tokens_details: { text_tokens: 10, image_tokens: 50 },
      output_tokens: 4160,
      total_tokens: 4220,
    };
    const image = "QUJD".repeat(750_000);
    gateway.upstreams[0]!.next(json(200, { created: 1, data: [{ b64_json: image }], usage }));
    const made = await client.images.generate({ model: "gpt", prompt: "A cat" });
    expect(made.data![0]!.b64_json).toBe(image);
    expect(units()).toEqual([
      [8, 1, 1],
      [1, 10, 1],
      [13, 50, 1],
      [4, 0, 1],
      [14, 4160, 1],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("83.8");
  });

  test("of megabytes that break off are billed as far as they came", async () => {
    await start({ pm: IMAGES });
    gateway.upstreams[0]!.next((response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write(`{"created":1,"data":[{"b64_json":"${"QUJD".repeat(400_000)}"},{"b64_json":"`, () => {
        setTimeout(() => response.destroy(), 100);
      });
    });
    const made = await gateway.post("/v1/images/generations", { model: "gpt", prompt: "A cat", n: 2 });
    await expect(made.text()).rejects.toThrow();
    await expect.poll(() => gateway.journal.settlements.length).toBe(1);
    expect(units()).toEqual([
      [8, 2, 1],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("10");
  });

  test("of a size that is no size are billed as those that fit nothing", async () => {
    await start({ pm: IMAGES });
    for (const size of ["x".repeat(70_000), "1536x1024\u0000", "a b"]) {
      gateway.upstreams[0]!.next(answer(1));
      await gateway.post("/v1/images/generations", { model: "gpt", prompt: "A cat", size, quality: size });
      const { units: billed } = gateway.journal.settlements.at(-1)!;
      expect(billed[0]).toEqual({ meter: 8, quantity: 1, source: 1 });
    }
  });

  test("edited from a form, and streamed with partial images", async () => {
    await start({ pm: IMAGES });
    const frame = (value: { type: string }) => `event: ${value.type}\ndata: ${JSON.stringify(value)}\n\n`;
    const partial = { type: "image_edit.partial_image", b64_json: "QQ==", partial_image_index: 0 };
    const whole = { type: "image_edit.completed", b64_json: "QUJD", size: "1024x1024", quality: "low" };
    gateway.upstreams[0]!.next(sse([frame(partial), frame(whole)]));
    const image = await toFile(Buffer.from("PNG"), "a.png", { type: "image/png" });
    const stream = await client.images.edit({ model: "gpt", image, prompt: "A hat", stream: true, partial_images: 1 });
    const types = [];
    for await (const event of stream) types.push(event.type);
    expect(types).toEqual([partial.type, whole.type]);
    expect(units()).toEqual([
      [8, 1, 1, "1024x1024"],
      [11, 1, 1],
    ]);
    expect(credits()).toBe("5");
  });

  test("that the wallet does not cover are not made", async () => {
    await start({ pm: IMAGES });
    gateway.budget.free = 20n * 10n ** 12n;
    await expect(client.images.generate({ model: "gpt", prompt: "A cat", n: 3 })).rejects.toMatchObject({
      status: 429,
    });
    expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  });

  test("a model that is priced for images alone does not chat", async () => {
    await start({ pm: IMAGES });
    const chat = await gateway.chat();
    expect(chat.status).toBe(400);
    expect(await chat.json()).toMatchObject({ error: { param: "model", code: "unsupported_endpoint" } });
  });
});

test("moderations are free where the price says so", async () => {
  await start();
  gateway.upstreams[0]!.next(json(200, { id: "modr-1", model: "m", results: [{ flagged: false }] }));
  const answer = await client.moderations.create({ model: "gpt", input: "Hi" });
  expect(answer.results[0]!.flagged).toBe(false);
  expect(units()).toEqual([[11, 1, 1]]);
  expect(credits()).toBe("0");
});
