/** What goes wrong at upstreams of every format, as the official SDKs and the ledger see it. */

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { type Gateway, type GatewayOptions, KEY } from "./testing.ts";
import { anthropic, openAi } from "./testing_clients.ts";
import {
  breaksOff,
  endsEmpty,
  FORMATS,
  type FormatName,
  imitate,
  type Imitation,
  refuses,
  type Reply,
  says,
} from "./testing_formats.ts";
import { creditsOf, gatewayTo } from "./testing_matrix.ts";
import { CHAT_WIRE, MESSAGES_WIRE, type Turn } from "./testing_turns.ts";

let gateway: Gateway;
let imitations: Imitation[] = [];

async function start(formats: readonly FormatName[], options: GatewayOptions = {}): Promise<void> {
  imitations = await Promise.all(formats.map((format) => imitate(format)));
  gateway = await gatewayTo(imitations, options);
}

afterEach(async () => {
  await gateway.close();
  await Promise.all(imitations.map((imitation) => imitation.close()));
  expect(imitations.flatMap(({ wrong }) => wrong)).toEqual([]);
});

const HELLO: Turn = {
  text: "Hello",
  finish: "stop",
  tokens: { input: 20, cached: 0, written: 0, output: 7, reasoning: 0 },
};
const HELLO_UNITS = [
  [1, 20],
  [4, 7],
  [11, 1],
] as const;
const ASK = { model: "gpt", messages: [{ role: "user" as const, content: "Hi" }] };
const MESSAGE = { ...ASK, max_tokens: 100 };
const INPUT = { model: "gpt", input: "Hi" };

async function failure(promise: Promise<unknown>): Promise<Record<string, unknown> & Error> {
  try {
    await promise;
  } catch (error) {
    return error as Record<string, unknown> & Error;
  }
  throw new Error("it did not fail");
}

/** One call of each kind of client, not streamed. */
const CALLS: readonly [string, () => Promise<unknown>][] = [
  ["chat", () => openAi(gateway.url, KEY).chat.completions.create(ASK)],
  ["responses", () => openAi(gateway.url, KEY).responses.create(INPUT)],
  ["messages", () => anthropic(gateway.url, KEY).messages.create(MESSAGE)],
];
const STREAMS: readonly [string, () => Promise<unknown>][] = [
  ["chat", () => openAi(gateway.url, KEY).chat.completions.stream(ASK).finalChatCompletion()],
  ["responses", () => openAi(gateway.url, KEY).responses.stream(INPUT).finalResponse()],
  ["messages", () => anthropic(gateway.url, KEY).messages.stream(MESSAGE).finalMessage()],
];

/** How each format says what it means. */
interface Words {
  readonly format: FormatName;
  readonly badKey: Reply;
  readonly busy: Reply;
  readonly tooLong: Reply;
  readonly fault: Reply;
}

