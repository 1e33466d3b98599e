/** What the official SDK makes of our answers. */

import OpenAI, {
  APIError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
  RateLimitError,
} from "openai";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { TEXT_BODY_BYTES_MAX } from "./endpoints.ts";
import { CHECKOUT, delta, type Gateway, KEY, resource, startGateway, VE } from "./testing.ts";
import { error, json, streamText, sse, USAGE } from "./testing_upstream.ts";

let gateway: Gateway;
/** How many HTTP calls the SDK made. */
let calls: number;
let client: OpenAI;
beforeEach(async () => {
  gateway = await startGateway();
  calls = 0;
  client = clientOf(KEY);
});
afterEach(() => gateway.close());

function clientOf(apiKey: string): OpenAI {
  return new OpenAI({
    apiKey,
    baseURL: `${gateway.url}/v1`,
    fetch: (...args) => {
      calls++;
      return fetch(...args);
    },
  });
}

const ask = (fields: Record<string, unknown> = {}) =>
  client.chat.completions.create({
    model: "gpt",
    messages: [{ role: "user", content: "Hi" }],
    ...fields,
  } as never) as Promise<any>;

async function failure(run: Promise<unknown>): Promise<any> {
  try {
    await run;
  } catch (caught) {
    return caught;
  }
  throw new Error("it did not fail");
}

describe("answers", () => {
  test("chat, completions, embeddings and models come out typed", async () => {
    expect((await ask()).choices[0].message.content).toBe("Hello there");
    const [upstream] = gateway.upstreams;
    upstream!.next(
      json(200, {
        id: "c",
        object: "text_completion",
        choices: [{ index: 0, text: "done", finish_reason: "stop" }],
        usage: USAGE,
      }),
    );
    expect((await client.completions.create({ model: "gpt", prompt: "x" })).choices[0]!.text).toBe("done");
    upstream!.next(
      json(200, {
        object: "list",
        data: [{ object: "embedding", index: 0, embedding: [0.5, 1] }],
        usage: { prompt_tokens: 8, total_tokens: 8 },
      }),
    );
    expect(
      (await client.embeddings.create({ model: "gpt", input: "x", encoding_format: "float" })).data[0]!.embedding,
    ).toEqual([0.5, 1]);
    expect(upstream!.seen.map(({ path }) => path)).toEqual([
      "/v1/chat/completions",
      "/v1/completions",
      "/v1/embeddings",
    ]);
    expect(gateway.journal.settlements.map(({ endpoint, credits }) => [endpoint, credits])).toEqual([
      [1, parseCredits("0.033")],
      [2, parseCredits("0.033")],
      [3, parseCredits("0.008")],
    ]);
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual(["gpt"]);
    expect((await client.models.retrieve("gpt")).owned_by).toBe("tokenbill");
  });

  test("streams, with and without usage", async () => {
    gateway.upstreams[0]!.next(sse(streamText(["Hel", "lo"])), sse(streamText(["Hel", "lo"])));
    let text = "";
    for await (const chunk of await ask({ stream: true })) {
      expect("usage" in chunk).toBe(false);
      text += chunk.choices[0]?.delta.content ?? "";
    }
    const chunks: any[] = [];
    for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
    expect(text).toBe("Hello");
    expect(chunks.at(-1).usage).toEqual(USAGE);
  });

  test("nothing of the SDK's telemetry, and no header of the client, goes upstream", async () => {
    await client.chat.completions.create(
      { model: "gpt", messages: [] },
      {
        headers: {
          cookie: "a=b",
          "x-forwarded-for": "10.0.0.1",
          "openai-organization": "org-x",
          "openai-beta": "assistants=v2",
        },
      },
    );
    const { headers } = gateway.upstreams[0]!.seen[0]!;
    expect(Object.keys(headers).sort()).toEqual(
      [
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "openai-beta",
        "user-agent",
      ].sort(),
    );
    expect(headers).toMatchObject({
      authorization: "Bearer sk-upstream-secret-0",
      "accept-encoding": "identity",
      "openai-beta": "assistants=v2",
    });
  });
});

