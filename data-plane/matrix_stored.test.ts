/** Stored responses through the SDK of OpenAI: they lead back to the upstream that made them, for their own VE alone. */

import OpenAI from "openai";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Gateway, gatewayResources, KEY, keyResource, resource, snapshot } from "./testing.ts";
import { openAi } from "./testing_clients.ts";
import { answers, API_KEY, imitate, type Imitation, refuses, says } from "./testing_formats.ts";
import { creditsOf, gatewayTo, MATRIX_PRICE } from "./testing_matrix.ts";
import { RESPONSE_ID, RESPONSES_WIRE, type Turn } from "./testing_turns.ts";

const OTHER_VE = "ve_bbbbbbbbbbbbbbbbbbbbbbbbbb";
const OTHER_KEY = "tbk_test_secret_of_another_ve";
const SECRET = new Uint8Array(32).fill(7);
const OTHER_SECRET = new Uint8Array(32).fill(8);
const HELLO: Turn = {
  text: "Hello",
  finish: "stop",
  tokens: { input: 20, cached: 5, written: 0, output: 7, reasoning: 0 },
};
const INPUT = { model: "gpt", input: "Hi" };

let gateway: Gateway;
let imitations: Imitation[];
let client: OpenAI;

beforeEach(async () => {
  const paths = /^\/v1\/responses\/resp_/;
  imitations = await Promise.all([imitate("responses", { paths }), imitate("responses", { paths })]);
  const options = {
    providers: imitations.map(({ provider }) => provider),
    pms: imitations.map(({ pm }) => ({ price: MATRIX_PRICE, ...pm })),
    ve: { pinSecret: SECRET },
  };
  gateway = await gatewayTo(imitations, options);
  const targets = [{ physicalModelId: "pm_0", tier: 0, weight: 1 }];
  const elsewhere = [{ physicalModelId: "pm_1", tier: 0, weight: 1 }];
  snapshot(
    gateway.table,
    [
      ...gatewayResources(
        imitations.map(({ url }) => url),
        options,
      ),
      resource("logicalModel", {
        id: "lm_2",
        veId: "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa",
        name: "other",
        targets: elsewhere,
      }),
      resource("virtualEndpoint", { id: OTHER_VE, name: "Other", exhaustedStatus: 429, pinSecret: OTHER_SECRET }),
      keyResource("key_2", OTHER_VE, OTHER_KEY),
      resource("logicalModel", { id: "lm_3", veId: OTHER_VE, name: "gpt", targets }),
    ],
    2n,
  );
  client = openAi(gateway.url, KEY);
});

afterEach(async () => {
  await gateway.close();
  await Promise.all(imitations.map((imitation) => imitation.close()));
  expect(imitations.flatMap(({ wrong }) => wrong)).toEqual([]);
});

async function stored(): Promise<OpenAI.Responses.Response> {
  imitations[0]!.next(says(HELLO));
  return await client.responses.create(INPUT);
}

async function failure(promise: Promise<unknown>): Promise<Record<string, unknown> & Error> {
  try {
    await promise;
  } catch (error) {
    return error as Record<string, unknown> & Error;
  }
  throw new Error("it did not fail");
}

