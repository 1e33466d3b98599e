import pino from "pino";
import { afterEach, expect, test } from "vitest";
import { until } from "../../test/support/part.ts";
import { OwnRedis } from "../../test/support/redis_server.ts";
import { RateKind } from "../domain/rates.ts";
import { RateSharing } from "./rate_sharing.ts";

const REPORT = { subjectId: "key_a", kind: RateKind.REQUESTS, limit: 100, used: 10, held: 0, want: 5 };
const LIMITS = { requestsPerMinute: 100, tokensPerMinute: 0, concurrentRequests: 0 };
const closing: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const one of closing.splice(0)) await one.close();
});

function sharing(redisUrl: string, lines: string[] = []): RateSharing {
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const one = new RateSharing({ redisUrl, log });
  closing.push(one);
  return one;
}

const share = (one: RateSharing, bootId: string) =>
  one.share({ bootId, reports: [REPORT], final: false, withTight: false });

test("where there is no Redis yet, nodes are counted and told so, and it is logged once", async () => {
  const redis = await OwnRedis.start();
  closing.push(redis);
  await redis.kill();
  const lines: string[] = [];
  const one = sharing(redis.url, lines);
  expect(await share(one, "boot_1")).toMatchObject({ shared: false, grants: [], nodes: 1 });
  expect(await share(one, "boot_2")).toMatchObject({ shared: false, nodes: 2 });
  expect(await one.left("key_a", LIMITS)).toEqual({
    remainingRequests: null,
    remainingTokens: null,
    remainingConcurrent: null,
  });
  await until("it is logged", async () => lines.length > 0);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain("Redis does not answer");

  await redis.start();
  await until("it shares", async () => (await share(one, "boot_1")).shared);
  expect(await one.left("key_a", LIMITS)).toMatchObject({ remainingRequests: 90 });
});

test("when Redis goes away, a replica still knows how many nodes the others had", async () => {
  const redis = await OwnRedis.start();
  closing.push(redis);
  const [one, two] = [sharing(redis.url), sharing(redis.url)];
  await until("they share", async () => (await share(one, "boot_1")).shared);
  await until("they share", async () => (await share(two, "boot_2")).shared);
  expect(await share(one, "boot_1")).toMatchObject({ shared: true, nodes: 2 });
  await redis.kill();
  expect(await share(one, "boot_1")).toMatchObject({ shared: false, nodes: 2 });
});
