/** What is held at admission, and how answers are limited to it. */

import { afterEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { SLICE_TOKENS, UNNAMED_OUTPUT_TOKENS } from "./budget/estimate.ts";
import { type Gateway, type GatewayOptions, startGateway } from "./testing.ts";

let gateway: Gateway;
afterEach(() => gateway.close());
const start = async (options: GatewayOptions = {}): Promise<void> => {
  gateway = await startGateway(options);
};

const BODY = { model: "gpt", messages: [{ role: "user", content: "Hi" }] };
const bytes = (fields: Record<string, unknown> = {}): number => JSON.stringify({ ...BODY, ...fields }).length;
/** 0.001 Credit an input token, 0.002 an output token. */
const price = (input: number, output: number): bigint =>
  BigInt(input) * parseCredits("0.001") + BigInt(output) * parseCredits("0.002");

describe("admission", () => {
  test("BALANCED: an answer that is not streamed is limited to what could be held and one slice", async () => {
    await start();
    const input = price(bytes(), 0);
    gateway.budget.free = input + price(0, 300);
    const response = await gateway.chat();
    const covered = 300 + SLICE_TOKENS;
    expect(response.headers.get("x-tokenbill-clamped-max-tokens")).toBe(String(covered));
    expect(gateway.upstreams[0]!.seen[0]!.body["max_tokens"]).toBe(covered);
    expect(gateway.budget.slowCalls).toEqual([{ amount: input + price(0, UNNAMED_OUTPUT_TOKENS), minimum: input }]);
    await response.text();
  });

  test("BALANCED: with enough nothing is clamped", async () => {
    await start();
    const response = await gateway.chat({ max_tokens: 50_000 });
    expect(response.headers.get("x-tokenbill-clamped-max-tokens")).toBeNull();
    expect(gateway.upstreams[0]!.seen[0]!.body["max_tokens"]).toBe(50_000);
    await response.text();
  });

  test("BALANCED: no answer may be longer than the whole wallet and one slice cover, hidden reasoning included", async () => {
    await start();
    const input = price(bytes({ stream: true }), 0);
    gateway.budget.left = input + price(0, 2000);
    const covered = 2000 + SLICE_TOKENS;
    const limits = async (fields: Record<string, unknown>) => {
      const response = await gateway.chat({ stream: true, ...fields });
      await response.text();
      const { max_tokens, max_completion_tokens } = gateway.upstreams[0]!.seen.at(-1)!.body;
      return [response.headers.get("x-tokenbill-clamped-max-tokens"), max_tokens, max_completion_tokens];
    };
    expect(await limits({})).toEqual([String(covered), covered, undefined]);
    gateway.budget.left = price(bytes({ stream: true, max_completion_tokens: 50_000 }), 2000);
    // Nothing is known of the server, so both fields say it.
    expect(await limits({ max_completion_tokens: 50_000 })).toEqual([String(covered), covered, covered]);
    expect(await limits({ max_completion_tokens: 100 })).toEqual([null, undefined, 100]);
    // Nobody said how long an answer may be, so a limit that an upstream might refuse is not made up.
    gateway.budget.left = input + price(0, UNNAMED_OUTPUT_TOKENS);
    expect(await limits({})).toEqual([null, undefined, undefined]);
  });

  test("STRICT: the worst case is held, and a limit is always set", async () => {
    await start({ ve: { budgetMode: 2 } });
    const first = await gateway.chat();
    expect(first.headers.get("x-tokenbill-clamped-max-tokens")).toBe(String(UNNAMED_OUTPUT_TOKENS));
    expect(gateway.upstreams[0]!.seen[0]!.body["max_tokens"]).toBe(UNNAMED_OUTPUT_TOKENS);
    const second = await gateway.chat({ max_completion_tokens: 77 });
    expect(second.headers.get("x-tokenbill-clamped-max-tokens")).toBeNull();
    expect(gateway.upstreams[0]!.seen[1]!.body).not.toHaveProperty("max_tokens");
    gateway.budget.free = price(bytes({ max_tokens: 900 }), 40);
    const third = await gateway.chat({ max_tokens: 900 });
    expect(gateway.upstreams[0]!.seen[2]!.body["max_tokens"]).toBe(40);
    for (const response of [first, second, third]) await response.text();
  });
});