describe("a stored response", () => {
  test("is read, listed, cancelled and deleted where it was made", async () => {
    const { id, output_text } = await stored();
    expect(output_text).toBe("Hello");
    expect(id).toMatch(/^resp_up1_[a-z2-7]{20}$/);
    const body = RESPONSES_WIRE.body(HELLO);
    const [upstream] = imitations;
    upstream!.next(answers(body));
    expect((await client.responses.retrieve(id)).id).toBe(id);
    const input = { object: "list", data: [], first_id: null, last_id: null, has_more: false };
    upstream!.next(answers(input));
    expect((await client.responses.inputItems.list(id, { limit: 5 })).data).toEqual([]);
    upstream!.next(answers({ ...body, status: "cancelled" }));
    expect(await client.responses.cancel(id)).toMatchObject({ id, status: "cancelled" });
    upstream!.next(answers({ id: RESPONSE_ID, object: "response", deleted: true }));
    await client.responses.delete(id);
    expect(upstream!.calls.slice(1).map(({ method, path }) => [method, path])).toEqual([
      ["GET", `/v1/responses/${RESPONSE_ID}`],
      ["GET", `/v1/responses/${RESPONSE_ID}/input_items?limit=5`],
      ["POST", `/v1/responses/${RESPONSE_ID}/cancel`],
      ["DELETE", `/v1/responses/${RESPONSE_ID}`],
    ]);
    for (const { headers } of upstream!.calls) expect(headers.authorization).toBe(`Bearer ${API_KEY}`);
    expect(imitations[1]!.calls).toHaveLength(0);
    // Only what was generated is billed.
    expect(gateway.journal.settlements).toHaveLength(1);
  });

  test("is gone on with, streamed or not", async () => {
    const { id } = await stored();
    imitations[0]!.next(says(HELLO), says(HELLO));
    const next = await client.responses.create({ ...INPUT, previous_response_id: id });
    expect(next.output_text).toBe("Hello");
    const stream = client.responses.stream({ ...INPUT, previous_response_id: id });
    const created: string[] = [];
    stream.on("response.created", ({ response }) => void created.push(response.id));
    const final = await stream.finalResponse();
    expect(created).toEqual([final.id]);
    expect(final.id).toBe(id);
    expect(imitations[0]!.calls.slice(1).map(({ body }) => body["previous_response_id"])).toEqual([
      RESPONSE_ID,
      RESPONSE_ID,
    ]);
    const units = [
      [1, 15],
      [2, 5],
      [4, 7],
      [11, 1],
    ] as const;
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual(Array(3).fill(creditsOf(units)));
  });

  test("that cannot be reached is not looked for elsewhere", async () => {
    const { id } = await stored();
    imitations[0]!.next(refuses(500, null, "down"));
    const error = await failure(client.responses.create({ ...INPUT, previous_response_id: id }));
    expect(error["status"]).toBe(503);
    expect(imitations[1]!.calls).toHaveLength(0);
  });

  test("of another VE is not there", async () => {
    const { id } = await stored();
    const other = openAi(gateway.url, OTHER_KEY);
    expect(await failure(other.responses.retrieve(id))).toBeInstanceOf(OpenAI.NotFoundError);
    expect(await failure(other.responses.delete(id))).toMatchObject({ status: 404, code: "response_not_found" });
    const error = await failure(other.responses.create({ ...INPUT, previous_response_id: id }));
    expect(error).toMatchObject({
      status: 400,
      code: "previous_response_not_found",
      param: "previous_response_id",
    });
    // Nor is the upstream's own id of any use.
    expect(await failure(client.responses.retrieve(RESPONSE_ID))).toMatchObject({ status: 404 });
    expect(imitations[0]!.calls).toHaveLength(1);
  });

  test("is not gone on with by a model of another Provider", async () => {
    const { id } = await stored();
    const error = await failure(client.responses.create({ model: "other", input: "Hi", previous_response_id: id }));
    expect(error).toMatchObject({ status: 400, code: "previous_response_not_found" });
    expect(imitations[1]!.calls).toHaveLength(0);
  });

  test("that the upstream does not know any more: 404, and a refused key: 503", async () => {
    const { id } = await stored();
    imitations[0]!.next(
      refuses(404, null, `Response with id '${RESPONSE_ID}' not found.`),
      refuses(401, "invalid_api_key", "no"),
    );
    const gone = await failure(client.responses.retrieve(id));
    expect(gone).toBeInstanceOf(OpenAI.NotFoundError);
    expect((await failure(client.responses.retrieve(id)))["status"]).toBe(503);
  });
});

test.each([
  ["background", { background: true }],
  ["conversation", { conversation: "conv_1" }],
  ["input", { input: [{ type: "item_reference" as const, id: "msg_1" }] }],
])("%s is refused", async (param, fields) => {
  const error = await failure(client.responses.create({ ...INPUT, ...fields } as never));
  expect(error).toMatchObject({ status: 400, code: "unsupported_parameter", param });
  expect(imitations[0]!.calls).toHaveLength(0);
});
