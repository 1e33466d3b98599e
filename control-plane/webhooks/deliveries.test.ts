import type * as Dns from "node:dns";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { WebhookDeliveryState as State } from "../../proto/gen/tokenbill/v1/webhook_pb.ts";
import { type Clients, clientsOf } from "../api/test_fixture.ts";
import type { Deps } from "../api/context.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { RETRY_DELAYS_MS } from "../domain/webhook.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { CLAIM_MS } from "./sender.ts";
import {
  type Answer,
  answerWith,
  emit,
  type EventInit,
  idOf,
  isSignedBy,
  NO_ANSWER,
  type Receiver,
  startReceiver,
  verified,
} from "./testing.ts";
import { cleanWebhooks, EVENT_KEEP_MS, startWebhooks, type WebhookOptions, type Webhooks } from "./webhooks.ts";

const SOON = { timeout: 5000, interval: 10 };

/** `rebound.test` leads to loopback, as a name may after it was looked at. Other names are resolved as ever. */
vi.mock("node:dns", async (original) => {
  const dns = await original<typeof Dns>();
  const lookup = (name: string, options: object, done: (error: Error | null, found: unknown) => void) =>
    name === "rebound.test"
      ? done(null, [{ address: "127.0.0.1", family: 4 }])
      : dns.lookup(name, options, done as never);
  return { ...dns, lookup };
});

