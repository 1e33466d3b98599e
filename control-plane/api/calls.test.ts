/** What all calls have in common: protocols, request ids, secrets, readiness, draining. */

import { connect as connectTcp } from "node:net";
import { once } from "node:events";
import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { MerchantService } from "../../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, type Protocol, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { REQUEST_BYTES_MAX } from "./adapter.ts";
import { REQUEST_ID_TTL_MS } from "./idempotency.ts";
import { type Clients, clientsOf, makeCatalogue, UPSTREAM_KEY } from "./test_fixture.ts";

const PROTOCOLS: Protocol[] = ["connect-json", "connect-binary", "grpc", "grpc-web"];

describe.each(openTestDatabases())("calls on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test.each(PROTOCOLS)("work over %s, errors included", async (protocol) => {
    const clients = clientsOf(cp, cp.merchantToken, protocol);
    const { veId } = await makeCatalogue(clients, `over ${protocol}`);
    expect((await clients.ves.getVirtualEndpoint({ id: veId })).virtualEndpoint!.wallet!.creditBudget).toBe("10.5");
    expect(await failureOf(clients.ves.getVirtualEndpoint({ id: "ve_none" }))).toMatchObject({
      reason: "not_found",
      message: "there is no VE with this id",
    });
    const invalid = await failureOf(clients.ves.createVirtualEndpoint({ name: "", creditBudget: "1e9" }));
    expect(invalid).toMatchObject({
      reason: "invalid_field",
      info: { domain: "tokenbill", metadata: { field: "name", rule: "string.min_len" } },
    });
    let pieces = 0;
    for await (const { data } of clients.usage.exportUsage({})) pieces += data.length;
    expect(pieces).toBe(0);
  });

  test("errors name the field and what to do", async () => {
    const budget = await failureOf(api.ves.createVirtualEndpoint({ name: "x", creditBudget: "1e9" }));
    expect(budget).toMatchObject({
      info: { metadata: { field: "credit_budget", rule: "string.pattern" } },
      message: expect.stringContaining("decimal in digits"),
    });
    const format = await failureOf(api.providers.createProvider({ name: "x", baseUrl: "http://127.0.0.1" }));
    expect(format).toMatchObject({
      info: { metadata: { field: "format" } },
      message: expect.stringContaining("PROVIDER_FORMAT_OPENAI"),
    });
    const labels = await failureOf(api.ves.createVirtualEndpoint({ name: "x", labels: { k: "v".repeat(257) } }));
    expect(labels.info.metadata["field"]).toBe('labels["k"]');
    const nul = await failureOf(api.ves.createVirtualEndpoint({ name: "a\0b" }));
    expect(nul.info.metadata).toMatchObject({ field: "name", rule: "text" });
  });

  test("a request id gives the first answer again, secrets included", async () => {
    const { veId } = await makeCatalogue(api, "again");
    const request = { requestId: "r1", veId, name: "key" };
    const first = await api.ves.createAccessKey(request);
    const second = await api.ves.createAccessKey(request);
    expect(second).toStrictEqual(first);
    expect((await api.ves.listAccessKeys({ veId })).accessKeys).toHaveLength(2);
    expect((await failureOf(api.ves.createAccessKey({ ...request, name: "other" }))).reason).toBe("request_id_reused");
    const credit = { requestId: "r1", veId, credits: "5", reason: "sold" };
    const up = await api.ves.adjustCredits(credit);
    expect(await api.ves.adjustCredits(credit)).toStrictEqual(up);
    expect((await api.ves.getBalance({ veId })).wallet!.creditBudget).toBe("15.5");
  });

  test("a request id is the merchant's and the call's own", async () => {
    const other = clientsOf(cp, (await cp.makeMerchant("request ids")).token);
    const mine = await api.ves.createVirtualEndpoint({ requestId: "shared", name: "mine" });
    const theirs = await other.ves.createVirtualEndpoint({ requestId: "shared", name: "theirs" });
    expect(theirs.virtualEndpoint!.id).not.toBe(mine.virtualEndpoint!.id);
    const provider = await api.providers.createProvider({
      requestId: "shared",
      name: "shared id",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1",
    });
    expect(provider.provider!.name).toBe("shared id");
  });

  test("maps in another order are the same request", async () => {
    const one = await api.ves.createVirtualEndpoint({ requestId: "maps", name: "maps", labels: { a: "1", b: "2" } });
    const two = await api.ves.createVirtualEndpoint({ requestId: "maps", name: "maps", labels: { b: "2", a: "1" } });
    expect(two).toStrictEqual(one);
  });

  test("twenty duplicates at once make one thing", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, () =>
        api.ves.createVirtualEndpoint({ requestId: "burst", name: "burst", creditBudget: "2" }),
      ),
    );
    expect(new Set(answers.map(({ virtualEndpoint }) => virtualEndpoint!.id)).size).toBe(1);
    expect(await db.query("select id from virtual_endpoint where name = 'burst'")).toHaveLength(1);
  });

  test("a failed call does not use its request id up, and a day later it is free", async () => {
    const request = { requestId: "retry", name: "retried", format: ProviderFormat.OPENAI, baseUrl: "http://127.0.0.1" };
    const taken = await api.providers.createProvider({ ...request, requestId: "" });
    expect((await failureOf(api.providers.createProvider(request))).reason).toBe("name_taken");
    await api.providers.deleteProvider({ id: taken.provider!.id });
    const made = await api.providers.createProvider(request);
    await api.providers.deleteProvider({ id: made.provider!.id });
    expect((await api.providers.createProvider(request)).provider!.id).toBe(made.provider!.id);
    cp.clock.offsetMs = REQUEST_ID_TTL_MS + 1000;
    const later = await api.providers.createProvider(request);
    cp.clock.offsetMs = 0;
    expect(later.provider!.id).not.toBe(made.provider!.id);
  });

  test("concurrent updates with one etag: exactly one wins", async () => {
    const { veId } = await makeCatalogue(api, "etag race");
    const outcomes = await Promise.allSettled(
      Array.from({ length: 8 }, (_, index) =>
        api.ves.updateVirtualEndpoint({ id: veId, etag: "1", name: `n${index}` }),
      ),
    );
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect((await api.ves.getVirtualEndpoint({ id: veId })).virtualEndpoint!.etag).toBe("2");
  });

  test("secrets are in no answer but the one that makes them, in no log, and in no row", async () => {
    const answersBefore = cp.responses.length;
    const { providerId, pmId, veId, lmId, keyId, keySecret } = await makeCatalogue(api, "secretive");
    const { apiToken, secret: tokenSecret } = await api.merchants.createApiToken({ requestId: "secretive", name: "t" });
    const clients = clientsOf(cp, tokenSecret);
    await clients.providers.updateProvider({ id: providerId, credentials: { apiKey: `${UPSTREAM_KEY}2` } });
    await clients.providers.getProvider({ id: providerId });
    await clients.providers.listProviders({});
    await clients.providers.testProvider({ id: providerId });
    await clients.providers.getPhysicalModel({ id: pmId });
    await clients.ves.getVirtualEndpoint({ id: veId });
    await clients.ves.listAccessKeys({ veId });
    await clients.models.getLogicalModel({ id: lmId });
    await clients.ves.revokeAccessKey({ id: keyId });
    await clients.merchants.listApiTokens({});
    await failureOf(
      clients.providers.updateProvider({ id: providerId, etag: "0", credentials: { apiKey: UPSTREAM_KEY } }),
    );
    await failureOf(clients.providers.createProvider({ name: "", credentials: { apiKey: UPSTREAM_KEY } }));
    await fetch(`${cp.url}/tokenbill.v1.ProviderService/CreateProvider`, {
      method: "POST",
      headers: { authorization: `Bearer ${tokenSecret}`, "content-type": "application/json" },
      body: JSON.stringify({ credentials: UPSTREAM_KEY, name: { apiKey: UPSTREAM_KEY } }),
    }).then(async (response) => cp.responses.push(await response.text()));
    await clients.merchants.revokeApiToken({ id: apiToken!.id });
    await failureOf(clients.merchants.getMerchant({}));

    const answers = cp.responses.slice(answersBefore);
    const holding = (secret: string): string[] => answers.filter((text) => text.includes(secret));
    expect(holding(UPSTREAM_KEY)).toStrictEqual([]);
    expect(holding(keySecret)).toHaveLength(1);
    expect(holding(tokenSecret)).toHaveLength(1);
    const log = cp.logLines.join("\n");
    for (const secret of [UPSTREAM_KEY, keySecret, tokenSecret, cp.merchantToken, cp.operatorToken, cp.nodeToken]) {
      expect(log).not.toContain(secret);
      expect(holding(secret).length).toBeLessThan(2);
    }
    for (const table of ["provider", "access_key", "api_token", "idempotency"]) {
      const [row] = await db.query<{ all: string }>(
        `select coalesce(string_agg(t::text, ' '), '') as all from ${table} t`,
      );
      for (const secret of [UPSTREAM_KEY, keySecret, tokenSecret]) {
        expect(row!.all).not.toContain(secret);
        expect(row!.all).not.toContain(Buffer.from(secret).toString("hex"));
      }
    }
  });

  test("pages: health, readiness, metrics and checkout", async () => {
    expect(await (await fetch(`${cp.url}/healthz`)).text()).toBe("ok\n");
    expect((await fetch(`${cp.url}/readyz`)).status).toBe(200);
    const metrics = await (await fetch(`${cp.url}/metrics`)).text();
    expect(metrics).toMatch(
      /tokenbill_rpc_total\{method="tokenbill\.v1\.ProviderService\/CreateProvider",code="ok"\} \d+/,
    );
    const known = await (await fetch(`${cp.url}/checkout?ve_id=${(await makeCatalogue(api, "checkout")).veId}`)).text();
    const unknown = await fetch(`${cp.url}/checkout?ve_id=%3Cscript%3E`);
    expect(unknown.status).toBe(200);
    expect(unknown.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(await unknown.text()).toBe(known);
    expect((await fetch(`${cp.url}/checkout`, { method: "POST" })).status).toBe(405);
    expect((await fetch(`${cp.url}/metrics`, { method: "HEAD" })).status).toBe(200);
  });

  test("a connection is understood however its first bytes are cut", async () => {
    const request = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    const socket = connectTcp(cp.server.address.port, "127.0.0.1");
    await once(socket, "connect");
    socket.setNoDelay(true);
    let answer = "";
    socket.on("data", (chunk) => (answer += String(chunk)));
    for (const letter of request) await new Promise<void>((done) => void socket.write(letter, () => done()));
    await once(socket, "close");
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK[^]*ok\n$/);
  });

  test.each([true, false])(
    "a body that is not read whole stands in nobody's way (length told: %s)",
    async (tellsLength) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const call = async (body: Buffer): Promise<{ status: number | undefined; text: string }> => {
        const headers: Record<string, string> = {
          authorization: `Bearer ${cp.merchantToken}`,
          "content-type": "application/json",
        };
        if (tellsLength) headers["content-length"] = String(body.length);
        const request = httpRequest(`${cp.url}/tokenbill.v1.MerchantService/GetMerchant`, {
          method: "POST",
          agent,
          headers,
        });
        request.end(body);
        const [response] = (await once(request, "response")) as [IncomingMessage];
        let text = "";
        for await (const chunk of response) text += String(chunk);
        return { status: response.statusCode, text };
      };
      for (let round = 0; round < 3; round += 1) {
        const refused = await call(Buffer.alloc(REQUEST_BYTES_MAX * 2, 32));
        expect(refused).toMatchObject({ status: 429, text: expect.stringContaining("ERROR_REASON_LIMIT_REACHED") });
        expect(await call(Buffer.from("{}"))).toMatchObject({ status: 200 });
      }
      agent.destroy();
    },
  );

  test("junk in place of HTTP ends the connection, not the server", async () => {
    for (const junk of [
      "PRI * HTTP/2.0\r\n\r\nXX",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunkjunkjunkjunk",
      "\u0000\u0001\u0002\r\n\r\n",
      "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    ]) {
      const socket = connectTcp(cp.server.address.port, "127.0.0.1");
      socket.on("error", () => {});
      socket.end(junk);
      socket.resume();
      await once(socket, "close");
    }
    const bad = connectTcp(cp.server.address.port, "127.0.0.1");
    bad.end(
      `POST /tokenbill.v1.MerchantService/GetMerchant HTTP/1.1\r\nhost: [bad\r\nauthorization: Bearer ${cp.merchantToken}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}`,
    );
    let answer = "";
    bad.on("data", (chunk) => (answer += String(chunk)));
    await once(bad, "close");
    expect(answer).toMatch(/^HTTP\/1\.1 400/);
    expect((await fetch(`${cp.url}/healthz`)).status).toBe(200);
  });
});

describe.each(openTestDatabases())("stopping on $name", ({ open }) => {
  test("ends streams, refuses new calls, and closes", async () => {
    const db = await open();
    const cp = await startTestControlPlane(db);
    const node = cp.client(ConfigFeedService, cp.nodeToken, "grpc");
    const feed = node.watchConfig({ nodeId: "n", bootId: "b" })[Symbol.asyncIterator]();
    await feed.next();
    const drained = (async () => {
      for (;;) if ((await feed.next()).done === true) return;
    })().catch(() => {});
    await cp.close();
    await drained;
    await expect(cp.client(MerchantService, cp.merchantToken).getMerchant({})).rejects.toThrow();
    await db.close();
  });

  test("is not ready when the database is away", async () => {
    const db = await open();
    const cp = await startTestControlPlane(db);
    await db.close();
    const ready = await fetch(`${cp.url}/readyz`);
    expect(ready.status).toBe(503);
    expect(await ready.text()).toBe("the database does not answer\n");
    expect((await fetch(`${cp.url}/healthz`)).status).toBe(200);
    const failure = await failureOf(cp.client(MerchantService, cp.merchantToken).getMerchant({}));
    expect(failure.reason).toBe("unavailable");
    await cp.close();
  });
});
