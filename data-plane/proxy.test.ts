import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parseCredits } from "../core/credits.ts";
import { type Gateway, startGateway } from "./testing.ts";
import { chat, streamText, sse, USAGE } from "./testing_upstream.ts";

let gateway: Gateway;
beforeEach(async () => {
  gateway = await startGateway();
});
afterEach(() => gateway.close());

describe("a whole answer", () => {
  test("is relayed byte by byte, billed as reported, and journaled before it leaves", async () => {
    const [upstream] = gateway.upstreams;
    upstream!.next(chat("Hi!"));
    gateway.journal.held = [];
    const pending = gateway.chat();
    const settlement = await gateway.journal.settled();
    gateway.journal.held[0]!();
    const response = await pending;
    expect(response.status).toBe(200);
    expect(((await response.json()) as any).choices[0].message.content).toBe("Hi!");
    expect(settlement).toMatchObject({
      veId: expect.any(String),
      physicalModelId: "pm_0",
      priceId: "price_1",
      outcome: 1,
      httpStatus: 200,
      credits: parseCredits("0.033"),
      upstreamRequestId: "req_upstream",
      stream: false,
    });
    expect(response.headers.get("x-request-id")).toBe(settlement.id);
    expect(upstream!.seen[0]!.body).toEqual({ model: "up-0", messages: [{ role: "user", content: "Hi" }] });
    expect(upstream!.seen[0]!.headers.authorization).toBe("Bearer sk-upstream-secret-0");
  });
});

describe("a stream", () => {
  test("loses the usage that was only asked for by the gateway", async () => {
    gateway.upstreams[0]!.next(sse(streamText(["a", "b"])));
    const response = await gateway.chat({ stream: true });
    const text = await response.text();
    expect(text).not.toContain("usage");
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(gateway.upstreams[0]!.seen[0]!.body["stream_options"]).toEqual({ include_usage: true });
    expect(gateway.journal.intents).toHaveLength(1);
    expect(gateway.journal.settlements[0]).toMatchObject({ stream: true, outcome: 1, credits: parseCredits("0.033") });
  });

  test("passes through untouched when the client asked for usage", async () => {
    const frames = streamText(["a", "b"], USAGE);
    gateway.upstreams[0]!.next(sse(frames));
    const response = await gateway.chat({ stream: true, stream_options: { include_usage: true } });
    expect(await response.text()).toBe(frames.join(""));
  });
});