describe.each(openTestDatabases())("webhooks on $name", ({ name, open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients["webhooks"];
  let merchantId: string;
  let count = 0;
  const ends: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });
  afterEach(async () => {
    for (const end of ends.splice(0).toReversed()) await end();
    cp.clock.offsetMs = 0;
  });

  /** Each test has a merchant of its own. */
  async function newMerchant(): Promise<void> {
    const merchant = await cp.makeMerchant(`m${(count += 1)}`);
    merchantId = merchant.id;
    api = clientsOf(cp, merchant.token).webhooks;
  }
  async function receiver(answer?: Answer): Promise<Receiver> {
    const made = await startReceiver(answer);
    ends.push(() => made.close());
    return made;
  }
  function start(options: WebhookOptions = {}, more: Partial<Deps> = {}): Webhooks {
    const webhooks = startWebhooks(
      { ...cp.deps, ...more },
      { random: () => 0.5, lookEveryMs: 20, closeGraceMs: 50, ...options },
    );
    ends.push(() => webhooks.close());
    return webhooks;
  }
  async function endpoint(url: string, eventTypes: string[] = []): Promise<{ id: string; secret: string }> {
    const { webhookEndpoint, secret } = await api.createWebhookEndpoint({ url, eventTypes });
    return { id: webhookEndpoint!.id, secret };
  }
  async function say(...events: Partial<EventInit>[]): Promise<string[]> {
    const whole = events.map((event) => ({ id: `evt_${(count += 1)}`, merchantId, ...event }));
    await emit(db, cp.deps.now(), whole);
    return whole.map(({ id }) => id);
  }
  const deliveries = async (webhookEventId = "") =>
    (await api.listWebhookDeliveries({ webhookEventId })).webhookDeliveries;
  const only = async (webhookEventId: string) => {
    const [delivery, second] = await deliveries(webhookEventId);
    expect([delivery === undefined, second]).toEqual([false, undefined]);
    return delivery!;
  };
  const becomes = (webhookEventId: string, state: State) =>
    expect.poll(async () => (await only(webhookEventId)).state, SOON).toBe(state);
  const tries = (webhookEventId: string, attempts: number) =>
    expect.poll(async () => (await only(webhookEventId)).attempts.length, SOON).toBe(attempts);

  it("sends each event once to those who want it, signed, as soon as it happens", async () => {
    await newMerchant();
    const [all, wallets, checkouts] = [await receiver(), await receiver(), await receiver()];
    const { secret } = await endpoint(`${all.url}hooks?tenant=1`);
    await endpoint(wallets.url, ["wallet.*"]);
    await endpoint(checkouts.url, ["checkout.fulfilled"]);
    // Two replicas, woken by the events alone.
    for (let i = 0; i < 2; i += 1) start({ lookEveryMs: 600_000 });
    await new Promise((done) => setTimeout(done, 50));
    const [low, paid] = await say({ data: { ve_id: "ve_ü" } }, { type: "checkout.fulfilled", sessionId: "cs_a" });
    await expect.poll(() => all.received.length, SOON).toBe(2);
    await expect.poll(async () => (await deliveries()).map(({ state }) => state), SOON).toEqual(Array(4).fill(2));
    expect(wallets.received.map(idOf)).toEqual([low]);
    expect(checkouts.received.map(idOf)).toEqual([paid]);
    expect(all.received.map(idOf).toSorted()).toEqual([low!, paid!].toSorted());
    const one = all.received.find((received) => idOf(received) === low)!;
    expect(one).toMatchObject({
      path: "/hooks?tenant=1",
      method: "POST",
      headers: { "content-type": "application/json", "user-agent": "TokenBill-Webhooks/1" },
    });
    expect(verified(one, secret)).toEqual({
      type: "wallet.low",
      timestamp: expect.stringMatching(/^\d{4}-.*Z$/),
      data: { ve_id: "ve_ü" },
    });
    const { webhookEvents } = await api.listWebhookEvents({ type: "wallet.low" });
    expect(webhookEvents).toMatchObject([{ id: low, body: one.body, veId: "ve_a", checkoutSessionId: "" }]);
    const [logged] = (await deliveries(low)).filter(({ attempts }) => attempts.length === 1);
    expect(logged).toMatchObject({ attemptCount: 1, attempts: [{ status: 204, error: "" }] });
    expect(logged!.nextAttemptTime).toBeUndefined();
  });

  it("tries again at growing pauses, also after a restart, and gives up in the end", async () => {
    await newMerchant();
    const failing = await receiver(answerWith(500));
    await endpoint(failing.url);
    const first = start();
    const [id] = await say({});
    await tries(id!, 1);
    await first.close();
    start();
    for (const [i, delayMs] of RETRY_DELAYS_MS.entries()) {
      const { nextAttemptTime, state } = await only(id!);
      expect(state).toBe(State.PENDING);
      const dueMs = Number(nextAttemptTime!.seconds) * 1000 - cp.deps.now();
      expect(Math.abs(dueMs - delayMs)).toBeLessThan(4000);
      cp.clock.offsetMs += delayMs + 1000;
      await tries(id!, i + 2);
    }
    await becomes(id!, State.FAILED);
    expect((await only(id!)).nextAttemptTime).toBeUndefined();
    expect(failing.received).toHaveLength(RETRY_DELAYS_MS.length + 1);
    expect(new Set(failing.received.map(idOf))).toEqual(new Set([id]));
    // Each attempt is signed anew.
    expect(new Set(failing.received.map(({ headers }) => headers["webhook-timestamp"])).size).toBeGreaterThan(8);
    expect((await only(id!)).attempts[0]).toMatchObject({ status: 500, error: "it was answered with status 500" });
  });

  it("says what went wrong without saying more, follows no redirect, and reads no endless answer", async () => {
    await newMerchant();
    const beyond = await receiver();
    const closed = await startReceiver();
    await closed.close();
    const flood: Answer = (response) => {
      response.writeHead(200);
      response.on("error", () => {});
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(16_384)));
      };
      response.on("drain", more);
      more();
    };
    const cases: [url: string, error: string][] = [
      [(await receiver(answerWith(302, { location: beyond.url }))).url, "the redirect 302, which is not followed"],
      [(await receiver(answerWith(307, { location: beyond.url }))).url, "the redirect 307, which is not followed"],
      [(await receiver((response) => response.destroy())).url, "the connection broke"],
      [(await receiver(NO_ANSWER)).url, "no whole answer within 0.3 s"],
      [closed.url, "the connection was refused"],
      [closed.url.replace("http:", "https:"), "the connection was refused"],
      [beyond.url.replace("http:", "https:"), "no secure connection"],
    ];
    const ids = await Promise.all(cases.map(async ([url]) => (await endpoint(url)).id));
    const flooded = await endpoint((await receiver(flood)).url);
    start({ attemptTimeoutMs: 300 });
    const [id] = await say({});
    await expect
      .poll(async () => (await deliveries(id)).filter(({ attempts }) => attempts.length > 0).length, SOON)
      .toBe(cases.length + 1);
    const made = new Map((await deliveries(id)).map((delivery) => [delivery.webhookEndpointId, delivery]));
    for (const [i, [, error]] of cases.entries()) {
      const { attempts, state } = made.get(ids[i]!)!;
      expect({ error: attempts[0]!.error, state }).toEqual({ error: expect.stringContaining(error), state: 1 });
    }
    expect(made.get(flooded.id)).toMatchObject({ state: State.DELIVERED, attempts: [{ status: 200 }] });
    expect(beyond.received).toEqual([]);
  });

  it("disables an endpoint that says 410, and gives up what waits for it", async () => {
    await newMerchant();
    const gone = await receiver(answerWith(503));
    const { id: endpointId } = await endpoint(gone.url);
    start();
    const [before] = await say({});
    await tries(before!, 1);
    gone.answer = answerWith(410);
    const [last] = await say({});
    await becomes(last!, State.FAILED);
    await becomes(before!, State.FAILED);
    const { webhookEndpoint } = await api.getWebhookEndpoint({ id: endpointId });
    expect(webhookEndpoint).toMatchObject({ disabled: true, etag: "2" });
    const [after] = await say({});
    await expect.poll(async () => (await db.query("select from webhook_event where not fanned_out")).length).toBe(0);
    expect(await deliveries(after)).toEqual([]);
    // Enabled again, it hears of what comes; what it missed can be replayed.
    gone.answer = answerWith(200);
    await api.updateWebhookEndpoint({ id: endpointId, disabled: false });
    await api.replayWebhookEvent({ webhookEventId: after! });
    await becomes(after!, State.DELIVERED);
    expect((await only(before!)).state).toBe(State.FAILED);
  });

  it("lets nobody wait for a receiver that is slow, and sends it only a few at once", async () => {
    await newMerchant();
    const [slow, fast] = [await receiver(NO_ANSWER), await receiver()];
    await endpoint(slow.url);
    await endpoint(fast.url);
    start({ attemptTimeoutMs: 30_000 });
    const ids: string[] = [];
    for (let i = 0; i < 6; i += 1) ids.push(...(await say(...Array.from({ length: 10 }, () => ({})))));
    await expect.poll(() => fast.received.length, SOON).toBe(60);
    expect(new Set(fast.received.map(idOf))).toEqual(new Set(ids));
    expect([slow.received.length, slow.mostOpen()]).toEqual([4, 4]);
    // The oldest came first.
    expect(slow.received.map(idOf).toSorted()).toEqual(ids.slice(0, 4).toSorted());
  });

  it("goes on with one at a time where attempts fail, until one succeeds", async () => {
    await newMerchant();
    const one = await receiver(answerWith(500));
    await endpoint(one.url);
    start();
    const [first] = await say({});
    await tries(first!, 1);
    const waiting: (() => void)[] = [];
    one.answer = (response) => waiting.push(() => response.writeHead(200).end());
    await say(...Array.from({ length: 9 }, () => ({})));
    await expect.poll(() => waiting.length, SOON).toBe(1);
    await new Promise((done) => setTimeout(done, 100));
    expect(waiting).toHaveLength(1);
    waiting.pop()!();
    await expect.poll(() => waiting.length, SOON).toBe(4);
    one.answer = answerWith(200);
    for (const answer of waiting) answer();
    await expect.poll(() => one.received.length, SOON).toBe(10);
  });

  it("calls no private address where that is not allowed, whatever the name led to before", async () => {
    await newMerchant();
    const inside = await receiver();
    const settings = { ...cp.deps.settings, allowPrivateUpstreams: false };
    const urls = [
      `http://rebound.test:${inside.port}/`,
      `https://rebound.test:${inside.port}/`,
      `https://127.0.0.1:${inside.port}/`,
    ];
    // They were given while the deployment still allowed it.
    for (const url of urls) await endpoint(url);
    const strict = start({}, { settings });
    const [id] = await say({});
    await expect
      .poll(async () => (await deliveries(id)).flatMap(({ attempts }) => attempts.map(({ error }) => error)), SOON)
      .toEqual(Array(3).fill("the address is not allowed"));
    expect(inside.mostOpen()).toBe(0);
    await strict.close();
    // The same name is reached where it is allowed, so it was the rule that kept it away.
    start();
    cp.clock.offsetMs = 6000;
    await expect.poll(() => inside.received.length, SOON).toBe(1);
  });

  it("sends again what was sent but not written down, with the same id", async () => {
    await newMerchant();
    const one = await receiver();
    const { secret } = await endpoint(one.url);
    // Dies between the answer and the record, as seen from the database.
    let dead = false;
    const dying: Database = {
      ...db,
      dialect: db.dialect,
      tx: (fn) => (dead ? Promise.reject(new Error("killed")) : db.tx(fn)),
      query: (text, params) => db.query(text, params),
      listen: (channel, onNotify, onReady) => db.listen(channel, onNotify, onReady),
    };
    one.answer = (response) => {
      dead = true;
      response.writeHead(200).end();
    };
    const first = start({}, { db: dying });
    const [id] = await say({});
    await expect.poll(() => one.received.length, SOON).toBe(1);
    await first.close();
    one.answer = answerWith(200);
    start();
    // Nobody else may have it while its sender may still be alive.
    cp.clock.offsetMs = CLAIM_MS / 2;
    await new Promise((done) => setTimeout(done, 100));
    expect(one.received).toHaveLength(1);
    cp.clock.offsetMs = CLAIM_MS + 1000;
    await becomes(id!, State.DELIVERED);
    expect(one.received.map(idOf)).toEqual([id, id]);
    expect(one.received.map((received) => isSignedBy(received, secret))).toEqual([true, true]);
    expect(await only(id!)).toMatchObject({ attemptCount: 2, attempts: [{ status: 200 }] });
  });

  it("hands over at once what a stop cut off", async () => {
    await newMerchant();
    const one = await receiver(NO_ANSWER);
    await endpoint(one.url);
    const first = start();
    const [id] = await say({});
    await expect.poll(() => one.received.length, SOON).toBe(1);
    await first.close();
    expect(await only(id!)).toMatchObject({ state: State.PENDING, attempts: [] });
    one.answer = answerWith(200);
    start();
    await becomes(id!, State.DELIVERED);
  });

  it("signs with both secrets for a day after a rotation", async () => {
    await newMerchant();
    const one = await receiver();
    const { id: endpointId, secret: old } = await endpoint(one.url);
    const { secret } = await api.rotateWebhookSecret({ id: endpointId });
    start();
    const [first] = await say({});
    await becomes(first!, State.DELIVERED);
    expect(verified(one.received[0]!, secret)).toEqual(verified(one.received[0]!, old));
    expect(String(one.received[0]!.headers["webhook-signature"]).split(" ")).toHaveLength(2);
    cp.clock.offsetMs = 86_400_000 + 1000;
    const [second] = await say({});
    await becomes(second!, State.DELIVERED);
    expect([secret, old].map((key) => isSignedBy(one.received[1]!, key))).toEqual([true, false]);
    await cleanWebhooks(cp.deps);
    const [row] = await db.query("select old_secret from webhook_endpoint where id = $1", [endpointId]);
    expect(row).toEqual({ old_secret: null });
  });

  it("replays to one or to all that want it, also what was delivered", async () => {
    await newMerchant();
    const [one, other, idle] = [await receiver(), await receiver(), await receiver()];
    const { id: oneId } = await endpoint(one.url);
    const { id: otherId } = await endpoint(other.url, ["checkout.*"]);
    const { id: idleId } = await endpoint(idle.url);
    await api.updateWebhookEndpoint({ id: idleId, disabled: true });
    start();
    const [id] = await say({});
    await becomes(id!, State.DELIVERED);
    const again = await api.replayWebhookEvent({ webhookEventId: id! });
    expect(again.webhookDeliveries).toMatchObject([
      { webhookEventId: id, webhookEndpointId: oneId, eventType: "wallet.low", state: State.PENDING, attemptCount: 0 },
    ]);
    // Asked for by name, it need not want the type.
    await api.replayWebhookEvent({ webhookEventId: id!, webhookEndpointId: otherId });
    await expect.poll(() => [one.received.map(idOf), other.received.map(idOf)], SOON).toEqual([[id, id], [id]]);
    expect(one.received[0]!.body).toBe(one.received[1]!.body);
    expect(idle.received).toEqual([]);
  });

  it("makes each delivery once however many replicas there are, and forgets old events", async () => {
    await newMerchant();
    const one = await receiver();
    await endpoint(one.url);
    for (let i = 0; i < 3; i += 1) start();
    const ids: string[] = [];
    for (let i = 0; i < 20; i += 1) ids.push(...(await say({}, {})));
    await expect.poll(async () => (await deliveries()).filter(({ state }) => state === 2).length, SOON).toBe(40);
    expect(one.received.map(idOf).toSorted()).toEqual(ids.toSorted());
    expect(await cleanWebhooks(cp.deps)).toBe(0);
    // Other tests made some in days to come.
    cp.clock.offsetMs = EVENT_KEEP_MS + 5 * 86_400_000;
    expect(await cleanWebhooks(cp.deps)).toBeGreaterThanOrEqual(40);
    expect(await deliveries()).toEqual([]);
    for (const table of ["webhook_event", "webhook_delivery", "webhook_attempt"])
      expect(await db.query(`select from ${table}`)).toEqual([]);
  });

  it("keeps secrets out of its log", () => {
    expect(cp.logLines.length).toBeGreaterThan(0);
    expect(cp.logLines.filter((line) => line.includes("whsec_"))).toEqual([]);
    expect(name).toBe(db.dialect);
  });
});
