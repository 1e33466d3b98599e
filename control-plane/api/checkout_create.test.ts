/** How sessions begin, for merchants and for strangers. */

import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { CheckoutState } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { signCheckoutLink } from "../checkout_link.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { digest } from "../secrets.ts";
import { failureOf } from "../testing.ts";
import { openShop, type Shop } from "./testing_shop.ts";

describe.each(openTestDatabases())("new Checkout Sessions on $name", ({ open }) => {
  let db: Database;
  let shop: Shop;
  let veId: string;
  beforeAll(async () => {
    db = await open();
    shop = await openShop(db, { env: { PUBLIC_URL: "http://127.0.0.1:9/pay" } });
    veId = await shop.makeVe();
    await shop.api.accounts.updateCheckoutSettings({ returnUrlPrefixes: { prefixes: ["https://app.example/shop/"] } });
  });
  afterAll(async () => {
    await shop.cp.close();
    await db.close();
  });
  // Each test has its own minute, so that throttles do not reach from one to the next.
  beforeEach(() => void (shop.cp.clock.offsetMs += 61_000));

  const nowS = (): number => shop.cp.deps.now() / 1000;

  test("a merchant opens one, and gets its secret and its page", async () => {
    const returnUrl = "https://app.example/shop/done?order=7";
    const request = { veId, returnUrl, metadata: { order: "7" }, expireAfterS: 600, requestId: "first" };
    const answer = await shop.api.checkout.createCheckoutSession(request);
    const { checkoutSession: session, secret, checkoutUrl } = answer;
    expect(session).toMatchObject({
      veId,
      state: CheckoutState.OPEN,
      returnUrl,
      metadata: { order: "7" },
      payments: [],
    });
    expect(session!.id).toMatch(/^cs_[a-z2-7]{26}$/);
    expect(secret).toMatch(/^tbc_[a-z2-7]{52}$/);
    expect(checkoutUrl).toBe(`http://127.0.0.1:9/pay/checkout/${session!.id}#${secret}`);
    expect(Number(session!.expireTime!.seconds - session!.createTime!.seconds)).toBe(600);
    expect(await shop.api.checkout.createCheckoutSession(request)).toStrictEqual(answer);
    const [row] = await db.query<{ secret_digest: Uint8Array; linked: boolean }>(
      "select secret_digest, linked from checkout_session where id = $1",
      [session!.id],
    );
    expect(row).toStrictEqual({ secret_digest: digest(secret), linked: true });
    expect(shop.cp.logLines.join("")).not.toContain(secret);
    const other = await failureOf(shop.api.checkout.createCheckoutSession({ ...request, veId: "ve_other" }));
    expect(other.reason).toBe("request_id_reused");
  });

  test("the VE's id may be spelled as in host names", async () => {
    const spelled = veId.replace("ve_", "VE-");
    const { checkoutSession } = await shop.api.checkout.createCheckoutSession({ veId: spelled });
    expect(checkoutSession!.veId).toBe(veId);
    expect((await shop.stranger.checkout.createCheckoutSession({ veId: spelled })).checkoutSession!.veId).toBe(veId);
  });

  test("a stranger opens one that says nothing of the wallet", async () => {
    const { checkoutSession, secret } = await shop.stranger.checkout.createCheckoutSession({ veId });
    expect(Number(checkoutSession!.expireTime!.seconds - checkoutSession!.createTime!.seconds)).toBe(3600);
    expect(await linked(checkoutSession!.id)).toBe(false);
    expect(secret).toMatch(/^tbc_/);
  });

  const linked = async (id: string): Promise<boolean> =>
    (await db.query<{ linked: boolean }>("select linked from checkout_session where id = $1", [id]))[0]!.linked;

  test.each([
    ["a good link", (): string => signCheckoutLink(shop.cp.deps.secrets, veId, shop.cp.deps.now()), true],
    ["one that is over", () => signCheckoutLink(shop.cp.deps.secrets, veId, shop.cp.deps.now() - 4_000_000), false],
    ["one of another VE", () => signCheckoutLink(shop.cp.deps.secrets, "ve_other", shop.cp.deps.now()), false],
    ["a forged one", () => `${Math.floor(nowS()) + 3600}.${"A".repeat(22)}`, false],
    ["nonsense", () => "%00", false],
  ])("%s shows a stranger the wallet or not", async (_name, link, expected) => {
    const { checkoutSession } = await shop.stranger.checkout.createCheckoutSession({ veId, link: link() });
    expect(await linked(checkoutSession!.id)).toBe(expected);
  });

  test("a merchant may keep the wallet from the payer", async () => {
    const { id } = await shop.open(veId, { showWallet: false });
    expect(await linked(id)).toBe(false);
  });

  test.each([
    ["request_id", { requestId: "r" }],
    ["metadata", { metadata: { a: "b" } }],
    ["show_wallet", { showWallet: false }],
    ["expire_after_s", { expireAfterS: 600 }],
  ])("a stranger may not set %s", async (field, fields) => {
    const failure = await failureOf(shop.stranger.checkout.createCheckoutSession({ veId, ...fields }));
    expect(failure).toMatchObject({ reason: "invalid_field", info: { metadata: { field, rule: "merchants_only" } } });
  });

  test("a return_url must be allowed, for whomever", async () => {
    for (const client of [shop.api, shop.stranger]) {
      for (const returnUrl of ["https://evil.example/", "https://app.example/shop/../x", "javascript:alert(1)"]) {
        const failure = await failureOf(client.checkout.createCheckoutSession({ veId, returnUrl }));
        expect(failure).toMatchObject({
          code: Code.InvalidArgument,
          message: expect.stringContaining("return_url_prefixes"),
          info: { metadata: { field: "return_url" } },
        });
      }
    }
  });

  test("it lasts from five minutes to a day", async () => {
    for (const expireAfterS of [299, 1, -1, 86_401]) {
      const failure = await failureOf(shop.api.checkout.createCheckoutSession({ veId, expireAfterS }));
      expect(failure.info.metadata["field"]).toBe("expire_after_s");
    }
    const { checkoutSession: longest } = await shop.api.checkout.createCheckoutSession({ veId, expireAfterS: 86_400 });
    expect(Number(longest!.expireTime!.seconds - longest!.createTime!.seconds)).toBe(86_400);
  });

  test("a VE that cannot be topped up: merchants are told why, strangers nothing", async () => {
    const template = await shop.makeVe({ template: true });
    const [disabled, frozen, deleted] = [await shop.makeVe(), await shop.makeVe(), await shop.makeVe()];
    await shop.api.ves.updateVirtualEndpoint({ id: disabled, disabled: true });
    await db.query("update virtual_endpoint set frozen = true where id = $1", [frozen]);
    await shop.api.ves.deleteVirtualEndpoint({ id: deleted });
    const other = await shop.cp.makeMerchant("closed");
    const [row] = await db.query<{ id: string }>(
      `insert into virtual_endpoint (id, merchant_id, name, template, disabled, budget_mode, exhausted_status, low_balance,
         offline_grace, labels, revision, created_at, updated_at)
       select 've_of_closed', $1, name, false, false, budget_mode, exhausted_status, low_balance, offline_grace, labels,
         revision, created_at, updated_at from virtual_endpoint where id = $2 returning id`,
      [other.id, veId],
    );
    await db.query("update merchant set disabled = true where id = $1", [other.id]);

    const unknown = await failureOf(shop.stranger.checkout.createCheckoutSession({ veId: "ve_none" }));
    expect(unknown).toMatchObject({ code: Code.NotFound, message: "there is no VE with this id" });
    for (const id of [template, disabled, frozen, deleted, row!.id])
      expect(await failureOf(shop.stranger.checkout.createCheckoutSession({ veId: id }))).toStrictEqual(unknown);

    for (const id of [template, deleted, "ve_none", row!.id])
      expect((await failureOf(shop.api.checkout.createCheckoutSession({ veId: id }))).reason).toBe("not_found");
    for (const [id, state] of [[disabled, "disabled"] as const, [frozen, "frozen"] as const]) {
      const failure = await failureOf(shop.api.checkout.createCheckoutSession({ veId: id }));
      expect(failure).toMatchObject({ reason: "wrong_state", info: { metadata: { state } } });
      expect(failure.message).toContain(state);
    }
  });

  test("strangers are throttled by their address, merchants are not", async () => {
    for (let i = 0; i < 20; i++) await shop.stranger.checkout.createCheckoutSession({ veId });
    const failure = await failureOf(shop.stranger.checkout.createCheckoutSession({ veId }));
    expect(failure).toMatchObject({
      code: Code.ResourceExhausted,
      reason: "limit_reached",
      info: { metadata: { limit: "checkout_sessions_per_address", max: "20" } },
    });
    // Whether there is such a VE makes no difference then.
    expect((await failureOf(shop.stranger.checkout.createCheckoutSession({ veId: "ve_none" }))).reason).toBe(
      "limit_reached",
    );
    await shop.api.checkout.createCheckoutSession({ veId });
    const response = await fetch(`${shop.cp.url}/tokenbill.v1.CheckoutService/CreateCheckoutSession`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ veId }),
    });
    expect(response.status).toBe(429);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(Number(response.headers.get("retry-after"))).toBeLessThanOrEqual(60);
  });
});