describe("errors", () => {
  test("a bad key: AuthenticationError", async () => {
    client = clientOf("tbk_wrong");
    expect(await failure(ask())).toBeInstanceOf(AuthenticationError);
    expect(calls).toBe(1);
  });

  test("an unknown model: NotFoundError", async () => {
    const caught = await failure(ask({ model: "nope" }));
    expect(caught).toBeInstanceOf(NotFoundError);
    expect(caught).toMatchObject({ code: "model_not_found", param: "model", type: "invalid_request_error" });
    expect(calls).toBe(1);
  });

  test("an empty wallet: RateLimitError, the link, and not one retry", async () => {
    gateway.budget.free = 0n;
    const caught = await failure(ask());
    expect(caught).toBeInstanceOf(RateLimitError);
    expect(caught).toMatchObject({ status: 429, code: "insufficient_quota", type: "insufficient_quota", param: null });
    expect(caught.error).toEqual({
      message: `Your Credit balance is insufficient. Please top up: ${CHECKOUT}`,
      type: "insufficient_quota",
      param: null,
      code: "insufficient_quota",
      checkout_url: CHECKOUT,
    });
    expect(caught.requestID).toMatch(/^usg_/);
    expect(calls).toBe(1);
    expect(gateway.upstreams[0]!.seen).toEqual([]);
  });

  test("an empty wallet answers with the status that the VE wants", async () => {
    gateway.budget.free = 0n;
    delta(gateway.table, [resource("virtualEndpoint", { id: VE, exhaustedStatus: 402, checkoutUrl: CHECKOUT })]);
    const caught = await failure(ask());
    expect(caught).toBeInstanceOf(APIError);
    expect([caught.status, caught.code, calls]).toEqual([402, "insufficient_quota", 1]);
  });

  test("a wallet that cannot be asked: 503 with retry-after", async () => {
    gateway.budget.free = 0n;
    gateway.budget.failure = "unavailable";
    client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    const caught = await failure(ask());
    expect(caught).toBeInstanceOf(InternalServerError);
    expect([caught.status, caught.code, caught.headers.get("retry-after")]).toEqual([503, "budget_unavailable", "2"]);
  });

  test("[journal-closed] a journal that takes nothing: 503", async () => {
    gateway.journal.accepting = false;
    client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    expect((await failure(ask())).status).toBe(503);
    expect(gateway.upstreams[0]!.seen).toEqual([]);
  });

  test("a code that tells of the account is left out", async () => {
    gateway.upstreams[0]!.next(
      json(400, { error: { message: "no", type: "org-abcdef123", param: null, code: "sk-upstream-secret-0" } }),
    );
    expect(await failure(ask())).toMatchObject({ type: "invalid_request_error", code: null });
  });

  test("the client's own fault: BadRequestError in the upstream's words, without anything of its account", async () => {
    const message =
      "Key sk-upstream-secret-0 of org-abcdef123 (project proj_abcdefgh, ops@merchant.example) at " +
      `${gateway.upstreams[0]!.url}/v1/chat says: 'temperature' must be at most 2. See https://platform.example/account?org=1`;
    gateway.upstreams[0]!.next(
      json(400, {
        error: { message, type: "invalid_request_error", param: "temperature", code: "decimal_above_max_value" },
      }),
    );
    const caught = await failure(ask({ temperature: 9 }));
    expect(caught).toBeInstanceOf(BadRequestError);
    expect(caught).toMatchObject({
      param: "temperature",
      code: "decimal_above_max_value",
      type: "invalid_request_error",
    });
    expect(caught.error.message).toContain("'temperature' must be at most 2");
    for (const secret of ["sk-upstream", "org-abc", "proj_abc", "ops@", "127.0.0.1", "platform.example"])
      expect(JSON.stringify(caught.error)).not.toContain(secret);
    expect(calls).toBe(1);
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: 7,
      credits: 0n,
      httpStatus: 400,
      physicalModelId: "",
      units: [],
    });
  });

  test.each([
    [413, { error: { message: "too big", type: "invalid_request_error", param: null, code: null } }, "too big"],
    [
      422,
      { object: "error", message: "extra fields", type: "BadRequestError", param: null, code: 422 },
      "extra fields",
    ],
    [400, { error: "a bare string" }, "a bare string"],
    [400, "<html>nginx</html>", "The request was refused."],
  ])("a %i of any shape becomes an envelope", async (status, body, message) => {
    gateway.upstreams[0]!.next(json(status, body));
    const caught = await failure(ask());
    expect([caught.status, caught.error.message, typeof caught.error.type]).toEqual([status, message, "string"]);
    expect(calls).toBe(1);
  });

  test("a refused account never shows: 503 no_available_target", async () => {
    client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    gateway.upstreams[0]!.next(error(401, "invalid_api_key", "Incorrect API key provided: sk-upstream-secret-0"));
    const caught = await failure(ask());
    expect(caught).toBeInstanceOf(InternalServerError);
    expect(caught).toMatchObject({ status: 503, code: "no_available_target", type: "service_unavailable_error" });
    expect(JSON.stringify(caught.error)).not.toContain("sk-upstream");
  });

  test("all targets rate limited: 429 with the shortest retry-after", async () => {
    client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
    gateway.upstreams[0]!.next(error(429, "rate_limit_exceeded", "slow down", { "retry-after": "7" }));
    const caught = await failure(ask());
    expect(caught).toBeInstanceOf(RateLimitError);
    expect([caught.code, caught.headers.get("retry-after"), caught.headers.get("x-should-retry")]).toEqual([
      "rate_limit_exceeded",
      "7",
      null,
    ]);
  });

  test("a body that is too large: 413 before it is read whole", async () => {
    const caught = await failure(client.completions.create({ model: "gpt", prompt: "x".repeat(TEXT_BODY_BYTES_MAX) }));
    expect([caught.status, caught.code, calls]).toEqual([413, "request_too_large", 1]);
  });

  test("an error after the stream began is raised by the SDK", async () => {
    gateway.upstreams[0]!.next(sse(streamText(["Hel", "lo"]).slice(0, 3), "break"));
    let text = "";
    const caught = await failure(
      (async () => {
        for await (const chunk of await ask({ stream: true })) text += chunk.choices[0]?.delta.content ?? "";
      })(),
    );
    expect(caught).toBeInstanceOf(APIError);
    expect([text, caught.code]).toEqual(["Hello", "upstream_cut"]);
  });
});

