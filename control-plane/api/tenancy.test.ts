/** No merchant sees, changes or guesses what belongs to another: every call of the public API, walked by its descriptors. */

import type { DescMethod } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckoutState } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { emitWebhookEvents } from "../store/webhook_event.ts";
import { failureOf, startTestControlPlane, type TestControlPlane, type TestMerchant } from "../testing.ts";
import { PAYER_CALLS, STRANGER_CALLS } from "./access.ts";
import { NODE_SERVICES, PUBLIC_SERVICES } from "./routes.ts";
import { type Clients, clientsOf, makeCatalogue, reportUsage } from "./test_fixture.ts";
import { type Attempts, CHECKOUT_ATTEMPTS, type World } from "./testing_tenancy.ts";

const FREE = { case: "simplePrice" as const, value: { creditPerUnit: "0", unit: UnitKind.TOKENS } };

/**
 * For each call, what B tries on A's resources and how it must end: as if there were no such thing, with nothing, or
 * refused to every merchant. A new call fails the test until it has an entry here.
 */
const ATTEMPTS: Attempts = {
  // What it makes is the caller's own; there is nobody else's id to name.
  "ProviderService.CreateProvider": [],
  "ProviderService.GetProvider": [["not_found", ({ b, providerId }) => b.providers.getProvider({ id: providerId })]],
  "ProviderService.ListProviders": [
    [
      "empty",
      async ({ b, providerId }) =>
        (await b.providers.listProviders({ pageSize: 1000 })).providers.filter(({ id }) => id === providerId),
    ],
  ],
  "ProviderService.UpdateProvider": [
    ["not_found", ({ b, providerId }) => b.providers.updateProvider({ id: providerId, name: "stolen" })],
  ],
  "ProviderService.DeleteProvider": [
    ["not_found", ({ b, providerId }) => b.providers.deleteProvider({ id: providerId })],
  ],
  "ProviderService.TestProvider": [["not_found", ({ b, providerId }) => b.providers.testProvider({ id: providerId })]],
  "ProviderService.CreatePhysicalModel": [
    ["not_found", ({ b, providerId }) => b.providers.createPhysicalModel({ providerId, upstreamName: "x" })],
  ],
  "ProviderService.GetPhysicalModel": [["not_found", ({ b, pmId }) => b.providers.getPhysicalModel({ id: pmId })]],
  "ProviderService.ListPhysicalModels": [
    [
      "empty",
      async ({ b, pmId }) =>
        (await b.providers.listPhysicalModels({ pageSize: 1000 })).physicalModels.filter(({ id }) => id === pmId),
    ],
    ["empty", async ({ b, providerId }) => (await b.providers.listPhysicalModels({ providerId })).physicalModels],
  ],
  "ProviderService.UpdatePhysicalModel": [
    ["not_found", ({ b, pmId }) => b.providers.updatePhysicalModel({ id: pmId, disabled: true })],
    ["not_found", ({ b, pmId }) => b.providers.updatePhysicalModel({ id: pmId, creditLimit: { credits: "1" } })],
    ["not_found", ({ b, pmId }) => b.providers.updatePhysicalModel({ id: pmId, removeUnitLimit: true })],
  ],
  "ProviderService.DeletePhysicalModel": [
    ["not_found", ({ b, pmId }) => b.providers.deletePhysicalModel({ id: pmId })],
  ],
  "ProviderService.ImportPrices": [
    [
      "not_found",
      ({ b, providerId }) =>
        b.providers.importPrices({ entries: [{ providerId, upstreamName: "*", price: FREE }], preview: true }),
    ],
    [
      "empty",
      async ({ b, pmId }) =>
        (
          await b.providers.importPrices({ entries: [{ upstreamName: "*", price: FREE }], preview: true })
        ).changes.filter(({ physicalModelId }) => physicalModelId === pmId),
    ],
    [
      "empty",
      async ({ b, bPmId }) =>
        (await b.providers.importPrices({ entries: [{ upstreamName: "*", price: FREE }] })).changes.filter(
          ({ physicalModelId }) => physicalModelId !== bPmId,
        ),
    ],
  ],
  "ProviderService.ListPrices": [["not_found", ({ b, pmId }) => b.providers.listPrices({ physicalModelId: pmId })]],
  "VirtualEndpointService.CreateVirtualEndpoint": [
    ["not_found", ({ b, veId }) => b.ves.createVirtualEndpoint({ name: "copy", veTemplateId: veId })],
    [
      "not_found",
      ({ b, providerId }) => b.ves.createVirtualEndpoint({ name: "files", passthroughProviderId: providerId }),
    ],
  ],
  "VirtualEndpointService.GetVirtualEndpoint": [["not_found", ({ b, veId }) => b.ves.getVirtualEndpoint({ id: veId })]],
  "VirtualEndpointService.ListVirtualEndpoints": [
    [
      "empty",
      async ({ b, veId }) =>
        (await b.ves.listVirtualEndpoints({ pageSize: 1000 })).virtualEndpoints.filter(({ id }) => id === veId),
    ],
    ["empty", async ({ b, veId }) => (await b.ves.listVirtualEndpoints({ veTemplateId: veId })).virtualEndpoints],
  ],
  "VirtualEndpointService.UpdateVirtualEndpoint": [
    ["not_found", ({ b, veId }) => b.ves.updateVirtualEndpoint({ id: veId, disabled: true })],
    ["not_found", ({ b, veId }) => b.ves.updateVirtualEndpoint({ id: veId, frozen: true })],
    [
      "not_found",
      ({ b, veId }) => b.ves.updateVirtualEndpoint({ id: veId, budgetReset: { credits: "9", resetPeriod: 1 } }),
    ],
    ["not_found", ({ b, veId }) => b.ves.updateVirtualEndpoint({ id: veId, removeBudgetReset: true })],
    [
      "not_found",
      ({ b, bVeId, providerId }) => b.ves.updateVirtualEndpoint({ id: bVeId, passthroughProviderId: providerId }),
    ],
  ],
  "VirtualEndpointService.DeleteVirtualEndpoint": [
    ["not_found", ({ b, veId }) => b.ves.deleteVirtualEndpoint({ id: veId })],
  ],
  "VirtualEndpointService.GetBalance": [["not_found", ({ b, veId }) => b.ves.getBalance({ veId })]],
  "VirtualEndpointService.AdjustCredits": [
    ["not_found", ({ b, veId }) => b.ves.adjustCredits({ veId, credits: "-1", reason: "theft" })],
  ],
  "VirtualEndpointService.CreateAccessKey": [["not_found", ({ b, veId }) => b.ves.createAccessKey({ veId })]],
  "VirtualEndpointService.ListAccessKeys": [["not_found", ({ b, veId }) => b.ves.listAccessKeys({ veId })]],
  "VirtualEndpointService.UpdateAccessKey": [
    ["not_found", ({ b, keyId }) => b.ves.updateAccessKey({ id: keyId, name: "stolen" })],
    ["not_found", ({ b, keyId }) => b.ves.updateAccessKey({ id: keyId, rateLimits: { requestsPerMinute: 1 } })],
  ],
  "VirtualEndpointService.RevokeAccessKey": [["not_found", ({ b, keyId }) => b.ves.revokeAccessKey({ id: keyId })]],
  "LogicalModelService.CreateLogicalModel": [
    [
      "not_found",
      ({ b, veId, bPmId }) =>
        b.models.createLogicalModel({ veId, name: "x", targets: [{ physicalModelId: bPmId, weight: 1 }] }),
    ],
    [
      "not_found",
      ({ b, bVeId, pmId }) =>
        b.models.createLogicalModel({ veId: bVeId, name: "x", targets: [{ physicalModelId: pmId, weight: 1 }] }),
    ],
  ],
  "LogicalModelService.GetLogicalModel": [["not_found", ({ b, lmId }) => b.models.getLogicalModel({ id: lmId })]],
  "LogicalModelService.ListLogicalModels": [["not_found", ({ b, veId }) => b.models.listLogicalModels({ veId })]],
  "LogicalModelService.UpdateLogicalModel": [
    ["not_found", ({ b, lmId }) => b.models.updateLogicalModel({ id: lmId, name: "y" })],
  ],
  "LogicalModelService.DeleteLogicalModel": [["not_found", ({ b, lmId }) => b.models.deleteLogicalModel({ id: lmId })]],
  "LogicalModelService.DryRun": [
    ["not_found", ({ b, veId }) => b.models.dryRun({ veId, model: "gpt" })],
    ["not_found", ({ b, bVeId }) => b.models.dryRun({ veId: bVeId, model: "a's own" })],
  ],
  "UsageService.SummarizeUsage": [
    [
      "empty",
      async ({ b, veId }) =>
        (await b.usage.summarizeUsage({ filter: { veId } })).rows.filter(({ requests }) => requests > 0n),
    ],
    ["empty", async ({ b }) => (await b.usage.summarizeUsage({})).rows.filter(({ requests }) => requests > 0n)],
  ],
  "UsageService.ListRequests": [
    ["empty", async ({ b }) => (await b.usage.listRequests({})).requests],
    ["empty", async ({ b, veId }) => (await b.usage.listRequests({ filter: { veId } })).requests],
    ["empty", async ({ b, pmId }) => (await b.usage.listRequests({ filter: { physicalModelId: pmId } })).requests],
    ["empty", async ({ b, keyId }) => (await b.usage.listRequests({ filter: { accessKeyId: keyId } })).requests],
  ],
  "UsageService.GetRequest": [["not_found", ({ b, requestId }) => b.usage.getRequest({ id: requestId })]],
  "UsageService.ExportUsage": [
    ["empty", async ({ b, requestId }) => (await exported(b, {})).filter((text) => text.includes(requestId))],
    [
      "empty",
      async ({ b, veId, requestId }) =>
        (await exported(b, { filter: { veId } })).filter((text) => text.includes(requestId)),
    ],
  ],
  "UsageService.ListTransfers": [["not_found", ({ b, veId }) => b.usage.listTransfers({ veId })]],
  "MerchantService.CreateMerchant": [["wrong_scope", ({ b }) => b.merchants.createMerchant({ name: "mine" })]],
  "MerchantService.GetMerchant": [["not_found", ({ b, merchantId }) => b.merchants.getMerchant({ id: merchantId })]],
  "MerchantService.ListMerchants": [["wrong_scope", ({ b }) => b.merchants.listMerchants({})]],
  "MerchantService.UpdateMerchant": [
    ["wrong_scope", ({ b, merchantId }) => b.merchants.updateMerchant({ id: merchantId, disabled: true })],
    ["not_found", ({ b, merchantId }) => b.merchants.updateMerchant({ id: merchantId, timeZone: "Asia/Tokyo" })],
  ],
  "MerchantService.CreateApiToken": [["not_found", ({ b, merchantId }) => b.merchants.createApiToken({ merchantId })]],
  "MerchantService.ListApiTokens": [["not_found", ({ b, merchantId }) => b.merchants.listApiTokens({ merchantId })]],
  "MerchantService.RevokeApiToken": [["not_found", ({ b, tokenId }) => b.merchants.revokeApiToken({ id: tokenId })]],
  "AutoTopUpService.GetAutoTopUp": [["not_found", ({ b, veId }) => b.autoTopUps.getAutoTopUp({ veId })]],
  "AutoTopUpService.SetAutoTopUp": [
    [
      "not_found",
      ({ b, veId }) =>
        b.autoTopUps.setAutoTopUp({
          veId,
          thresholdCredits: "1",
          creditPackId: "pack_a",
          dailyMax: { currency: "USD", amount: "1" },
        }),
    ],
  ],
  "AutoTopUpService.DeleteAutoTopUp": [["not_found", ({ b, veId }) => b.autoTopUps.deleteAutoTopUp({ veId })]],
  "AuditService.RunAudit": [["wrong_scope", ({ b }) => b.audit.runAudit({})]],
  "AuditService.StopAudit": [["wrong_scope", ({ b }) => b.audit.stopAudit({ id: "aud_a" })]],
  "AuditService.GetAuditRun": [["wrong_scope", ({ b }) => b.audit.getAuditRun({})]],
  "AuditService.ListAuditRuns": [["wrong_scope", ({ b }) => b.audit.listAuditRuns({})]],
  "AuditService.ListAlarms": [["wrong_scope", ({ b }) => b.audit.listAlarms({})]],
  "AuditService.AcknowledgeAlarm": [["wrong_scope", ({ b }) => b.audit.acknowledgeAlarm({ id: "1" })]],
  "AuditService.ListNodes": [["wrong_scope", ({ b }) => b.audit.listNodes({})]],
  "AuditService.WriteOffNode": [
    ["wrong_scope", ({ b }) => b.audit.writeOffNode({ target: { case: "nodeId", value: "node-1" }, reason: "theft" })],
  ],
  ...CHECKOUT_ATTEMPTS,
};