describe("behind a proxy", () => {
  test("addresses are told apart, and a VE has a limit of its own", async () => {
    const [{ open }] = openTestDatabases() as [ReturnType<typeof openTestDatabases>[0]];
    const db = await open();
    const shop = await openShop(db, { env: { TRUSTED_PROXY_HOPS: "1" } });
    const veId = await shop.makeVe();
    const from = async (address: string, link = ""): Promise<number> => {
      const response = await fetch(`${shop.cp.url}/tokenbill.v1.CheckoutService/CreateCheckoutSession`, {
        method: "POST",
        headers: { "content-type": "application/json", "x-forwarded-for": `6.6.6.6, ${address}` },
        body: JSON.stringify({ veId, link }),
      });
      await response.arrayBuffer();
      return response.status;
    };
    const many = async (addressOf: (i: number) => string): Promise<void> =>
      expect(new Set(await Promise.all(Array.from({ length: 20 }, (_, i) => from(addressOf(i)))))).toEqual(
        new Set([200]),
      );
    await many(() => "1.2.3.4");
    expect(await from("1.2.3.4")).toBe(429);
    // Of IPv6 a whole /64 is one.
    await many((i) => `2001:db8:1:2::${i + 1}`);
    expect(await from("2001:db8:1:2:ffff::1")).toBe(429);
    await many(() => "2001:db8:1:3::1");
    // That were 60 of the VE.
    expect(await from("5.6.7.8")).toBe(429);
    expect(await from("5.6.7.8", "4102444800.AAAAAAAAAAAAAAAAAAAAAA")).toBe(429);
    // They do not shut out whoever the gateway gave a link.
    expect(await from("5.6.7.8", signCheckoutLink(shop.cp.deps.secrets, veId, shop.cp.deps.now()))).toBe(200);
    await shop.cp.close();
    await db.close();
  });
});