const ACCOUNT = "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/x";
const openAiWords = (format: FormatName): Words => ({
  format,
  badKey: refuses(401, "invalid_api_key", "Incorrect API key provided: sk-abcdefgh1234."),
  busy: refuses(429, "rate_limit_exceeded", "Slow down org-abcdefgh", { "retry-after": "7" }),
  tooLong: refuses(400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
  fault: refuses(400, "invalid_value", "Bad value for org-abcdefgh at https://api.example/v1"),
});
const anthropicWords = (format: FormatName): Words => ({
  format,
  badKey: refuses(401, "authentication_error", "invalid x-api-key"),
  busy: refuses(429, "rate_limit_error", "Slow down org-abcdefgh", { "retry-after": "7" }),
  tooLong: refuses(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
  fault: refuses(400, "invalid_request_error", "Bad value for org-abcdefgh at https://api.example/v1"),
});
const aws = (type: string) => ({ "x-amzn-errortype": type });
const WORDS: readonly Words[] = [
  openAiWords("openai"),
  openAiWords("responses"),
  openAiWords("azure"),
  openAiWords("bedrock_openai"),
  anthropicWords("anthropic"),
  anthropicWords("bedrock_anthropic"),
  {
    format: "converse",
    badKey: refuses(403, null, "The security token is invalid.", aws("UnrecognizedClientException")),
    busy: refuses(429, null, "Too many requests", { ...aws("ThrottlingException"), "retry-after": "7" }),
    tooLong: refuses(400, null, "Input is too long for requested model.", aws("ValidationException")),
    fault: refuses(400, null, `Bad value in ${ACCOUNT} at https://api.example`, aws("ValidationException:http://x")),
  },
];

describe.each(WORDS)("$format", ({ format, badKey, busy, tooLong, fault }) => {
  test("a refused key is ours to mend: another target, or 503, and never 401", async () => {
    await start([format, "openai"]);
    imitations[0]!.next(badKey);
    imitations[1]!.always(says(HELLO));
    for (const [, call] of CALLS) await call();
    const [first] = gateway.journal.settlements;
    expect(first!.attempts.map(({ physicalModelId, result }) => [physicalModelId, result])).toEqual([
      ["pm_0", 4],
      ["pm_1", 1],
    ]);
    expect(first).toMatchObject({ credits: creditsOf(HELLO_UNITS), outcome: 1, physicalModelId: "pm_1" });
    // The account cools down: it is not asked again.
    expect(imitations[0]!.calls).toHaveLength(1);
    await gateway.close();
    await Promise.all(imitations.map((imitation) => imitation.close()));
    await start([format]);
    imitations[0]!.always(badKey);
    for (const [name, call] of CALLS) expect([name, (await failure(call()))["status"]]).toEqual([name, 503]);
    expect(gateway.journal.settlements.map(({ credits, outcome }) => [credits, outcome])).toEqual([
      [0n, 2],
      [0n, 2],
      [0n, 2],
    ]);
  });

  test("a rate limit is told on with its time", async () => {
    await start([format]);
    imitations[0]!.next(busy);
    const error = await failure(CALLS[0]![1]());
    expect(error).toBeInstanceOf(OpenAI.RateLimitError);
    expect(error).toMatchObject({ status: 429, code: "rate_limit_exceeded", type: "rate_limit_error" });
    expect(Number((error["headers"] as Headers).get("retry-after"))).toBe(7);
    expect(error.message).not.toContain("org-");
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: 0n, outcome: 2, httpStatus: 429 });
  });

  test.each([0, 1, 2])("the client's own fault is told once, without the account's words (%i)", async (which) => {
    await start([format, "openai"]);
    imitations[0]!.next(fault);
    const error = await failure(CALLS[which]![1]());
    expect(error["status"]).toBe(400);
    expect(error.message).toContain("Bad value");
    for (const secret of ["org-abcdefgh", "123456789012", "api.example", imitations[0]!.url, KEY])
      expect(JSON.stringify(error) + error.message).not.toContain(secret);
    expect((error["headers"] as Headers).get("x-should-retry")).toBe("false");
    expect(imitations[1]!.calls).toHaveLength(0);
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: 0n, outcome: 7, httpStatus: 400 });
  });

  test("an input that is too long has a code of its own", async () => {
    await start([format]);
    imitations[0]!.next(tooLong, tooLong, tooLong);
    expect(await failure(CALLS[0]![1]())).toMatchObject({ status: 400, code: "context_length_exceeded" });
    expect(await failure(CALLS[1]![1]())).toMatchObject({ status: 400, code: "context_length_exceeded" });
    const message = await failure(CALLS[2]![1]());
    expect(message).toBeInstanceOf(Anthropic.BadRequestError);
    expect(message["error"]).toMatchObject({ error: { details: { error_code: "context_length_exceeded" } } });
  });

  test.each(STREAMS)("an error in the middle of a stream raises the SDK's: %s", async (_, call) => {
    await start([format]);
    imitations[0]!.next(breaksOff(HELLO, "error", "Overloaded org-abcdefgh"));
    const error = await failure(call());
    expect(error.message).toContain("broke off");
    expect(error.message).not.toContain("org-");
    const record = await gateway.journal.settled();
    expect(record).toMatchObject({ outcome: 3, httpStatus: 200, errorCode: "upstream_cut" });
    expect(record.credits).toBeGreaterThan(0n);
  });

  test.each(STREAMS)("a stream that is cut raises the SDK's, and what came is billed: %s", async (_, call) => {
    await start([format]);
    imitations[0]!.next(breaksOff(HELLO, "break"), breaksOff(HELLO, "end"));
    await expect(call()).rejects.toThrow("broke off");
    await expect(call()).rejects.toThrow("broke off");
    const { settlements } = gateway.journal;
    expect(settlements.map(({ outcome, endpoint }) => [outcome, endpoint])).toEqual([
      [3, settlements[0]!.endpoint],
      [3, settlements[0]!.endpoint],
    ]);
    for (const { credits, units } of settlements) {
      expect(units.find(({ meter }) => meter === 4)!.quantity).toBeGreaterThan(0);
      expect(credits).toBe(creditsOf(units.map(({ meter, quantity }) => [meter, quantity])));
    }
  });

  test.each(STREAMS)("an empty stream falls over unseen: %s", async (_, call) => {
    await start([format, "anthropic"]);
    imitations[0]!.next(endsEmpty);
    imitations[1]!.next(says(HELLO));
    expect(JSON.stringify(await call())).toContain("Hello");
    expect(gateway.journal.settlements[0]!.attempts.map(({ result }) => result)).toEqual([5, 1]);
  });

  test("STRICT lowers the format's own limit to what the wallet covers", async () => {
    await start([format], { ve: { budgetMode: 2 } });
    const { facts } = imitations[0]!;
    // A few thousand tokens of output at 0.003.
    gateway.budget.free = 10_000_000_000_000n;
    imitations[0]!.always(says(HELLO));
    const limits: number[] = [];
    for (const [, call] of CALLS) {
      const before = imitations[0]!.calls.length;
      if (call === CALLS[2]![1]) gateway.budget.free = 200_000_000_000n;
      await call();
      limits.push(facts.limit(imitations[0]!.calls[before]!.body) as number);
    }
    for (const limit of limits) expect(limit).toBeGreaterThan(0);
    expect(limits[0]).toBeLessThan(4000);
    expect(limits[2]).toBeLessThan(100);
  });
});

test("Azure says in headers of its own when to ask again", async () => {
  await start(["azure"]);
  const left = { "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "21" };
  imitations[0]!.next(refuses(429, "429", "Slow down", left));
  const error = await failure(CALLS[0]![1]());
  expect([error["status"], (error["headers"] as Headers).get("retry-after")]).toEqual([429, "21"]);
});

test("the wires are told apart", () => {
  expect(FORMATS.openai.wire).toBe(CHAT_WIRE);
  expect(FORMATS.anthropic.wire).toBe(MESSAGES_WIRE);
});
