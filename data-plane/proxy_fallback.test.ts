/** From one target to the next, and when not. */

import { afterEach, describe, expect, test } from "vitest";
import { AttemptResult } from "./outcome.ts";
import { createUpstream } from "./upstream.ts";
import { delta, type Gateway, type GatewayOptions, resource, startGateway } from "./testing.ts";
import {
  chat,
  chatBody,
  chunk,
  DONE,
  error,
  type Handler,
  hang,
  json,
  reset,
  sse,
  streamText,
} from "./testing_upstream.ts";

let gateway: Gateway;
afterEach(() => gateway.close());

const start = async (options: GatewayOptions = {}): Promise<void> => {
  gateway = await startGateway({ upstreams: 2, ...options });
};

const results = () => gateway.journal.settlements[0]!.attempts.map(({ result, httpStatus }) => [result, httpStatus]);
const {
  SERVED,
  CONNECTION_ERROR,
  FIRST_BYTE_TIMEOUT,
  FIRST_CONTENT_TIMEOUT,
  NO_CONNECTION,
  STATUS,
  BAD_ANSWER,
  CLIENT_ERROR,
  ADDRESS_NOT_ALLOWED,
  TOTAL_TIMEOUT,
} = AttemptResult;

const gzipHead: Handler = (response) => {
  response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" });
  response.end("{}");
};
const headThenBreak: Handler = (response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
  response.write('{"choices":', () => response.socket?.destroy());
};
const notHttp: Handler = (response) => void response.socket?.end("SSH-2.0-nothing\r\n\r\n");

describe("an answer that is not streamed falls back", () => {
  const cases: [string, Handler, number, number][] = [
    ["a broken connection", reset, CONNECTION_ERROR, 0],
    ["a broken connection after the head", headThenBreak, BAD_ANSWER, 200],
    ["something that is not HTTP", notHttp, BAD_ANSWER, 0],
    ["status 401", error(401), STATUS, 401],
    ["status 402", error(402), STATUS, 402],
    ["status 403", error(403), STATUS, 403],
    ["status 404", error(404, "model_not_found"), STATUS, 404],
    ["status 408", error(408), STATUS, 408],
    ["status 424", error(424), STATUS, 424],
    ["status 429", error(429), STATUS, 429],
    ["status 500", error(500), STATUS, 500],
    ["status 502 with HTML", json(502, "<html>"), STATUS, 502],
    ["status 503", error(503), STATUS, 503],
    ["status 529", error(529), STATUS, 529],
    ["a redirect", json(302, "", { location: "http://127.0.0.1:1/" }), STATUS, 302],
    ["a 400 about the account", error(400, "billing_hard_limit_reached"), STATUS, 400],
    ["an error inside a 200", json(200, { error: { message: "no" } }), BAD_ANSWER, 200],
    ["a cut JSON body", json(200, '{"choices":[{'), BAD_ANSWER, 200],
    ["an empty body", json(200, ""), BAD_ANSWER, 200],
    ["an empty object", json(200, "{}"), BAD_ANSWER, 200],
    ["HTML in a 200", json(200, "<html></html>"), BAD_ANSWER, 200],
    ["an unasked compression", gzipHead, BAD_ANSWER, 200],
    ["a stream nobody asked for", sse(streamText(["a"])), BAD_ANSWER, 200],
  ];
  test.each(cases)("after %s", async (_, handler, result, status) => {
    await start();
    gateway.upstreams[0]!.next(handler);
    const response = await gateway.chat();
    expect(response.status).toBe(200);
    expect(response.headers.get("x-tokenbill-attempts")).toBe("2");
    expect(((await response.json()) as any).choices[0].message.content).toBe("Hello there");
    expect(results()).toEqual([
      [result, status],
      [SERVED, 200],
    ]);
    expect(gateway.journal.settlements[0]).toMatchObject({ physicalModelId: "pm_1", outcome: 1 });
    expect(gateway.upstreams[1]!.seen[0]!.body["model"]).toBe("up-1");
  });

  test("when nothing comes in time", async () => {
    await start({ deadlines: { firstByteMs: 60 } });
    gateway.upstreams[0]!.next(hang);
    expect((await gateway.chat()).status).toBe(200);
    expect(results()).toEqual([
      [FIRST_BYTE_TIMEOUT, 0],
      [SERVED, 200],
    ]);
  });

  test("when the upstream cannot be reached, or may not be", async () => {
    await start();
    for (const [baseUrl, result] of [
      ["http://127.0.0.1:1/v1", CONNECTION_ERROR],
      ["http://169.254.169.254/v1", ADDRESS_NOT_ALLOWED],
      ["http://does-not-exist.invalid/v1", CONNECTION_ERROR],
    ] as const) {
      gateway.journal.settlements.length = 0;
      gateway.budget.reservations.length = 0;
      gateway.budget.spent = 0n;
      delta(gateway.table, [resource("provider", { id: "prov_0", format: 1, baseUrl })]);
      for (const pm of gateway.table.logicalModel(
        gateway.table.ve(gateway.journal.settlements[0]?.veId ?? "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa")!,
        "gpt",
      )!.spec.group.pms)
        pm.health.succeed(0);
      expect((await gateway.chat()).status).toBe(200);
      expect(results()[0]).toEqual([result, 0]);
    }
  });
});

