/** For tests only: the table of what is asked, answered, understood and billed, the same for every format and client. */

import { expect } from "vitest";
import { AwsCredentials } from "./aws/credentials.ts";
import { awsSigner } from "./aws/signer.ts";
import { type Gateway, type GatewayOptions, KEY, startGateway } from "./testing.ts";
import { type Ask, CALL, type Heard, PNG, SYSTEM, type TestClient } from "./testing_clients.ts";
import { type FormatFacts, type Imitation, says } from "./testing_formats.ts";
import type { Tokens, Turn } from "./testing_turns.ts";
import { type UpstreamAuth, upstreamAuth } from "./upstream_auth.ts";

/** Thousandths of a Credit for one Unit of each meter. */
const RATES: Readonly<Record<number, string>> = { 1: "1", 2: "0.1", 3: "1.25", 4: "2", 5: "3", 11: "0.5" };
/** Picocredits. */
const PICO: Readonly<Record<number, bigint>> = {
  1: 1_000_000_000n,
  2: 100_000_000n,
  3: 1_250_000_000n,
  4: 2_000_000_000n,
  5: 3_000_000_000n,
  11: 500_000_000n,
};
export const MATRIX_PRICE = {
  id: "price_matrix",
  kind: {
    case: "detailed" as const,
    value: {
      meters: Object.entries(RATES).map(([meter, creditPerUnit]) => ({
        meter: Number(meter),
        creditPerUnit,
        perUnits: 1000n,
      })),
    },
  },
};

export interface Scenario {
  readonly name: string;
  readonly ask: Ask;
  readonly turn: Turn;
  /** What must be in the body that went upstream. */
  readonly upstream?: readonly string[];
}

const PLAIN: Tokens = { input: 20, cached: 0, written: 0, output: 7, reasoning: 0 };
const CACHED: Tokens = { input: 1200, cached: 1000, written: 100, output: 30, reasoning: 0 };
const THOUGHT: Tokens = { input: 40, cached: 0, written: 0, output: 25, reasoning: 18 };
const { id, name, args } = CALL;

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "text",
    ask: { prompt: "Hi" },
    turn: { text: "Grüß Gott, 世界", finish: "stop", tokens: PLAIN },
    upstream: [SYSTEM, "Hi"],
  },
  { name: "cache", ask: { prompt: "Hi" }, turn: { text: "Hello", finish: "stop", tokens: CACHED } },
  {
    name: "thoughts",
    ask: { prompt: "Think", think: true },
    turn: { reasoning: "Hm, well", text: "Yes", finish: "stop", tokens: THOUGHT },
  },
  {
    name: "one tool",
    ask: { prompt: "Weather?", tools: true },
    turn: { text: "I look.", tools: [{ id, name, args }], finish: "tools", tokens: PLAIN },
    upstream: ["weather", "Says it."],
  },
  {
    name: "parallel tools",
    ask: { prompt: "Weather?", tools: true },
    turn: {
      tools: [
        { id, name, args },
        { id: "toolu_2", name, args: { city: "Zürich" } },
      ],
      finish: "tools",
      tokens: PLAIN,
    },
  },
  {
    name: "the result of a tool",
    ask: { prompt: "Weather?", tools: true, history: true },
    turn: { text: "Warm", finish: "stop", tokens: PLAIN },
    upstream: [id, CALL.result, "Rome"],
  },
  {
    name: "an image",
    ask: { prompt: "What is this?", image: true },
    turn: { text: "A pixel", finish: "stop", tokens: PLAIN },
    upstream: [PNG],
  },
  {
    name: "structured output",
    ask: { prompt: "Which city?", schema: true },
    turn: { text: '{"city":"Rome"}', finish: "stop", tokens: PLAIN },
    upstream: ["city", "additionalProperties"],
  },
  {
    name: "an answer cut for its length",
    ask: { prompt: "Count" },
    turn: { text: "One, two", finish: "length", tokens: PLAIN },
  },
  {
    name: "an answer that is withheld",
    ask: { prompt: "Bad" },
    turn: { text: "I cannot", finish: "filter", tokens: PLAIN },
  },
];

export function unitsOf({ input, cached, written, output, reasoning }: Tokens, { countsReasoning }: FormatFacts) {
  const thought = countsReasoning ? reasoning : 0;
  const all: [number, number][] = [
    [1, input - cached - written],
    [2, cached],
    [3, written],
    [4, output - thought],
    [5, thought],
    [11, 1],
  ];
  return all.filter(([meter, quantity]) => quantity > 0 || meter === 1 || meter === 4);
}

export function creditsOf(units: readonly (readonly [number, number])[]): bigint {
  return units.reduce((sum, [meter, quantity]) => sum + PICO[meter]! * BigInt(quantity), 0n);
}

/** Anthropic says why it refuses beside the text; the AI SDK shows a refusal as text. */
const REFUSED = "The model refused to answer.";

/** What a client must understand of a turn. */
function understood({ reasoning = "", text = "", tools = [], finish, tokens }: Turn, client: TestClient): Heard {
  const { input, cached, output } = tokens;
  const shown = client.showsReasoning ? reasoning : "";
  return { text, reasoning: shown, tools, finish, usage: { input, cached, output } };
}

/** One question of one client, and all that must be true of it. */
export async function checkScenario(gateway: Gateway, imitation: Imitation, client: TestClient, scenario: Scenario) {
  const { ask, turn, upstream = [] } = scenario;
  imitation.next(says(turn));
  const { calls, wrong, facts } = imitation;
  const [called, settled] = [calls.length, gateway.journal.settlements.length];
  const heard = await client.ask(gateway.url, KEY, ask);
  expect(wrong).toEqual([]);
  const text = turn.finish === "filter" ? heard.text.replace(REFUSED, "") : heard.text;
  const reasoning = client.showsReasoning ? heard.reasoning : "";
  expect({ ...heard, text, reasoning }).toEqual(understood(turn, client));
  expect(calls).toHaveLength(called + 1);
  const sent = calls[called]!.text;
  for (const part of upstream) expect(sent).toContain(part);
  expect(sent).not.toContain(KEY);
  const record = gateway.journal.settlements[settled]!;
  const units = unitsOf(turn.tokens, facts);
  expect(record.units.map(({ meter, quantity }) => [meter, quantity])).toEqual(units);
  expect(record).toMatchObject({
    endpoint: client.endpoint,
    stream: client.stream,
    outcome: 1,
    httpStatus: 200,
    logicalModel: "gpt",
    physicalModelId: "pm_0",
    credits: creditsOf(units),
  });
  expect(record.units.every(({ source }) => source === 1)).toBe(true);
}

/** Credentials as a node has them, but those of a node's own identity. */
export function testAuth(): UpstreamAuth {
  const nowMs = (): number => Date.now();
  const credentials = new AwsCredentials({
    fetch: fetch as never,
    nowMs,
    env: {},
    readFile: (path) => Promise.reject(new Error(path)),
    nodeIdentityAllowed: false,
  });
  return upstreamAuth(null, awsSigner(credentials, nowMs));
}

/** A gateway in front of these upstreams, the first of them in tier 0. */
export function gatewayTo(imitations: readonly Imitation[], options: GatewayOptions = {}): Promise<Gateway> {
  return startGateway({
    urls: imitations.map(({ url }) => url),
    providers: imitations.map(({ provider }) => provider),
    pms: imitations.map(({ pm }) => ({ price: MATRIX_PRICE, ...pm })),
    auth: testAuth(),
    ...options,
  });
}
