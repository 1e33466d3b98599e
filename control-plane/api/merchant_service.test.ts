import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

describe.each(openTestDatabases())("MerchantService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let operator: Clients;
  let merchant: Clients;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    operator = clientsOf(cp, cp.operatorToken);
    merchant = clientsOf(cp, cp.merchantToken);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("the operator makes, lists and changes merchants", async () => {
    const { merchant: made } = await operator.merchants.createMerchant({ name: "shop" });
    expect(made).toMatchObject({ name: "shop", disabled: false, etag: "1" });
    expect(made!.id).toMatch(/^mer_[a-z2-7]{26}$/);
    const { merchants } = await operator.merchants.listMerchants({});
    expect(merchants.map(({ name }) => name)).toStrictEqual(["default", "shop"]);
    const first = await operator.merchants.listMerchants({ pageSize: 1 });
    const second = await operator.merchants.listMerchants({ pageSize: 1, pageToken: first.nextPageToken });
    expect([...first.merchants, ...second.merchants]).toStrictEqual(merchants);
    expect((await failureOf(operator.merchants.createMerchant({ name: "shop" }))).reason).toBe("name_taken");
    const renamed = await operator.merchants.updateMerchant({ id: made!.id, etag: "1", name: "store" });
    expect(renamed.merchant).toMatchObject({ name: "store", etag: "2" });
    expect((await failureOf(operator.merchants.updateMerchant({ id: made!.id, etag: "1", name: "late" }))).reason).toBe(
      "etag_mismatch",
    );
    expect((await failureOf(operator.merchants.getMerchant({}))).info.metadata["field"]).toBe("id");
    expect((await failureOf(operator.merchants.getMerchant({ id: "mer_nobody" }))).reason).toBe("not_found");
  });

  test("a merchant sees itself alone", async () => {
    const { merchant: own } = await merchant.merchants.getMerchant({});
    expect(own!.name).toBe("default");
    expect((await merchant.merchants.getMerchant({ id: own!.id })).merchant).toStrictEqual(own);
    const other = await cp.makeMerchant("other");
    expect((await failureOf(merchant.merchants.getMerchant({ id: other.id }))).reason).toBe("not_found");
    expect((await failureOf(merchant.merchants.createApiToken({ merchantId: other.id }))).reason).toBe("not_found");
    expect((await failureOf(merchant.merchants.listMerchants({}))).reason).toBe("wrong_scope");
    expect((await failureOf(merchant.merchants.createMerchant({ name: "mine" }))).reason).toBe("wrong_scope");
    expect((await failureOf(merchant.merchants.updateMerchant({ id: own!.id, name: "mine" }))).reason).toBe(
      "wrong_scope",
    );
  });

  test("a merchant has a time zone, UTC at first, which it may change itself and nothing else", async () => {
    const { merchant: own } = await merchant.merchants.getMerchant({});
    expect(own!.timeZone).toBe("UTC");
    const moved = await merchant.merchants.updateMerchant({ timeZone: "europe/berlin" });
    expect(moved.merchant).toMatchObject({ id: own!.id, name: "default", timeZone: "Europe/Berlin" });
    expect((await merchant.merchants.updateMerchant({ id: own!.id, timeZone: "UTC" })).merchant!.timeZone).toBe("UTC");
    const withName = merchant.merchants.updateMerchant({ timeZone: "Asia/Tokyo", name: "mine" });
    expect((await failureOf(withName)).reason).toBe("wrong_scope");
    const enabled = merchant.merchants.updateMerchant({ timeZone: "Asia/Tokyo", disabled: false });
    expect((await failureOf(enabled)).reason).toBe("wrong_scope");
    const { merchant: abroad } = await operator.merchants.createMerchant({ name: "abroad", timeZone: "Asia/Tokyo" });
    expect(abroad!.timeZone).toBe("Asia/Tokyo");
    const updated = await operator.merchants.updateMerchant({ id: abroad!.id, timeZone: "America/Lima" });
    expect(updated.merchant).toMatchObject({ name: "abroad", timeZone: "America/Lima" });
    expect((await failureOf(operator.merchants.updateMerchant({ timeZone: "UTC" }))).info.metadata["field"]).toBe("id");
    expect((await failureOf(merchant.merchants.updateMerchant({ id: abroad!.id, timeZone: "UTC" }))).reason).toBe(
      "not_found",
    );
  });

  test.each(["Mars/Olympus", "+01:00", "UTC+1", "Europe/Berlin[u-ca=hebrew]"])(
    "%s is no time zone",
    async (timeZone) => {
      const calls = [
        () => operator.merchants.createMerchant({ name: "nowhere", timeZone }),
        () => merchant.merchants.updateMerchant({ timeZone }),
      ];
      for (const call of calls)
        expect(await failureOf(call())).toMatchObject({
          reason: "invalid_field",
          info: { metadata: { field: "time_zone", rule: "time_zone" } },
        });
    },
  );

  test("the operator's token does not act for a merchant, nor a node's for anybody", async () => {
    expect(await failureOf(operator.ves.listVirtualEndpoints({}))).toMatchObject({
      reason: "wrong_scope",
      code: Code.PermissionDenied,
    });
    expect((await failureOf(clientsOf(cp, cp.nodeToken).ves.listVirtualEndpoints({}))).reason).toBe("wrong_scope");
  });

  test("tokens open their merchant, are shown once, and end when revoked", async () => {
    const { apiToken, secret } = await merchant.merchants.createApiToken({ name: "ci" });
    expect(secret).toMatch(/^tbt_[a-z2-7]{52}$/);
    expect(apiToken).toMatchObject({ name: "ci", prefix: secret.slice(0, 12) });
    const ci = clientsOf(cp, secret);
    expect((await ci.merchants.getMerchant({})).merchant!.id).toBe(apiToken!.merchantId);
    const listed = (await merchant.merchants.listApiTokens({})).apiTokens.find(({ id }) => id === apiToken!.id)!;
    expect(listed.lastUseTime).toBeDefined();
    expect(
      JSON.stringify((await merchant.merchants.listApiTokens({})).apiTokens.map(({ prefix, name }) => [prefix, name])),
    ).not.toContain(secret);
    const { apiToken: revoked } = await merchant.merchants.revokeApiToken({ id: apiToken!.id });
    expect(revoked!.revokeTime).toBeDefined();
    expect(await failureOf(ci.merchants.getMerchant({}))).toMatchObject({
      reason: "unauthenticated",
      code: Code.Unauthenticated,
    });
    expect((await merchant.merchants.revokeApiToken({ id: apiToken!.id })).apiToken).toStrictEqual(revoked);
  });

  test("the operator's and nodes' own tokens cannot be listed or revoked here", async () => {
    const rows = await db.query<{ id: string }>("select id from api_token where scope <> 'merchant'");
    expect(rows).toHaveLength(2);
    for (const { id } of rows)
      expect((await failureOf(operator.merchants.revokeApiToken({ id }))).reason).toBe("not_found");
  });

  test("a disabled merchant's tokens are refused, and its VEs get a new revision at once", async () => {
    const shop = await cp.makeMerchant("disabled shop");
    const api = clientsOf(cp, shop.token);
    const { veId } = await makeCatalogue(api, "shop");
    const revisionOf = async (): Promise<bigint> =>
      (await db.query<{ revision: bigint }>("select revision from virtual_endpoint where id = $1", [veId]))[0]!
        .revision;
    const before = await revisionOf();
    await operator.merchants.updateMerchant({ id: shop.id, disabled: true });
    expect(await revisionOf()).toBeGreaterThan(before);
    expect((await failureOf(api.ves.listVirtualEndpoints({}))).reason).toBe("unauthenticated");
    await operator.merchants.updateMerchant({ id: shop.id, disabled: false });
    expect((await api.ves.listVirtualEndpoints({})).virtualEndpoints).toHaveLength(1);
  });
});
