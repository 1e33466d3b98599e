/** Providers of other formats than OpenAI's, made by RPC and called by nodes as they really run: usage to the last token. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Meter, Outcome, ProviderFormat, type TokenBill, UnitSource } from "../../clients/ts/src/index.ts";
import { API_KEY, AWS_KEY, AWS_REGION, imitate, type Imitation, says } from "../../data-plane/testing_formats.ts";
import type { Turn } from "../../data-plane/testing_turns.ts";
import { until } from "../support/part.ts";
import { untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";

const TURN: Turn = {
  reasoning: "Hm",
  text: "Good morning",
  finish: "stop",
  tokens: { input: 1200, cached: 1000, written: 100, output: 30, reasoning: 20 },
};
const PROVIDERS = {
  anthropic: { format: ProviderFormat.ANTHROPIC, credentials: { apiKey: API_KEY } },
  converse: {
    format: ProviderFormat.AWS_BEDROCK,
    region: AWS_REGION,
    credentials: { awsAccessKeyId: AWS_KEY.accessKeyId, awsSecretAccessKey: AWS_KEY.secretAccessKey },
  },
};
const NAMES = ["anthropic", "converse"] as const;

let system: System;
let tb: TokenBill;
let imitations: Record<(typeof NAMES)[number], Imitation>;

beforeAll(async () => {
  const [anthropic, converse] = await Promise.all(NAMES.map((name) => imitate(name)));
  imitations = { anthropic: anthropic!, converse: converse! };
  system = await System.start();
  tb = await system.api();
});

afterAll(async () => {
  await system?.stop();
  await Promise.all(NAMES.map((name) => imitations?.[name].close()));
});

/** A VE with a model `chat` that leads to this upstream; its access key. */
async function open(name: (typeof NAMES)[number]): Promise<{ veId: string; key: string }> {
  const { url, pm } = imitations[name];
  const { provider } = await tb.providers.createProvider({ name, baseUrl: url, ...PROVIDERS[name] });
  const perThousand = (meter: Meter, creditPerUnit: string) => ({ meter, creditPerUnit, perUnits: 1000n });
  const { physicalModel } = await tb.providers.createPhysicalModel({
    providerId: provider!.id,
    name,
    upstreamName: pm["upstreamName"] as string,
    price: {
      case: "detailedPrice",
      value: {
        meters: [
          perThousand(Meter.INPUT_TOKENS, "1"),
          perThousand(Meter.CACHED_INPUT_TOKENS, "0.1"),
          perThousand(Meter.CACHE_WRITE_TOKENS, "1.25"),
          perThousand(Meter.OUTPUT_TOKENS, "5"),
        ],
      },
    },
  });
  const { virtualEndpoint } = await tb.virtualEndpoints.createVirtualEndpoint({ name, creditBudget: "1000" });
  const veId = virtualEndpoint!.id;
  const targets = [{ physicalModelId: physicalModel!.id, weight: 1 }];
  await tb.logicalModels.createLogicalModel({ veId, name: "chat", targets });
  const { secret } = await tb.virtualEndpoints.createAccessKey({ veId });
  await untilServed(system.node, { key: secret, model: "chat" });
  return { veId, key: secret };
}

test.each(NAMES)("a Provider of %s serves OpenAI's SDK", async (name) => {
  const { veId, key } = await open(name);
  imitations[name].always(says(TURN));
  const { chat } = system.node.openai(key, { maxRetries: 0 });
  const ask = { model: "chat", messages: [{ role: "user" as const, content: "Good day" }], max_tokens: 500 };
  const whole = await chat.completions.create(ask);
  expect(whole.choices[0]!.message.content).toBe("Good morning");
  const options = { ...ask, stream_options: { include_usage: true } };
  const streamed = await chat.completions.stream(options).finalChatCompletion();
  expect(streamed.choices[0]!.message.content).toBe("Good morning");
  for (const { usage } of [whole, streamed])
    expect(usage).toMatchObject({ prompt_tokens: 1200, completion_tokens: 30 });
  expect(imitations[name].wrong).toEqual([]);
  const listed = async () => (await tb.usage.listRequests({ filter: { veId } })).requests;
  await until("both requests are reported", async () => (await listed()).length === 2);
  const thought = name === "anthropic" ? 20n : 0n;
  for (const record of await listed()) {
    expect(record).toMatchObject({ outcome: Outcome.COMPLETED, httpStatus: 200 });
    expect(record.units.map(({ meter, quantity, source }) => [meter, quantity, source])).toEqual(
      [
        [Meter.INPUT_TOKENS, 100n],
        [Meter.CACHED_INPUT_TOKENS, 1000n],
        [Meter.CACHE_WRITE_TOKENS, 100n],
        [Meter.OUTPUT_TOKENS, 30n - thought],
        ...(thought > 0n ? [[Meter.REASONING_TOKENS, thought]] : []),
        [Meter.REQUESTS, 1n],
      ].map((unit) => [...unit, UnitSource.REPORTED]),
    );
    // 0.1 + 0.1 + 0.125 + 0.15
    expect(record.credits).toBe("0.475");
  }
});
