/** Streams: nothing is buffered, nothing is changed that need not be. */

import { request as httpRequest } from "node:http";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { type Gateway, KEY, startGateway } from "./testing.ts";
import { chunk, DONE, frame, streamText, sse, USAGE } from "./testing_upstream.ts";

let gateway: Gateway;
beforeEach(async () => {
  gateway = await startGateway();
});
afterEach(() => gateway.close());

/** Calls `onText` with each piece as it arrives; resolves at the end. */
function stream(onText: (text: string) => void, fields: Record<string, unknown> = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      `${gateway.url}/v1/chat/completions`,
      { method: "POST", headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" } },
      (response) => {
        response.setEncoding("utf8");
        response.on("data", onText);
        response.on("end", resolve);
        response.on("error", reject);
      },
    );
    call.on("error", reject);
    call.end(JSON.stringify({ model: "gpt", messages: [], stream: true, ...fields }));
  });
}

test("a chunk reaches the client before the next one is sent", async () => {
  const words = Array.from({ length: 20 }, (_, i) => `word${i}`);
  let sendNext: () => void = () => undefined;
  gateway.upstreams[0]!.next((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    let at = 0;
    // Only the client's receipt of a word makes the upstream send the next: any buffering would stop this for ever.
    sendNext = () => {
      if (at < words.length) response.write(chunk({ content: words[at++]! }));
      else response.end(chunk({}, "stop") + chunk(null, null, USAGE) + DONE);
    };
    sendNext();
  });
  const seen: string[] = [];
  await stream((text) => {
    for (const [, word] of text.matchAll(/"content":"(word\d+)"/g)) {
      seen.push(word!);
      sendNext();
    }
  });
  expect(seen).toEqual(words);
});

test("the end waits for the journal, the content does not", async () => {
  gateway.journal.held = [];
  gateway.upstreams[0]!.next(sse(streamText(["a"])));
  let text = "";
  const done = stream((piece) => (text += piece));
  const settlement = await gateway.journal.settled();
  expect(settlement.credits).toBe(parseCredits("0.033"));
  expect(text).not.toContain("[DONE]");
  gateway.journal.held[0]!();
  await done;
  expect(text).toContain('"content":"a"');
  expect(text.endsWith(DONE)).toBe(true);
});

test("property: however the bytes are split, the same bytes and the same usage come out", async () => {
  const odd = { id: "x", choices: [{ index: 0, delta: { content: "odd" }, finish_reason: null }] };
  const frames = [
    ": comment\r\n\r\n",
    chunk({ role: "assistant", content: "" }),
    chunk({ content: 'Grüße 🙂 "quoted" \\ [DONE] ' }),
    chunk({ reasoning_content: "thinking…" }).replaceAll("\n", "\r\n"),
    chunk({
      tool_calls: [
        { index: 0, id: "call_1", type: "function", function: { name: "f", arguments: '{"usage":null,"error":1}' } },
      ],
    }),
    frame({ ...odd, usage: { prompt_tokens: 1, completion_tokens: 1 } }),
    chunk({}, "stop").replaceAll("\n", "\r"),
    chunk(null, null, USAGE),
    DONE,
  ];
  const bytes = Buffer.from(frames.join(""));
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 1, max: bytes.length - 1 }), { maxLength: 30 }),
      fc.boolean(),
      async (cuts, asked) => {
        const points = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        gateway.upstreams[0]!.next(sse(points.slice(1).map((end, i) => bytes.subarray(points[i], end))));
        let text = "";
        await stream((piece) => (text += piece), asked ? { stream_options: { include_usage: true } } : {});
        const stripped = frames.filter((each) => each !== chunk(null, null, USAGE));
        const expected = asked ? frames : stripped.map((each) => (each.includes('"id":"x"') ? frame(odd) : each));
        expect(text).toBe(expected.join(""));
        expect(gateway.journal.settlements.at(-1)!.credits).toBe(parseCredits("0.033"));
      },
    ),
    { numRuns: 60 },
  );
});