describe("a stream falls back until its first content", () => {
  const role = chunk({ role: "assistant", content: "" });
  const cases: [string, Handler][] = [
    ["a broken connection after the role", sse([role], "break")],
    ["an empty stream", sse([])],
    ["an empty stream with an end", sse([role, DONE])],
    ["comments alone", sse([": keep-alive\n\n", ": keep-alive\n\n"])],
    ["an error frame", sse([role, 'data: {"error":{"message":"overloaded"}}\n\n'])],
    ["an error event", sse([role, 'event: error\ndata: {"message":"overloaded"}\n\n'])],
    ["a broken frame", sse([role, "data: {not json\n\n"])],
    ["a frame that is no object", sse(["data: 5\n\n"])],
    ["JSON in place of a stream", json(200, chatBody())],
    ["status 500", error(500)],
  ];
  test.each(cases)("after %s", async (_, handler) => {
    await start();
    gateway.upstreams[0]!.next(handler);
    gateway.upstreams[1]!.next(sse(streamText(["good"])));
    const response = await gateway.chat({ stream: true });
    expect(response.status).toBe(200);
    const text = await response.text();
    expect(text).toContain("good");
    // Nothing of the first attempt is left: one role, one end.
    expect(text.match(/"role"/g)).toHaveLength(1);
    expect(text).not.toContain("overloaded");
    expect(
      results()
        .map(([result]) => result)
        .at(-1),
    ).toBe(SERVED);
    expect(gateway.journal.settlements[0]!.attempts).toHaveLength(2);
  });

  test("when only comments and roles come in time", async () => {
    await start({ deadlines: { firstContentMs: 80 } });
    gateway.upstreams[0]!.next(sse([": thinking\n\n", role], "hang"));
    gateway.upstreams[1]!.next(sse(streamText(["good"])));
    const response = await gateway.chat({ stream: true });
    expect(await response.text()).toContain("good");
    expect(results()[0]).toEqual([FIRST_CONTENT_TIMEOUT, 200]);
  });

  test("but not after it", async () => {
    await start();
    gateway.upstreams[0]!.next(sse([role, chunk({ content: "some" })], "break"));
    const response = await gateway.chat({ stream: true });
    const text = await response.text();
    expect(text).toContain("some");
    expect(text.trim().split("\n\n").at(-1)).toContain('"code":"upstream_cut"');
    expect(gateway.upstreams[1]!.seen).toEqual([]);
    expect(gateway.journal.settlements[0]).toMatchObject({ outcome: 3, physicalModelId: "pm_0" });
  });

  test("an answer that is empty on purpose is an answer", async () => {
    await start();
    gateway.upstreams[0]!.next(sse([role, chunk({}, "length"), DONE]));
    const response = await gateway.chat({ stream: true });
    expect(await response.text()).toContain('"finish_reason":"length"');
    expect(gateway.upstreams[1]!.seen).toEqual([]);
  });
});

describe("no fallback", () => {
  test.each([400, 413, 422])("after status %i", async (status) => {
    await start();
    gateway.upstreams[0]!.next(error(status));
    const response = await gateway.chat();
    expect(response.status).toBe(status);
    expect(response.headers.get("x-should-retry")).toBe("false");
    await response.text();
    expect(results()).toEqual([[CLIENT_ERROR, status]]);
    expect(gateway.upstreams[1]!.seen).toEqual([]);
  });

  test("when no target can be routed to: 503 without any attempt", async () => {
    await start({ pm: { disabled: true } });
    const response = await gateway.chat();
    expect(response.status).toBe(503);
    expect(((await response.json()) as any).error.code).toBe("no_available_target");
    expect(gateway.budget.reservations).toEqual([]);
  });
});

