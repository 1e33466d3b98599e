/** Requests that not every target of a Logical Model can serve. */

import { afterEach, expect, test } from "vitest";
import { AttemptResult, Outcome } from "./outcome.ts";
import { delta, type Gateway, PRICE, resource, startGateway } from "./testing.ts";
import { error } from "./testing_upstream.ts";

const { SERVED, STATUS, UNSUPPORTED } = AttemptResult;

let gateway: Gateway;
afterEach(() => gateway.close());

const ANTHROPIC = { format: 3 };

/** The first target speaks Anthropic's format, the second OpenAI's. */
async function startBoth(): Promise<void> {
  gateway = await startGateway({ upstreams: 2 });
  const baseUrl = gateway.upstreams[0]!.url;
  delta(gateway.table, [resource("provider", { id: "prov_0", ...ANTHROPIC, baseUrl, credentials: { apiKey: "k" } })]);
}

const attempts = () =>
  gateway.journal.settlements[0]!.attempts.map(({ physicalModelId, result, detail }) => [
    physicalModelId,
    result,
    detail,
  ]);

test("[cannot-be-done] what no target can do is a 400 that names the field, and nothing is sent or billed", async () => {
  gateway = await startGateway({ provider: ANTHROPIC });
  const answer = await gateway.chat({ n: 2 });
  expect(answer.status).toBe(400);
  expect(await answer.json()).toMatchObject({ error: { param: "n", type: "invalid_request_error" } });
  expect(answer.headers.get("x-should-retry")).toBe("false");
  expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  expect(attempts()).toEqual([["pm_0", UNSUPPORTED, "n"]]);
  expect(gateway.journal.settlements[0]).toMatchObject({ outcome: Outcome.CLIENT_ERROR, httpStatus: 400, credits: 0n });
});

test("goes to the next target that can", async () => {
  await startBoth();
  const answer = await gateway.chat({ n: 2 });
  expect(answer.status).toBe(200);
  expect(attempts()).toEqual([
    ["pm_0", UNSUPPORTED, "n"],
    ["pm_1", SERVED, ""],
  ]);
});

test("is not the client's fault where a target that can do it fails", async () => {
  await startBoth();
  gateway.upstreams[1]!.next(error(500), error(500));
  const answer = await gateway.chat({ n: 2 });
  expect(answer.status).toBe(503);
  expect(gateway.journal.settlements[0]!.outcome).toBe(Outcome.UPSTREAM_ERROR);
});

test("reasoning that another account encrypted goes to the next target; if none can read it, the client hears why", async () => {
  gateway = await startGateway({ upstreams: 2 });
  const foreign = () => error(400, "invalid_encrypted_content", "The encrypted content could not be verified.");
  gateway.upstreams[0]!.next(foreign());
  expect((await gateway.chat()).status).toBe(200);
  expect(gateway.journal.settlements[0]!.attempts.map(({ result }) => result)).toEqual([STATUS, SERVED]);
  gateway.upstreams[0]!.next(foreign());
  gateway.upstreams[1]!.next(foreign());
  const answer = await gateway.chat();
  expect(answer.status).toBe(400);
  expect(await answer.json()).toMatchObject({ error: { code: "invalid_encrypted_content" } });
});

test("a target whose price does not cover what the endpoint uses is no target of it", async () => {
  gateway = await startGateway({ upstreams: 2 });
  const images = { id: "p", kind: { case: "simple", value: { creditPerUnit: "1", unit: 2, perUnits: 1n } } };
  const pm = { id: "pm_0", providerId: "prov_0", upstreamName: "up-0" };
  delta(gateway.table, [resource("physicalModel", { ...pm, price: images })]);
  expect((await gateway.chat()).status).toBe(200);
  expect(gateway.upstreams[0]!.seen).toHaveLength(0);
  expect(gateway.journal.settlements[0]!.credits).toBeGreaterThan(0n);
  delta(gateway.table, [resource("physicalModel", { ...pm, price: PRICE })]);
  expect((await gateway.chat()).status).toBe(200);
  expect(gateway.upstreams[0]!.seen).toHaveLength(1);
});
