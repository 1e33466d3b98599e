import { afterAll, beforeAll, expect, test } from "vitest";
import { RateKind, RateLimitService } from "../../proto/gen/tokenbill/node/v1/rate_limit_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";

let db: Database;
let cp: TestControlPlane;

beforeAll(async () => {
  db = await openTestDatabases()[0]!.open();
  cp = await startTestControlPlane(db);
});

afterAll(async () => {
  await cp?.close();
  await db?.close();
});

const use = { subjectId: "key_a", kind: RateKind.REQUESTS, limit: 100n, used: 10n, want: 5n, held: 0n };

test("nodes share a limit, and others may ask what is left of it", async () => {
  const node = cp.client(RateLimitService, cp.nodeToken, "grpc");
  const first = await node.shareRates({ nodeId: "node_1", bootId: "boot_1", uses: [use] });
  expect(first).toMatchObject({ shared: true, nodes: 1, grants: [{ allowance: 45n, remaining: 90n }] });
  expect(first.ttlMs).toBeGreaterThan(1_000);
  const second = await node.shareRates({
    nodeId: "node_2",
    bootId: "boot_2",
    uses: [{ ...use, subjectId: "key_b", kind: RateKind.TOKENS }, use],
  });
  expect(second.nodes).toBe(2);
  expect(second.grants.map(({ remaining }) => remaining)).toEqual([90n, 80n]);
  const limits = { requestsPerMinute: 100, tokensPerMinute: 0, concurrentRequests: 9 };
  expect(await cp.rates.left("key_a", limits)).toEqual({
    remainingRequests: 80,
    remainingTokens: null,
    remainingConcurrent: 9,
  });
});

test.each([
  ["a limit of nothing", { ...use, kind: RateKind.UNSPECIFIED }],
  ["no subject", { ...use, subjectId: "" }],
  ["a negative count", { ...use, used: -1n }],
])("%s is refused", async (_, wrong) => {
  const node = cp.client(RateLimitService, cp.nodeToken);
  const failure = await failureOf(node.shareRates({ nodeId: "node_1", bootId: "boot_1", uses: [wrong] }));
  expect(failure.reason).toBe("invalid_field");
});

test("only nodes may", async () => {
  for (const token of [cp.merchantToken, cp.operatorToken]) {
    const client = cp.client(RateLimitService, token);
    expect((await failureOf(client.shareRates({ nodeId: "n", bootId: "b" }))).reason).toBe("wrong_scope");
  }
});