describe("when everything fails", () => {
  test("the client sees 503 and nothing is billed", async () => {
    await start();
    for (const upstream of gateway.upstreams) upstream.always(error(500));
    const response = await gateway.chat();
    expect(response.status).toBe(503);
    expect(((await response.json()) as any).error).toMatchObject({
      type: "service_unavailable_error",
      code: "no_available_target",
    });
    expect(gateway.journal.settlements[0]).toMatchObject({
      outcome: 2,
      credits: 0n,
      units: [],
      physicalModelId: "",
      priceId: "",
      httpStatus: 503,
    });
    expect(gateway.journal.settlements[0]!.attempts).toHaveLength(2);
  });

  test("[timeout-before-content] the total deadline: 504", async () => {
    await start({ deadlines: { totalMs: 80 } });
    for (const upstream of gateway.upstreams) upstream.always(hang);
    const response = await gateway.chat();
    expect([response.status, ((await response.json()) as any).error.code]).toEqual([504, "timeout"]);
    expect(results()).toEqual([[TOTAL_TIMEOUT, 0]]);
  });

  test("some rate limited and some broken is no 429", async () => {
    await start();
    gateway.upstreams[0]!.always(error(429));
    gateway.upstreams[1]!.always(error(500));
    const response = await gateway.chat();
    expect(response.status).toBe(503);
    await response.text();
  });

  test("a broken connection is tried once more where there is no other target", async () => {
    await start({ upstreams: 1 });
    gateway.upstreams[0]!.next(reset);
    const response = await gateway.chat();
    expect(response.status).toBe(200);
    await response.text();
    expect(results()).toEqual([
      [CONNECTION_ERROR, 0],
      [SERVED, 200],
    ]);
    gateway.upstreams[0]!.next(reset, reset, chat());
    const second = await gateway.chat();
    expect(second.status).toBe(503);
    await second.text();
  });
});

describe("health", () => {
  test("a failing target is skipped while its sibling is well, and tried when all cool down", async () => {
    await start();
    gateway.upstreams[0]!.next(error(401));
    await (await gateway.chat()).text();
    await (await gateway.chat()).text();
    expect(gateway.upstreams.map(({ seen }) => seen.length)).toEqual([1, 2]);
    gateway.upstreams[1]!.next(error(401));
    const third = await gateway.chat();
    // The first one still cools down; trying it is better than failing outright.
    expect(third.status).toBe(200);
    await third.text();
    expect(gateway.upstreams.map(({ seen }) => seen.length)).toEqual([2, 3]);
  });

  test("a node without connections to spare goes on to the next target, and holds nothing against the first", async () => {
    const outbound = createUpstream({ allowPrivate: true, connectionsPerOriginMax: 1 });
    await start({ outbound });
    const [first, second] = gateway.upstreams;
    const releases: (() => void)[] = [];
    const hold: Handler = (response) => {
      releases.push(() => chat()(response, undefined as never));
    };
    first!.next(hold);
    const busy = gateway.chat();
    await expect.poll(() => first!.seen.length).toBe(1);
    // More than would cool a failing target down.
    for (let i = 0; i < 4; i++) {
      const response = await gateway.chat();
      expect(response.status).toBe(200);
      expect(response.headers.get("x-tokenbill-attempts")).toBe(null);
      await response.text();
    }
    expect(second!.seen).toHaveLength(4);
    expect(gateway.journal.settlements[0]!.attempts).toMatchObject([
      { physicalModelId: "pm_0", result: NO_CONNECTION, detail: "NO_FREE_CONNECTION" },
      { physicalModelId: "pm_1", result: SERVED },
    ]);
    second!.next(hold);
    const alsoBusy = gateway.chat();
    await expect.poll(() => second!.seen.length).toBe(5);
    const refused = await gateway.chat();
    expect([refused.status, ((await refused.json()) as any).error.code]).toEqual([503, "no_available_target"]);
    for (const release of releases) release();
    await Promise.all([busy, alsoBusy].map(async (each) => (await each).text()));
    await (await gateway.chat()).text();
    expect(first!.seen).toHaveLength(2);
  });

  test("retry-after is obeyed", async () => {
    await start();
    gateway.upstreams[0]!.next(error(429, null, "", { "retry-after": "30" }));
    for (let i = 0; i < 3; i++) await (await gateway.chat()).text();
    expect(gateway.upstreams.map(({ seen }) => seen.length)).toEqual([1, 3]);
  });
});

test("targets are drawn by weight, and every attempt is explained", async () => {
  await start({
    targets: [
      { tier: 2, weight: 1 },
      { tier: 2, weight: 3 },
    ],
    random: () => 0.5,
  });
  await (await gateway.chat()).text();
  expect(gateway.journal.settlements[0]!.attempts).toMatchObject([
    { physicalModelId: "pm_1", tier: 2, result: SERVED },
  ]);
});