describe("usage", () => {
  const credits = async (frames: string[], end: "end" | "break" = "end") => {
    gateway.upstreams[0]!.next(sse(frames, end));
    let text = "";
    await stream((piece) => (text += piece));
    return { text, settlement: gateway.journal.settlements.at(-1)! };
  };

  test("null usage is left out wherever it stands", async () => {
    const odd =
      'data: { "usage" : null , "choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}],"obfuscation":"abc"}\n\n';
    const middle =
      'data: {"id":"1","choices":[{"index":0,"delta":{"content":"usage: null \\"usage\\":null"}}],"usage":null,"obfuscation":"abc"}\n\n';
    const { text } = await credits([odd, middle, chunk({}, "stop", null), chunk(null, null, USAGE), DONE]);
    const parsed = text
      .trim()
      .split("\n\n")
      .slice(0, -1)
      .map((each) => JSON.parse(each.slice(6)) as Record<string, any>);
    expect(parsed.map((each) => "usage" in each)).toEqual([false, false, false]);
    expect(parsed[0]).toMatchObject({ obfuscation: "abc" });
    expect(parsed[1]!["choices"][0].delta.content).toBe('usage: null "usage":null');
  });

  test("the last one that is not null counts, nothing is summed", async () => {
    const many = [1, 2, 3].map((n) => chunk({ content: "x" }, null, { prompt_tokens: 4, completion_tokens: n }));
    const { settlement } = await credits([
      ...many,
      chunk({}, "stop", { prompt_tokens: 4, completion_tokens: 3 }),
      chunk(null, null, null),
      DONE,
    ]);
    expect(settlement.credits).toBe(parseCredits("0.010"));
  });

  test("an upstream that reports none, or zeros, is estimated and marked", async () => {
    for (const usage of [undefined, { prompt_tokens: 0, completion_tokens: 0 }]) {
      const frames = [chunk({ content: "12345678" }), chunk({ reasoning_content: "1234" }), chunk({}, "stop")];
      const { settlement } = await credits([
        ...frames,
        ...(usage === undefined ? [] : [chunk(null, null, usage)]),
        DONE,
      ]);
      const input = Math.ceil(JSON.stringify({ model: "gpt", messages: [], stream: true }).length / 4);
      expect(settlement.units).toEqual([
        { meter: 1, quantity: input, source: 2 },
        { meter: 4, quantity: 3, source: 2 },
        { meter: 11, quantity: 1, source: 1 },
      ]);
      expect(settlement.outcome).toBe(1);
    }
  });

  test("a stream without [DONE] is whole if it says why it ended", async () => {
    const { text, settlement } = await credits([chunk({ content: "x" }), chunk({}, "stop"), chunk(null, null, USAGE)]);
    expect([settlement.outcome, settlement.credits]).toEqual([1, parseCredits("0.033")]);
    expect(text).not.toContain("error");
    const last = chunk({}, "stop").trimEnd();
    expect((await credits([chunk({ content: "x" }), last])).settlement.outcome).toBe(1);
  });

  test("a stream that just ends is broken off", async () => {
    const { text, settlement } = await credits([chunk({ content: "x" })]);
    expect(settlement.outcome).toBe(3);
    expect(text).toContain('"code":"upstream_cut"');
  });

  test("an error frame of the upstream is told in our own words", async () => {
    const { text, settlement } = await credits([
      chunk({ content: "x" }),
      'data: {"error":{"message":"sk-upstream-secret-0 at http://10.0.0.1"}}\n\n',
    ]);
    expect(settlement.outcome).toBe(3);
    expect(text).not.toContain("sk-upstream");
    expect(text).toContain('"code":"upstream_cut"');
  });
});

describe("legacy completions", () => {
  test("stream and are metered too", async () => {
    const piece = (text: string, finish: string | null) =>
      frame({ id: "c", object: "text_completion", choices: [{ index: 0, text, finish_reason: finish }], usage: null });
    gateway.upstreams[0]!.next(sse([piece("12345678", null), piece("", "stop"), DONE]));
    const response = await gateway.post("/v1/completions", { model: "gpt", prompt: "x", stream: true });
    const text = await response.text();
    expect(text).toContain("12345678");
    expect(text).not.toContain("usage");
    expect(gateway.journal.settlements[0]!.units[1]).toEqual({ meter: 4, quantity: 2, source: 2 });
  });
});

test("a slow client stops the upstream, and gets everything in the end", async () => {
  gateway.budget.free = parseCredits("1000000");
  const piece = chunk({ content: "x".repeat(64 * 1024) });
  let written = 0;
  let stopped: () => void = () => undefined;
  const stops = new Promise<void>((resolve) => (stopped = resolve));
  const PIECES = 1000;
  gateway.upstreams[0]!.next((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    const more = (): void => {
      while (written < PIECES) {
        written++;
        if (!response.write(piece)) {
          stopped();
          response.once("drain", more);
          return;
        }
      }
      response.end(chunk({}, "stop") + chunk(null, null, USAGE) + DONE);
    };
    more();
  });
  let bytes = 0;
  await new Promise<void>((resolve, reject) => {
    const call = httpRequest(
      `${gateway.url}/v1/chat/completions`,
      { method: "POST", headers: { authorization: `Bearer ${KEY}` } },
      (response) => {
        // Not one byte is read until the upstream itself had to stop.
        stops.then(() => response.on("data", (data: Buffer) => (bytes += data.length)), reject);
        response.on("end", resolve);
      },
    );
    call.on("error", reject);
    call.end(JSON.stringify({ model: "gpt", messages: [], stream: true }));
  });
  expect(bytes).toBeGreaterThan(PIECES * 64 * 1024);
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: 1, credits: parseCredits("0.033") });
});