async function exported(b: Clients, request: object): Promise<string[]> {
  const pieces: string[] = [];
  for await (const { data } of b.usage.exportUsage(request)) pieces.push(Buffer.from(data).toString("utf8"));
  return pieces;
}

function nameOf(method: DescMethod): string {
  return `${method.parent.name}.${method.name}`;
}

const PUBLIC_METHODS = PUBLIC_SERVICES.flatMap((service) => service.methods as readonly DescMethod[]);
const ALL_METHODS = [
  ...PUBLIC_METHODS,
  ...NODE_SERVICES.flatMap((service) => service.methods as readonly DescMethod[]),
];

/** Calls a method by its descriptor with an empty request; streams are read until their first event. */
async function callEmpty(cp: TestControlPlane, method: DescMethod, token: string | null): Promise<unknown> {
  const client = cp.client(method.parent, token) as unknown as Record<string, (request: object) => unknown>;
  const result = client[method.localName]!({});
  if (method.methodKind === "unary") return result;
  for await (const event of result as AsyncIterable<unknown>) return event;
  return undefined;
}

describe.each(openTestDatabases())("tenancy on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let world: World;
  let a: Clients;
  let merchantB: TestMerchant;
  let payerSecret: string;

  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    const merchantA = await cp.makeMerchant("a");
    merchantB = await cp.makeMerchant("b");
    a = clientsOf(cp, merchantA.token);
    const b = clientsOf(cp, merchantB.token);
    const catalogue = await makeCatalogue(a, "a");
    const targets = [{ physicalModelId: catalogue.pmId, weight: 1 }];
    await a.models.createLogicalModel({ veId: catalogue.veId, name: "a's own", targets });
    const own = await makeCatalogue(b, "b");
    const requestId = await reportUsage(cp, a, catalogue);
    const tokens = await a.merchants.listApiTokens({});
    const { virtualEndpoint: template } = await a.ves.createVirtualEndpoint({ name: "template", template: true });
    const { creditPack } = await a.packs.createCreditPack({
      veTemplateId: template!.id,
      price: { currency: "USD", amount: "10" },
      credits: "10",
    });
    const { paymentAccount } = await a.accounts.createPaymentAccount({
      name: "a",
      credentials: { kind: { case: "stripe", value: { secretKey: "sk_live_a1" } } },
    });
    await a.accounts.updateCheckoutSettings({ returnUrlPrefixes: { prefixes: ["https://a.example/"] } });
    const { checkoutSession } = await a.checkout.createCheckoutSession({ veId: catalogue.veId });
    payerSecret = (await b.checkout.createCheckoutSession({ veId: own.veId })).secret;
    const webhookEventId = cp.deps.newId("evt_");
    const event = { id: webhookEventId, merchantId: merchantA.id, veId: catalogue.veId, sessionId: "", data: {} };
    await db.tx((tx) => emitWebhookEvents(tx, cp.deps.now(), [{ ...event, type: "wallet.low" }]));
    const { webhookEndpoint } = await a.webhooks.createWebhookEndpoint({ url: "https://shop.example/hooks" });
    await a.webhooks.replayWebhookEvent({ webhookEventId });
    world = {
      sessionId: checkoutSession!.id,
      packId: creditPack!.id,
      accountId: paymentAccount!.id,
      templateId: template!.id,
      payer: clientsOf(cp, payerSecret),
      ...catalogue,
      merchantId: merchantA.id,
      tokenId: tokens.apiTokens[0]!.id,
      requestId,
      webhookEndpointId: webhookEndpoint!.id,
      webhookEventId,
      b,
      bVeId: own.veId,
      bPmId: own.pmId,
    };
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("every call has an entry", () => {
    expect(Object.keys(ATTEMPTS).toSorted()).toStrictEqual(PUBLIC_METHODS.map(nameOf).toSorted());
  });

  test("A's usage is there to be seen by A", async () => {
    expect((await a.usage.getRequest({ id: world.requestId })).request!.credits).toBe("0.005");
    expect((await a.usage.listRequests({})).requests).toHaveLength(1);
    expect((await a.webhooks.listWebhookEvents({})).webhookEvents).toHaveLength(1);
    expect((await a.webhooks.listWebhookDeliveries({})).webhookDeliveries).toHaveLength(1);
    expect((await exported(a, {})).join("")).toContain(world.requestId);
  });

  test.each(PUBLIC_METHODS.map((method) => [nameOf(method)]))("%s keeps merchants apart", async (name) => {
    for (const [outcome, attempt] of ATTEMPTS[name]!) {
      if (outcome === "empty") expect(await attempt(world)).toStrictEqual([]);
      else expect((await failureOf(attempt(world))).reason).toBe(outcome);
    }
  });

  test("a foreign id and one that never was get the same answer", async () => {
    const foreign = await failureOf(world.b.ves.getVirtualEndpoint({ id: world.veId }));
    const unknown = await failureOf(world.b.ves.getVirtualEndpoint({ id: "ve_nobody" }));
    expect(foreign).toStrictEqual(unknown);
  });

  test("nothing of A's was changed by all this", async () => {
    expect((await a.providers.getProvider({ id: world.providerId })).provider!.etag).toBe("1");
    expect((await a.providers.getPhysicalModel({ id: world.pmId })).physicalModel!.etag).toBe("1");
    expect((await a.models.getLogicalModel({ id: world.lmId })).logicalModel!.etag).toBe("1");
    const { webhookEndpoint } = await a.webhooks.getWebhookEndpoint({ id: world.webhookEndpointId });
    expect(webhookEndpoint).toMatchObject({ etag: "1", disabled: false });
    expect((await a.webhooks.listWebhookDeliveries({})).webhookDeliveries).toHaveLength(1);
    const { virtualEndpoint } = await a.ves.getVirtualEndpoint({ id: world.veId });
    expect(virtualEndpoint).toMatchObject({ etag: "1", wallet: { creditBudget: "10.5", settled: "0.005" } });
    expect(
      (await a.ves.listAccessKeys({ veId: world.veId })).accessKeys.map(({ revokeTime }) => revokeTime),
    ).toStrictEqual([undefined]);
    expect((await a.ves.listAccessKeys({ veId: world.veId })).accessKeys).toMatchObject([{ name: "a" }]);
    expect((await a.packs.getCreditPack({ id: world.packId })).creditPack!.etag).toBe("1");
    expect((await a.accounts.getPaymentAccount({ id: world.accountId })).paymentAccount!.etag).toBe("1");
    const { checkoutSession } = await a.checkout.getCheckoutSession({ id: world.sessionId });
    expect(checkoutSession).toMatchObject({ state: CheckoutState.OPEN, payments: [], refunds: [] });
  });

  test.each(ALL_METHODS.map((method) => [nameOf(method), method] as const))(
    "%s refuses strangers",
    async (_name, method) => {
      const tokens = [null, "", "tbt_wrong", `${merchantB.token}x`, merchantB.token.slice(0, -1), "Bearer"];
      for (const token of tokens) {
        const failure = await failureOf(callEmpty(cp, method, token));
        if (token === null && STRANGER_CALLS.has(`${method.parent.typeName}/${method.name}`)) {
          expect(failure.reason).toBe("invalid_field");
          continue;
        }
        expect(failure).toMatchObject({ code: Code.Unauthenticated, reason: "unauthenticated" });
      }
    },
  );

  test.each(ALL_METHODS.map((method) => [nameOf(method), method] as const))(
    "%s refuses tokens of another kind",
    async (_name, method) => {
      const isNodeCall = method.parent.typeName.startsWith("tokenbill.node.");
      const wrong = isNodeCall ? [merchantB.token, cp.operatorToken] : [cp.nodeToken];
      for (const token of wrong) expect((await failureOf(callEmpty(cp, method, token))).reason).toBe("wrong_scope");
    },
  );

  test.each(ALL_METHODS.map((method) => [nameOf(method), method] as const))(
    "%s is closed to payers, unless it is for them",
    async (_name, method) => {
      const isForPayers = PAYER_CALLS.has(`${method.parent.typeName}/${method.name}`);
      const failure = await failureOf(callEmpty(cp, method, payerSecret));
      expect(failure.reason).toBe(isForPayers ? "invalid_field" : "wrong_scope");
    },
  );

  test("the scheme and the header are looked at closely", async () => {
    const path = `${cp.url}/tokenbill.v1.MerchantService/GetMerchant`;
    const status = async (authorization: string): Promise<number> => {
      const response = await fetch(path, {
        method: "POST",
        headers: { authorization, "content-type": "application/json" },
        body: "{}",
      });
      if (response.status === 401) {
        expect(response.headers.get("www-authenticate")).toMatch(/^Bearer/);
        expect(await response.json()).toMatchObject({
          code: "unauthenticated",
          details: [{ type: "tokenbill.v1.ErrorInfo" }],
        });
      }
      return response.status;
    };
    expect(await status(`Bearer ${merchantB.token}`)).toBe(200);
    expect(await status(`bearer  ${merchantB.token} `)).toBe(200);
    expect(await status(`Basic ${merchantB.token}`)).toBe(401);
    expect(await status(merchantB.token)).toBe(401);
    expect(await status(`Bearer ${merchantB.token}, Bearer ${merchantB.token}`)).toBe(401);
  });
});
