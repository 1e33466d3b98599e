/** The whole promise in one go, on both stores: the README's quickstart, then the official SDK, to the last digit. */

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { RateLimitError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { paginate, type TokenBill, WalletState } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { AllInOne, makeHome, removeHome } from "../support/all_in_one.ts";
import { postgresUrl } from "../support/postgres.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, untilServed } from "../support/shop.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

/** 0.05 Credits per 1000 tokens, computed apart from core. */
const PICO_PER_TOKEN = 50_000_000n;
const messages = [{ role: "user" as const, content: "Good morning to you" }];
const README = fileURLToPath(new URL("../../README.md", import.meta.url));
/** How soon a top-up must have reached a node. */
const TOP_UP_MS = 1_000;

/** The shell blocks under "## Quickstart", in order. */
async function quickstartScript(): Promise<string> {
  const readme = await readFile(README, "utf8");
  const section = /^## Quickstart$([\s\S]*?)^## /m.exec(readme)![1]!;
  const blocks = [...section.matchAll(/^```bash\n([\s\S]*?)^```$/gm)].map((match) => match[1]!);
  if (blocks.length < 5) throw new Error("the README has no quickstart");
  return blocks.join("\n");
}

function runBash(script: string, cwd: string): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn("bash", ["-eu", "-c", script], { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (data: Buffer) => (output += data.toString()));
    child.stderr.on("data", (data: Buffer) => (output += data.toString()));
    child.once("close", (code) => resolve({ code, output }));
  });
}

async function remaining(tb: TokenBill, veId: string): Promise<bigint> {
  const { wallet } = await tb.virtualEndpoints.getBalance({ veId });
  return parseCredits(wallet!.creditRemaining);
}

