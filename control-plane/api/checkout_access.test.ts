/** What the secret of a session opens, and until when. */

import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckoutState } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { AutoTopUpService } from "../../proto/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import { CheckoutService } from "../../proto/gen/tokenbill/v1/checkout_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, type Protocol } from "../testing.ts";
import { PAYER_CALLS, PAYER_SECRET_KEEP_MS, STRANGER_CALLS } from "./access.ts";
import { clientsOf } from "./test_fixture.ts";
import { openShop, SANDBOX_CHOICE, type Shop } from "./testing_shop.ts";

test("the table names calls that there are, and no more than meant", () => {
  const methods = [CheckoutService, AutoTopUpService].flatMap((service) =>
    service.methods.map((method) => `${service.typeName}/${method.name}`),
  );
  expect([...PAYER_CALLS].filter((name) => !methods.includes(name))).toEqual([]);
  expect([...STRANGER_CALLS].filter((name) => !methods.includes(name))).toEqual([]);
  expect(PAYER_CALLS.size).toBe(5);
  expect(STRANGER_CALLS.size).toBe(1);
});

describe.each(openTestDatabases())("payers on $name", ({ open }) => {
  let db: Database;
  let shop: Shop;
  let veId: string;
  beforeAll(async () => {
    db = await open();
    shop = await openShop(db);
    veId = await shop.makeVe();
  });
  afterAll(async () => {
    await shop.cp.close();
    await db.close();
  });

  test.each<Protocol>(["connect-json", "connect-binary", "grpc", "grpc-web"])("call over %s", async (protocol) => {
    const { id, secret } = await shop.open(veId);
    const payer = clientsOf(shop.cp, secret, protocol);
    expect((await payer.checkout.getCheckoutSession({ id })).checkoutSession!.state).toBe(CheckoutState.OPEN);
    await payer.checkout.startPayment({ id, ...SANDBOX_CHOICE });
    await payer.checkout.checkPayment({ id });
    const { checkoutSession } = await payer.checkout.cancelCheckoutSession({ id });
    expect(checkoutSession!.state).toBe(CheckoutState.CANCELED);
  });

  test("one session's secret is nothing to another session of the same VE", async () => {
    const [one, other] = [await shop.open(veId), await shop.open(veId)];
    const foreign = await failureOf(one.payer.checkout.getCheckoutSession({ id: other.id }));
    expect(foreign).toStrictEqual(await failureOf(one.payer.checkout.getCheckoutSession({ id: "cs_none" })));
    expect(foreign.reason).toBe("not_found");
  });

  test("it is no token of a merchant", async () => {
    const { payer } = await shop.open(veId);
    const calls = [
      payer.ves.listVirtualEndpoints({}),
      payer.checkout.listCheckoutSessions({}),
      payer.checkout.createCheckoutSession({ veId }),
      payer.packs.listCreditPacks({}),
      payer.accounts.listPaymentAccounts({}),
      payer.merchants.getMerchant({}),
    ];
    for (const failure of await Promise.all(calls.map(failureOf)))
      expect(failure).toMatchObject({ code: Code.PermissionDenied, reason: "wrong_scope" });
  });

  test("the operator has no checkout", async () => {
    const operator = clientsOf(shop.cp, shop.cp.operatorToken);
    const { id } = await shop.open(veId);
    expect((await failureOf(operator.checkout.getCheckoutSession({ id }))).reason).toBe("wrong_scope");
    expect((await failureOf(operator.checkout.createCheckoutSession({ veId }))).reason).toBe("wrong_scope");
  });

  test("whoever sends a wrong secret is no stranger", async () => {
    const { secret } = await shop.open(veId);
    for (const wrong of ["tbc_wrong", `${secret}x`, secret.toUpperCase(), "tbt_wrong", ""]) {
      const failure = await failureOf(clientsOf(shop.cp, wrong).checkout.createCheckoutSession({ veId }));
      expect(failure).toMatchObject({ code: Code.Unauthenticated, reason: "unauthenticated" });
    }
  });

  test("secrets of a disabled merchant do not work, nor is anything opened", async () => {
    const other = await shop.cp.makeMerchant("to be disabled");
    const theirs = clientsOf(shop.cp, other.token);
    const { virtualEndpoint: ve } = await theirs.ves.createVirtualEndpoint({ name: "x" });
    const { checkoutSession, secret } = await theirs.checkout.createCheckoutSession({ veId: ve!.id });
    const payer = clientsOf(shop.cp, secret);
    await payer.checkout.getCheckoutSession({ id: checkoutSession!.id });
    await clientsOf(shop.cp, shop.cp.operatorToken).merchants.updateMerchant({ id: other.id, disabled: true });
    expect((await failureOf(payer.checkout.getCheckoutSession({ id: checkoutSession!.id }))).reason).toBe(
      "unauthenticated",
    );
    expect((await failureOf(shop.stranger.checkout.createCheckoutSession({ veId: ve!.id }))).reason).toBe("not_found");
  });

  test("wrong secrets are counted by address, and right ones go on", async () => {
    shop.cp.clock.offsetMs += 61_000;
    const { id, payer } = await shop.open(veId);
    const guess = () => failureOf(clientsOf(shop.cp, "tbc_guess").checkout.getCheckoutSession({ id }));
    for (let i = 0; i < 60; i++) expect((await guess()).reason).toBe("unauthenticated");
    expect(await guess()).toMatchObject({
      code: Code.ResourceExhausted,
      info: { metadata: { limit: "wrong_secrets_per_address" } },
    });
    await payer.checkout.getCheckoutSession({ id });
    await shop.stranger.checkout.createCheckoutSession({ veId });
  });

  test("a secret works for a month after its session expired", async () => {
    const { id, payer } = await shop.open(veId);
    shop.cp.clock.offsetMs += 3_600_000 + PAYER_SECRET_KEEP_MS - 10_000;
    await payer.checkout.getCheckoutSession({ id });
    expect((await failureOf(payer.checkout.startPayment({ id, ...SANDBOX_CHOICE }))).reason).toBe("wrong_state");
    shop.cp.clock.offsetMs += 10_000;
    expect((await failureOf(payer.checkout.getCheckoutSession({ id }))).reason).toBe("unauthenticated");
    expect((await shop.api.checkout.getCheckoutSession({ id })).checkoutSession!.id).toBe(id);
  });

  test("who called is in the log, the secret is not", async () => {
    const { id, secret, payer } = await shop.open(veId);
    await payer.checkout.getCheckoutSession({ id });
    const line = shop.cp.logLines.findLast((text) => text.includes(id))!;
    expect(JSON.parse(line)).toMatchObject({ caller: "payer", session_id: id, merchant_id: shop.merchant.id });
    expect(shop.cp.logLines.join("")).not.toContain(secret);
  });
});
