/** Changes of the configuration never disturb live requests: they end whole, at the price of their admission. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { type TokenBill, UnitKind } from "../../clients/ts/src/index.ts";
import { formatCredits } from "../../core/credits.ts";
import { auditDeep, sumOf, untilLogged } from "../support/books.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";
import { SENTENCE_WORDS } from "../support/upstream_answers.ts";

/** Of the shop: 0.05 Credits for 1000 tokens. */
const PICO_PER_TOKEN = 50_000_000n;
const NEW_PRICE = { creditPerUnit: "0.2", perUnits: 1000n, unit: UnitKind.TOKENS };
const NEW_PICO_PER_TOKEN = 200_000_000n;
const messages = [{ role: "user" as const, content: "one two three" }];
const TOKENS = BigInt(SENTENCE_WORDS.length + 3);

let system: System;
let upstream: Upstream;
let tb: TokenBill;
let shop: Shop;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start();
  tb = await system.api();
  shop = await openShop(tb, { upstreamUrl: upstream.url, upstreamModels: [OTHER] });
  await untilServed(system.node, shop);
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

/** A Logical Model with a Physical Model and a key of its own, and a stream on it that has begun and waits. */
interface Live {
  readonly name: string;
  readonly physicalModelId: string;
  readonly logicalModelId: string;
  readonly keyId: string;
  readonly key: string;
  readonly id: string;
  /** Lets the stream go on, and gives all its text. */
  finish(): Promise<string>;
}

async function begin(name: string): Promise<Live> {
  const { providerId, veId } = shop;
  const value = { creditPerUnit: "0.05", perUnits: 1000n, unit: UnitKind.TOKENS };
  const { physicalModel } = await tb.providers.createPhysicalModel({
    providerId,
    name,
    upstreamName: name,
    price: { case: "simplePrice", value },
  });
  const physicalModelId = physicalModel!.id;
  const targets = [{ physicalModelId, weight: 1 }];
  const { logicalModel } = await tb.logicalModels.createLogicalModel({ veId, name, targets });
  const { accessKey, secret: key } = await tb.virtualEndpoints.createAccessKey({ veId });
  await untilServed(system.node, { key, model: name });
  upstream.behave(name, { hold: true });
  const asked = system.node
    .openai(key, { maxRetries: 0 })
    .chat.completions.create({ model: name, messages, stream: true })
    .withResponse();
  upstream.release(name, 1);
  const { data, response } = await asked;
  const chunks = data[Symbol.asyncIterator]();
  let text = "";
  while (text === "") text += (await chunks.next()).value!.choices[0]?.delta.content ?? "";
  return {
    name,
    physicalModelId,
    logicalModelId: logicalModel!.id,
    keyId: accessKey!.id,
    key,
    id: response.headers.get("x-request-id")!,
    async finish() {
      upstream.release(name);
      for await (const chunk of { [Symbol.asyncIterator]: () => chunks }) text += chunk.choices[0]?.delta.content ?? "";
      return text;
    },
  };
}

/** What a new request gets: the upstream's name of the model that serves it, or the code of its error. */
async function askNew(live: Live): Promise<{ id: string; served: string }> {
  upstream.behave(live.name);
  const client = system.node.openai(live.key, { maxRetries: 0 });
  try {
    const { data, response } = await client.chat.completions.create({ model: live.name, messages }).withResponse();
    return { id: response.headers.get("x-request-id")!, served: data.model };
  } catch (error) {
    return { id: "", served: (error as { code?: string }).code ?? String(error) };
  }
}

/** What the shop itself is served by. */
const OTHER = "other";

/** Each kind of change, and what new requests get of it; the name of the model itself where it still serves. */
const CHANGES: Record<string, { change(live: Live): Promise<unknown>; serves: string }> = {
  retargeted: { change: (live) => retarget(live), serves: OTHER },
  repriced: {
    change: ({ physicalModelId: id }) =>
      tb.providers.updatePhysicalModel({ id, price: { case: "simplePrice", value: NEW_PRICE } }),
    serves: "repriced",
  },
  disabled: {
    change: ({ physicalModelId: id }) => tb.providers.updatePhysicalModel({ id, disabled: true }),
    serves: "no_available_target",
  },
  deleted: {
    async change(live) {
      await retarget(live);
      await tb.providers.deletePhysicalModel({ id: live.physicalModelId });
    },
    serves: OTHER,
  },
  revoked: { change: ({ keyId: id }) => tb.virtualEndpoints.revokeAccessKey({ id }), serves: "invalid_api_key" },
  removed: {
    change: ({ logicalModelId: id }) => tb.logicalModels.deleteLogicalModel({ id }),
    serves: "model_not_found",
  },
};

function retarget({ logicalModelId: id }: Live): Promise<unknown> {
  const targets = [{ physicalModelId: shop.physicalModelIds[0]!, weight: 1 }];
  return tb.logicalModels.updateLogicalModel({ id, targets: { targets } });
}

test("live streams end whole and at their old price, new requests see what is new", async () => {
  const lives: Live[] = [];
  for (const name of [...Object.keys(CHANGES), "untouched"]) lives.push(await begin(name));
  for (const live of lives) await CHANGES[live.name]?.change(live);
  const credentials = { apiKey: "the-new-key" };
  await tb.providers.updateProvider({ id: shop.providerId, credentials });

  // The Provider was changed last: who sees that sees everything.
  const untouched = lives.at(-1)!;
  const billed = new Map<string, bigint>();
  await until("the node has the new configuration", async () => {
    const { id, served } = await askNew(untouched);
    expect(served).toBe("untouched");
    billed.set(id, TOKENS * PICO_PER_TOKEN);
    return upstream.calls.at(-1)!.headers["authorization"] === "Bearer the-new-key";
  });
  for (const live of lives.slice(0, -1)) {
    const { id, served } = await askNew(live);
    expect(served, live.name).toBe(CHANGES[live.name]!.serves);
    if (id !== "") billed.set(id, TOKENS * (live.name === "repriced" ? NEW_PICO_PER_TOKEN : PICO_PER_TOKEN));
  }

  for (const live of lives) {
    expect(await live.finish(), live.name).toBe(SENTENCE_WORDS.join(" "));
    billed.set(live.id, TOKENS * PICO_PER_TOKEN);
  }
  const log = await untilLogged(tb, shop.veId, billed.keys());
  for (const [id, credits] of billed)
    expect(log.find((request) => request.id === id)!.credits, id).toBe(formatCredits(credits));
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
  expect(wallet!.settled).toBe(sumOf(log));
  await auditDeep(await system.api("operator"));
});