describe("/tokenbill", () => {
  const INFO = { ve_id: VE, name: "Test VE", credit_remaining: "12.5", credit_budget: "100", logical_models: ["gpt"] };
  const parse = (text: string) => {
    const [title, ...rest] = text.split("\n");
    expect(title).toBe("TokenBill VE Info");
    return JSON.parse(rest.join("\n"));
  };
  const messages = [{ role: "user", content: [{ type: "text", text: " /tokenbill " }] }];

  test("is answered locally and free, even with an empty wallet and for an unknown model", async () => {
    gateway.budget.free = 0n;
    gateway.journal.accepting = false;
    const answer = await ask({ messages, model: "whatever" });
    expect(parse(answer.choices[0].message.content)).toEqual(INFO);
    expect(answer).toMatchObject({
      object: "chat.completion",
      model: "whatever",
      usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
    });
    expect(gateway.upstreams[0]!.seen).toEqual([]);
    expect(gateway.journal.settlements).toEqual([]);
  });

  test("streams, with usage when asked", async () => {
    for (const include of [false, true]) {
      let text = "";
      let usage: unknown;
      for await (const chunk of await ask({
        messages,
        stream: true,
        ...(include ? { stream_options: { include_usage: true } } : {}),
      })) {
        expect(chunk.object).toBe("chat.completion.chunk");
        text += chunk.choices[0]?.delta.content ?? "";
        if (chunk.choices.length === 0) usage = chunk.usage;
      }
      expect(parse(text)).toEqual(INFO);
      expect(usage).toEqual(include ? { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } : undefined);
    }
  });

  test("tells the checkout link when the wallet is low, and null when nothing is known", async () => {
    gateway.budget.low = true;
    expect(parse((await ask({ messages })).choices[0].message.content).checkout_url).toBe(CHECKOUT);
    gateway.budget.low = false;
    gateway.budget.balance = { creditRemaining: 0n, creditBudget: parseCredits("100") };
    expect(parse((await ask({ messages })).choices[0].message.content).checkout_url).toBe(CHECKOUT);
    gateway.budget.balance = null;
    expect(parse((await ask({ messages })).choices[0].message.content)).toMatchObject({
      credit_remaining: null,
      credit_budget: null,
    });
  });

  test("anything but exactly that goes to the model", async () => {
    await ask({ messages: [{ role: "user", content: "what is /tokenbill?" }] });
    await ask({
      messages: [
        { role: "user", content: "/tokenbill" },
        { role: "assistant", content: "…" },
        { role: "user", content: "thanks" },
      ],
    });
    expect(gateway.upstreams[0]!.seen).toHaveLength(2);
  });
});
