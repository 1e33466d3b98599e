import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX } from "../domain/webhook.ts";
import { WEBHOOK_EVENT_TYPES } from "../store/webhook_event.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { fanOut } from "../webhooks/fan_out.ts";
import { emit } from "../webhooks/testing.ts";
import { type Clients, clientsOf } from "./test_fixture.ts";

const URL_A = "https://shop.example/hooks?tenant=1";

test("every type of event is documented", () => {
  const text = readFileSync(new URL("../../docs/webhooks.md", import.meta.url), "utf8");
  for (const type of WEBHOOK_EVENT_TYPES) expect(text).toContain(`\`${type}\``);
});

describe.each(openTestDatabases())("WebhookService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let merchantId: string;
  let api: Clients["webhooks"];
  let count = 0;

  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db, { env: { ALLOW_PRIVATE_UPSTREAMS: "false" } });
  });
  beforeEach(async () => {
    const merchant = await cp.makeMerchant(`m${(count += 1)}`);
    merchantId = merchant.id;
    api = clientsOf(cp, merchant.token).webhooks;
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  const create = async (more: Parameters<typeof api.createWebhookEndpoint>[0] = {}) =>
    api.createWebhookEndpoint({ url: URL_A, ...more });
  /** Events that are delivered to nobody yet. */
  async function say(events: number, veId = "ve_a"): Promise<string[]> {
    const ids = Array.from({ length: events }, () => `evt_${(count += 1)}`);
    await emit(
      db,
      cp.deps.now(),
      ids.map((id) => ({ id, merchantId, veId })),
    );
    return ids;
  }

  test("an endpoint is made, read, changed and deleted; its secret is shown once and sealed at rest", async () => {
    const { webhookEndpoint, secret } = await create({ description: "shop", eventTypes: ["wallet.*"] });
    expect(secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    const { id, etag } = webhookEndpoint!;
    expect(id).toMatch(/^whe_[a-z2-7]{26}$/);
    const seen = cp.responses.length;
    expect((await api.getWebhookEndpoint({ id })).webhookEndpoint).toEqual(webhookEndpoint);
    expect(webhookEndpoint).toMatchObject({ url: URL_A, description: "shop", eventTypes: ["wallet.*"], etag: "1" });
    const changed = await api.updateWebhookEndpoint({
      id,
      etag,
      url: "https://other.example/",
      eventTypes: { eventTypes: [] },
      disabled: true,
    });
    expect(changed.webhookEndpoint).toMatchObject({
      url: "https://other.example/",
      description: "shop",
      eventTypes: [],
      disabled: true,
      etag: "2",
    });
    expect((await failureOf(api.updateWebhookEndpoint({ id, etag, description: "x" }))).reason).toBe("etag_mismatch");
    expect((await failureOf(api.deleteWebhookEndpoint({ id, etag }))).reason).toBe("etag_mismatch");
    const rotated = await api.rotateWebhookSecret({ id });
    expect(rotated.webhookEndpoint!.etag).toBe("3");
    expect(rotated.secret).not.toBe(secret);
    const [row] = await db.query<{ secret: Uint8Array; old_secret: Uint8Array }>(
      "select secret, old_secret from webhook_endpoint where id = $1",
      [id],
    );
    const textOf = (sealed: Uint8Array) => `whsec_${Buffer.from(cp.deps.secrets.open(sealed, id)).toString("base64")}`;
    expect([textOf(row!.secret), textOf(row!.old_secret)]).toEqual([rotated.secret, secret]);
    await api.listWebhookEndpoints({});
    await api.deleteWebhookEndpoint({ id, etag: "3" });
    expect((await failureOf(api.getWebhookEndpoint({ id }))).reason).toBe("not_found");
    const after = cp.responses.slice(seen).join("");
    expect([after.includes(secret), after.split(rotated.secret).length]).toEqual([false, 2]);
  });

  test("a creation can be retried, and answers the same secret", async () => {
    const request = { requestId: "once", eventTypes: ["wallet.low"] };
    const [first, again] = [await create(request), await create(request)];
    expect(again).toEqual(first);
    expect((await api.listWebhookEndpoints({})).webhookEndpoints).toHaveLength(1);
    expect((await failureOf(create({ ...request, description: "another" }))).reason).toBe("request_id_reused");
  });

  test.each([
    [{ url: "http://shop.example/" }, "invalid_field", "url"],
    [{ url: "https://user:pw@shop.example/" }, "invalid_field", "url"],
    [{ url: "https://127.0.0.1/" }, "address_not_allowed", "url"],
    [{ url: "https://localhost/" }, "address_not_allowed", "url"],
    [{ eventTypes: ["wallet.low", "wallet.full"] }, "invalid_field", "event_types[1]"],
    [{ eventTypes: ["wallets.*"] }, "invalid_field", "event_types[0]"],
    [{ eventTypes: ["wallet.low", "wallet.low"] }, "invalid_field", "event_types"],
    [{ eventTypes: ["*"] }, "invalid_field", "event_types[0]"],
  ])("refuses %j", async (given, reason, field) => {
    const failure = await failureOf(create(given));
    expect({ reason: failure.reason, field: failure.info.metadata["field"] }).toEqual({ reason, field });
    const { webhookEndpoint } = await create();
    const { url, eventTypes } = given as { url?: string; eventTypes?: string[] };
    const update = { url, eventTypes: eventTypes === undefined ? undefined : { eventTypes } };
    const later = await failureOf(api.updateWebhookEndpoint({ id: webhookEndpoint!.id, ...update }));
    expect(later.reason).toBe(reason);
    expect(later.info.metadata["field"]).toContain(field);
  });

  test("lists the types that there are, and takes each of them", async () => {
    const { message } = await failureOf(create({ eventTypes: ["wallet.full"] }));
    for (const type of WEBHOOK_EVENT_TYPES) expect(message).toContain(type);
    const { webhookEndpoint } = await create({ eventTypes: [...WEBHOOK_EVENT_TYPES, "auto_top_up.*"] });
    expect(webhookEndpoint!.eventTypes).toHaveLength(WEBHOOK_EVENT_TYPES.length + 1);
  });

  test("there are so many endpoints and no more, also at once; they come in pages", async () => {
    const asked = Array.from({ length: WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX + 3 }, (_, i) =>
      create({ description: String(i) }).then(
        () => "made",
        async (error: unknown) => (await failureOf(Promise.reject(error))).reason,
      ),
    );
    const outcomes = await Promise.all(asked);
    expect(outcomes.filter((outcome) => outcome === "made")).toHaveLength(WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX);
    expect(outcomes.filter((outcome) => outcome === "limit_reached")).toHaveLength(3);
    const ids: string[] = [];
    for (let pageToken = ""; ;) {
      const page = await api.listWebhookEndpoints({ pageSize: 8, pageToken });
      ids.push(...page.webhookEndpoints.map(({ id }) => id));
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    expect(new Set(ids).size).toBe(WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX);
    expect(ids).toHaveLength(WEBHOOK_ENDPOINTS_PER_MERCHANT_MAX);
  });

  test("events and deliveries come newest first, in pages, by filter", async () => {
    const { webhookEndpoint: one } = await create();
    const { webhookEndpoint: other } = await create({ eventTypes: ["dispute.*"] });
    const ids = [...(await say(3)), ...(await say(2, "ve_b"))];
    await fanOut(cp.deps);
    const events: string[] = [];
    for (let pageToken = ""; ;) {
      const page = await api.listWebhookEvents({ pageSize: 2, pageToken });
      events.push(...page.webhookEvents.map(({ id }) => id));
      if ((pageToken = page.nextPageToken) === "") break;
    }
    expect(events).toEqual(ids.toReversed());
    const idsOf = async (filter: { veId?: string; type?: string }) =>
      (await api.listWebhookEvents(filter)).webhookEvents.map(({ id }) => id);
    expect(await idsOf({ veId: "ve_b" })).toEqual(ids.slice(3).toReversed());
    expect(await idsOf({ type: "wallet.exhausted" })).toEqual([]);

    const first = await api.listWebhookDeliveries({ pageSize: 3 });
    const rest = await api.listWebhookDeliveries({ pageSize: 3, pageToken: first.nextPageToken });
    const both = [...first.webhookDeliveries, ...rest.webhookDeliveries];
    expect(both.map(({ webhookEventId }) => webhookEventId)).toEqual(ids.toReversed());
    expect(rest.nextPageToken).toBe("");
    const of = async (filter: Parameters<typeof api.listWebhookDeliveries>[0]) =>
      (await api.listWebhookDeliveries(filter)).webhookDeliveries.length;
    expect([
      await of({ webhookEndpointId: one!.id }),
      await of({ webhookEndpointId: other!.id }),
      await of({ webhookEventId: ids[0] }),
      await of({ state: 1 }),
      await of({ state: 2 }),
    ]).toEqual([5, 0, 1, 5, 0]);
    const elsewhere = api.listWebhookDeliveries({ pageToken: first.nextPageToken, state: 1 });
    expect((await failureOf(elsewhere)).reason).toBe("bad_page_token");
  });

  test("disabling gives up what waits; a replay names an endpoint of the merchant's own that is enabled", async () => {
    const { webhookEndpoint } = await create();
    const { id } = webhookEndpoint!;
    const [eventId] = await say(1);
    await fanOut(cp.deps);
    await api.updateWebhookEndpoint({ id, disabled: true });
    const { webhookDeliveries } = await api.listWebhookDeliveries({});
    expect(webhookDeliveries).toMatchObject([{ state: 3, attemptCount: 0, attempts: [] }]);
    expect(webhookDeliveries[0]!.nextAttemptTime).toBeUndefined();
    const replay = (webhookEndpointId: string) =>
      api.replayWebhookEvent({ webhookEventId: eventId!, webhookEndpointId });
    expect((await failureOf(replay(id))).reason).toBe("wrong_state");
    expect((await replay("")).webhookDeliveries).toEqual([]);
    const another = clientsOf(cp, (await cp.makeMerchant(`m${(count += 1)}`)).token).webhooks;
    const theirs = await another.createWebhookEndpoint({ url: URL_A });
    expect((await failureOf(replay(theirs.webhookEndpoint!.id))).reason).toBe("not_found");
    await api.updateWebhookEndpoint({ id, disabled: false });
    expect((await replay("")).webhookDeliveries).toMatchObject([{ state: 1, webhookEndpointId: id }]);
    await db.query(
      `insert into webhook_delivery (id, merchant_id, event_id, endpoint_id, state, created_at)
       select 'whd_' || $1 || i, $2, $1, $3, 2, now() from generate_series(1, 998) i`,
      [eventId!, merchantId, id],
    );
    expect((await failureOf(replay(""))).reason).toBe("limit_reached");
    await api.deleteWebhookEndpoint({ id });
    expect((await api.listWebhookDeliveries({})).webhookDeliveries).toEqual([]);
  });
});