describe.each(["PGlite", "PostgreSQL"])("on %s", (store) => {
  let upstream: Upstream;
  let home: string;
  let databaseUrl: string | undefined;
  let system: AllInOne;
  let tb: TokenBill;
  let shop: Shop;

  beforeAll(async () => {
    upstream = await startUpstream({ address: "127.0.0.1:0" });
    home = await makeHome();
    databaseUrl = store === "PostgreSQL" ? await postgresUrl() : undefined;
    system = await AllInOne.start({ home, databaseUrl });
    tb = await system.api();
    shop = await openShop(tb, { upstreamUrl: upstream.url });
    await untilServed(system.node, shop);
  });

  afterAll(async () => {
    await system?.stop();
    await upstream?.close();
    await removeHome(home);
  });

  test("the README's quickstart does what it says", async () => {
    const script = (await quickstartScript())
      .replaceAll("http://127.0.0.1:9000/v1", upstream.url)
      .replaceAll("http://127.0.0.1:8080", system.controlPlaneUrl)
      .replaceAll("http://127.0.0.1:8081", system.dataPlaneUrl)
      .replaceAll(".tokenbill/", `${home}/`);
    const cwd = await mkdtemp(join(tmpdir(), "tokenbill-quickstart-"));
    const { code, output } = await runBash(script, cwd);
    await rm(cwd, { recursive: true });
    expect(code, output).toBe(0);
    expect(output).toContain('"result":"PROVIDER_TEST_RESULT_OK"');
    expect(output).toContain("data: [DONE]");
    expect(output.match(/TokenBill VE Info/g)).toHaveLength(2);
    expect(output).toContain("Your Credit balance is insufficient. Please top up: http");
    expect(output).toContain('"insufficient_quota"');
    expect(output).toContain('"checkout_url":"http');
    // The last answer comes after the top-up.
    expect(output.lastIndexOf("This is a simulated answer")).toBeGreaterThan(output.lastIndexOf("insufficient_quota"));
    expect(output).toContain('"type":"message"');
    expect(output).toContain('"object":"response"');
    expect(output).toMatch(/"requests":\[\{"id":"usg_/);
    expect(output).toMatch(/"rows":\[\{"veId":"ve_/);
  });

  test("the wallet falls by exactly what was used, streamed or not", async () => {
    const client = system.node.openai(shop.key);
    const before = await remaining(tb, shop.veId);
    let tokens = 0;
    const whole = await client.chat.completions.create({ model: shop.model, messages });
    expect(whole.choices[0]!.message.content).toContain("simulated answer");
    tokens += whole.usage!.total_tokens;
    const stream = await client.chat.completions.create({
      model: shop.model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      tokens += chunk.usage?.total_tokens ?? 0;
    }
    expect(text).toBe(whole.choices[0]!.message.content);
    const silent = await client.chat.completions.create({ model: shop.model, messages, stream: true });
    let usageKeys = 0;
    for await (const chunk of silent) if ("usage" in chunk) usageKeys++;
    expect(usageKeys, "a client who did not ask sees no usage").toBe(0);
    tokens += whole.usage!.total_tokens;
    const embedding = await client.embeddings.create({ model: shop.model, input: ["one two", "three"] });
    expect(embedding.data).toHaveLength(2);
    tokens += embedding.usage.total_tokens;
    const text2 = await client.completions.create({ model: shop.model, prompt: "Once upon a time", max_tokens: 3 });
    expect(text2.choices[0]!.finish_reason).toBe("length");
    tokens += text2.usage!.total_tokens;

    const cost = BigInt(tokens) * PICO_PER_TOKEN;
    const left = await until("the usage is reported", async () => {
      const now = await remaining(tb, shop.veId);
      return now <= before - cost && now;
    });
    expect(formatCredits(left)).toBe(formatCredits(before - cost));

    const requests: { credits: string; id: string }[] = [];
    const filter = { veId: shop.veId };
    for await (const request of paginate(
      (pageToken) => tb.usage.listRequests({ filter, pageToken, pageSize: 2 }),
      (page) => page.requests,
    )) {
      requests.push(request);
    }
    expect(requests).toHaveLength(5);
    expect(requests.reduce((sum, request) => sum + parseCredits(request.credits), 0n)).toBe(cost);
    const { rows } = await tb.usage.summarizeUsage({ filter });
    expect(rows[0]!.credits).toBe(formatCredits(cost));
  });

  test("an empty wallet is a typed error that is not retried, and a top-up ends it", async () => {
    const poor = await openShop(tb, { upstreamUrl: upstream.url, creditBudget: "0.02" });
    await untilServed(system.node, poor);
    let calls = 0;
    const counting: typeof fetch = (input, init) => {
      calls++;
      return fetch(input, init);
    };
    const client = system.node.openai(poor.key, { fetch: counting });
    const ask = () => client.chat.completions.create({ model: poor.model, messages, max_tokens: 20 });
    let error: unknown;
    for (let i = 0; i < 100 && error === undefined; i++) await ask().catch((caught: unknown) => (error = caught));

    expect(error).toBeInstanceOf(RateLimitError);
    const refused = error as RateLimitError;
    expect(refused).toMatchObject({ status: 429, code: "insufficient_quota", type: "insufficient_quota" });
    const { checkout_url: checkoutUrl } = refused.error as { checkout_url: string };
    // Links are signed for some time from when they are given.
    const { checkoutUrl: again } = await tb.virtualEndpoints.getBalance({ veId: poor.veId });
    expect(checkoutUrl.split("&link=")[0]).toBe(again.split("&link=")[0]);
    expect(refused.message).toContain(`Your Credit balance is insufficient. Please top up: ${checkoutUrl}`);
    const page = await fetch(checkoutUrl);
    expect(page.status).toBe(200);

    calls = 0;
    await expect(ask()).rejects.toThrow(RateLimitError);
    expect(calls, "the official SDK does not retry an exhausted wallet").toBe(1);

    const upstreamCalls = upstream.calls.length;
    const command = [{ role: "user" as const, content: " /tokenbill " }];
    const shown = await until("the last usage is reported", async () => {
      const info = await client.chat.completions.create({ model: poor.model, messages: command });
      const text = info.choices[0]!.message.content!;
      expect(text).toMatch(/^TokenBill VE Info\n\{/);
      expect(text).not.toContain(poor.key);
      const object = JSON.parse(text.slice(text.indexOf("{"))) as Record<string, unknown>;
      const { wallet } = await tb.virtualEndpoints.getBalance({ veId: poor.veId });
      // BALANCED may overdraw by one slice of 256 tokens.
      expect(parseCredits(wallet!.debt)).toBeLessThanOrEqual(256n * PICO_PER_TOKEN);
      return wallet!.creditRemaining === object["credit_remaining"] && object;
    });
    expect(shown).toMatchObject({ ve_id: poor.veId, logical_models: [poor.model], checkout_url: checkoutUrl });
    expect(upstream.calls.length, "/tokenbill asks no upstream").toBe(upstreamCalls);

    await tb.virtualEndpoints.adjustCredits({ veId: poor.veId, credits: "1", reason: "test" });
    const served = await until("the top-up has arrived", () => ask(), TOP_UP_MS);
    expect(served.choices[0]!.finish_reason).toBe("length");
  });

  test("a stop and a start on the same home keep everything", async () => {
    const client = () => system.node.openai(shop.key);
    await client().chat.completions.create({ model: shop.model, messages });
    await system.stop();
    system = await AllInOne.start({ home, databaseUrl });
    tb = await system.api();
    const { wallet } = await tb.virtualEndpoints.getBalance({ veId: shop.veId });
    expect(wallet!.escrowed, "a clean stop gives the leases back").toBe("0");
    const { requests } = await tb.usage.listRequests({ filter: { veId: shop.veId }, pageSize: 1000 });
    const spent = requests.reduce((sum, request) => sum + parseCredits(request.credits), 0n);
    expect(requests).toHaveLength(6);
    expect(wallet!.settled).toBe(formatCredits(spent));
    expect(wallet!.state).toBe(WalletState.OK);
    await untilServed(system.node, shop);
    const answer = await client().chat.completions.create({ model: shop.model, messages });
    expect(answer.choices).toHaveLength(1);
  });
});
