import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { periodOf } from "../../core/periods.ts";
import { Period } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { BudgetMode, WalletState } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import { verifyCheckoutLink } from "../checkout_link.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { digest } from "../secrets.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf, makeCatalogue } from "./test_fixture.ts";

describe.each(openTestDatabases())("VirtualEndpointService on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db, { env: { PUBLIC_URL: "https://pay.example.com/x/" } });
    api = clientsOf(cp, cp.merchantToken);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  test("a VE has defaults, a wallet and a checkout link", async () => {
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "plain" });
    expect(ve).toMatchObject({
      name: "plain",
      template: false,
      veTemplateId: "",
      disabled: false,
      budgetMode: BudgetMode.BALANCED,
      exhaustedStatus: 429,
      lowBalanceCredits: "0",
      offlineGraceCredits: "0",
      labels: {},
      wallet: {
        creditBudget: "0",
        creditRemaining: "0",
        settled: "0",
        escrowed: "0",
        debt: "0",
        state: WalletState.EXHAUSTED,
      },
      etag: "1",
    });
    expect(ve!.id).toMatch(/^ve_[a-z2-7]{26}$/);
    expect(ve!.checkoutUrl).toBe(`https://pay.example.com/x/checkout?ve_id=${ve!.id}`);
    expect((await api.ves.getVirtualEndpoint({ id: ve!.id })).virtualEndpoint).toStrictEqual(ve);
    const balance = await api.ves.getBalance({ veId: ve!.id });
    expect(balance.wallet).toStrictEqual(ve!.wallet);
    const [url, link] = balance.checkoutUrl.split("&link=");
    expect(url).toBe(ve!.checkoutUrl);
    expect(verifyCheckoutLink(cp.deps.secrets, ve!.id, link!, cp.deps.now())).toBe(true);
  });

  test("a budget that starts again is shown with its next start, and one without a period is refused", async () => {
    const budgetReset = { credits: "12.500000000001", resetPeriod: Period.MONTHLY };
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "monthly", budgetReset });
    expect(ve!.budgetReset).toMatchObject(budgetReset);
    expect(ve!.wallet!.creditRemaining).toBe("12.500000000001");
    expect(timestampMs(ve!.nextBudgetResetTime!)).toBe(periodOf(Period.MONTHLY, "UTC", cp.deps.now()).endMs);
    expect((await api.ves.getVirtualEndpoint({ id: ve!.id })).virtualEndpoint).toStrictEqual(ve);
    const { virtualEndpoints } = await api.ves.listVirtualEndpoints({ pageSize: 1000 });
    expect(virtualEndpoints.find(({ id }) => id === ve!.id)).toStrictEqual(ve);
    const removed = await api.ves.updateVirtualEndpoint({ id: ve!.id, removeBudgetReset: true });
    expect(removed.virtualEndpoint!.budgetReset).toBeUndefined();
    expect(removed.virtualEndpoint!.nextBudgetResetTime).toBeUndefined();
    const wrong = [
      [{ credits: "1" }, "budget_reset.reset_period"],
      [{ credits: "1", resetPeriod: 9 as Period }, "budget_reset.reset_period"],
      [{ credits: "-1", resetPeriod: Period.DAILY }, "budget_reset.credits"],
      [{ credits: "0", resetPeriod: Period.DAILY }, "budget_reset.credits"],
      [{ resetPeriod: Period.DAILY }, "budget_reset.credits"],
    ] as const;
    for (const [reset, field] of wrong)
      expect(await failureOf(api.ves.updateVirtualEndpoint({ id: ve!.id, budgetReset: reset }))).toMatchObject({
        reason: "invalid_field",
        info: { metadata: { field } },
      });
  });

  test("Credits are exact to the last digit, and every move is a transfer", async () => {
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({
      name: "exact",
      creditBudget: "0.000000000001",
      lowBalanceCredits: "5",
    });
    expect(ve!.wallet).toMatchObject({ creditBudget: "0.000000000001", state: WalletState.LOW });
    const veId = ve!.id;
    const up = await api.ves.adjustCredits({ veId, credits: "99999999.999999999999", reason: "sold" });
    expect(up.wallet).toMatchObject({ creditRemaining: "100000000", state: WalletState.OK });
    expect(up.transferId).toMatch(/^tr_/);
    const down = await api.ves.adjustCredits({ veId, credits: "-0.5", reason: "refund" });
    expect(down.wallet!.creditRemaining).toBe("99999999.5");
    expect((await failureOf(api.ves.adjustCredits({ veId, credits: "-100000000", reason: "too much" }))).reason).toBe(
      "insufficient_credits",
    );
    expect((await failureOf(api.ves.adjustCredits({ veId, credits: "0.000", reason: "nothing" }))).reason).toBe(
      "invalid_field",
    );
    const rows = await db.query<{ reason: string }>("select reason from transfer where ve_id = $1 order by n", [veId]);
    expect(rows.map(({ reason }) => reason)).toStrictEqual(["initial credit budget", "sold", "refund"]);
  });

  test("updates what is present, with an etag", async () => {
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "before", labels: { a: "1" } });
    const id = ve!.id;
    const changed = await api.ves.updateVirtualEndpoint({
      id,
      etag: "1",
      name: "after",
      disabled: true,
      budgetMode: BudgetMode.STRICT,
      exhaustedStatus: 402,
      lowBalanceCredits: "1.5",
      offlineGraceCredits: "2.25",
      labels: { labels: { b: "2" } },
    });
    expect(changed.virtualEndpoint).toMatchObject({
      name: "after",
      disabled: true,
      budgetMode: BudgetMode.STRICT,
      exhaustedStatus: 402,
      lowBalanceCredits: "1.5",
      offlineGraceCredits: "2.25",
      labels: { b: "2" },
      etag: "2",
    });
    const same = (await api.ves.updateVirtualEndpoint({ id, disabled: false })).virtualEndpoint!;
    expect(same).toMatchObject({ name: "after", disabled: false, labels: { b: "2" }, etag: "3" });
    expect((await failureOf(api.ves.updateVirtualEndpoint({ id, etag: "2", name: "late" }))).reason).toBe(
      "etag_mismatch",
    );
    expect((await failureOf(api.ves.deleteVirtualEndpoint({ id, etag: "2" }))).reason).toBe("etag_mismatch");
    expect((await failureOf(api.ves.updateVirtualEndpoint({ id, exhaustedStatus: 500 }))).reason).toBe("invalid_field");
  });

  test("a template gives its Logical Models, settings and labels, but neither keys nor money", async () => {
    const { pmId } = await makeCatalogue(api, "for template");
    const { virtualEndpoint: template } = await api.ves.createVirtualEndpoint({
      name: "template",
      template: true,
      budgetMode: BudgetMode.STRICT,
      exhaustedStatus: 403,
      lowBalanceCredits: "7",
      labels: { plan: "gold", region: "eu" },
    });
    const templateId = template!.id;
    const names = Array.from({ length: 30 }, (_, index) => `model-${index}`);
    for (const name of names)
      await api.models.createLogicalModel({
        veId: templateId,
        name,
        targets: [{ physicalModelId: pmId, weight: 3, tier: 2 }],
        deadlines: { idleMs: 77 },
      });
    expect((await failureOf(api.ves.createAccessKey({ veId: templateId }))).reason).toBe("invalid_field");
    expect((await failureOf(api.ves.adjustCredits({ veId: templateId, credits: "1", reason: "r" }))).reason).toBe(
      "invalid_field",
    );
    expect(
      (await failureOf(api.ves.createVirtualEndpoint({ name: "rich", template: true, creditBudget: "1" }))).reason,
    ).toBe("invalid_field");

    const { virtualEndpoint: child } = await api.ves.createVirtualEndpoint({
      name: "child",
      veTemplateId: templateId,
      creditBudget: "3",
      exhaustedStatus: 402,
      labels: { region: "us", user: "u1" },
    });
    expect(child).toMatchObject({
      template: false,
      veTemplateId: templateId,
      budgetMode: BudgetMode.STRICT,
      exhaustedStatus: 402,
      lowBalanceCredits: "7",
      labels: { plan: "gold", region: "us", user: "u1" },
      wallet: { creditBudget: "3", state: WalletState.LOW },
    });
    const { logicalModels } = await api.models.listLogicalModels({ veId: child!.id });
    expect(logicalModels.map(({ name }) => name)).toStrictEqual(names);
    expect(new Set(logicalModels.map(({ id }) => id)).size).toBe(30);
    for (const model of logicalModels) {
      expect(model.id).toMatch(/^lm_[a-z2-7]{26}$/);
      expect(model).toMatchObject({
        veId: child!.id,
        targets: [{ physicalModelId: pmId, weight: 3, tier: 2 }],
        deadlines: { idleMs: 77 },
      });
    }
    expect(
      (await api.ves.listVirtualEndpoints({ veTemplateId: templateId })).virtualEndpoints.map(({ id }) => id),
    ).toStrictEqual([child!.id]);
    const templates = await api.ves.listVirtualEndpoints({ template: true });
    expect(templates.virtualEndpoints.map(({ id }) => id)).toStrictEqual([templateId]);
    expect(
      (await api.ves.listVirtualEndpoints({ template: false })).virtualEndpoints.map(({ id }) => id),
    ).not.toContain(templateId);

    await api.ves.deleteVirtualEndpoint({ id: templateId });
    expect((await api.models.listLogicalModels({ veId: child!.id })).logicalModels).toHaveLength(30);
    const missing = await failureOf(api.ves.createVirtualEndpoint({ name: "late", veTemplateId: templateId }));
    expect(missing).toMatchObject({ reason: "not_found", info: { metadata: { field: "ve_template_id" } } });
  });

  test("access keys are shown once, listed by prefix, and revoked for good", async () => {
    const { virtualEndpoint: ve } = await api.ves.createVirtualEndpoint({ name: "keyed" });
    const veId = ve!.id;
    const { accessKey, secret } = await api.ves.createAccessKey({ veId, name: "laptop" });
    expect(secret).toMatch(/^tbk_[a-z2-7]{52}$/);
    expect(accessKey).toMatchObject({ veId, name: "laptop", prefix: secret.slice(0, 12) });
    const [stored] = await db.query<{ digest: Uint8Array }>("select digest from access_key where id = $1", [
      accessKey!.id,
    ]);
    expect(stored!.digest).toStrictEqual(digest(secret));
    const listed = (await api.ves.listAccessKeys({ veId })).accessKeys;
    expect(listed).toStrictEqual([accessKey]);
    const first = (await api.ves.revokeAccessKey({ id: accessKey!.id })).accessKey!;
    expect(first.revokeTime).toBeDefined();
    const revision = async (): Promise<unknown> => (await db.query("select revision from feed_state"))[0];
    const before = await revision();
    expect((await api.ves.revokeAccessKey({ id: accessKey!.id })).accessKey).toStrictEqual(first);
    expect(await revision()).toStrictEqual(before);
    expect(await db.query("select id from tombstone where id = $1", [accessKey!.id])).toHaveLength(1);
    expect((await api.ves.listAccessKeys({ veId })).accessKeys).toStrictEqual([first]);
  });

  test("deleting a VE takes its keys and Logical Models with it, and leaves its money on record", async () => {
    const { veId, lmId, keyId } = await makeCatalogue(api, "deleted");
    await api.ves.deleteVirtualEndpoint({ id: veId });
    expect((await failureOf(api.ves.getVirtualEndpoint({ id: veId }))).reason).toBe("not_found");
    expect((await failureOf(api.models.getLogicalModel({ id: lmId }))).reason).toBe("not_found");
    expect((await failureOf(api.ves.listAccessKeys({ veId }))).reason).toBe("not_found");
    const gone = await db.query("select id from tombstone where id = any($1::text[])", [[veId, lmId, keyId]]);
    expect(gone).toHaveLength(3);
    expect(await db.query("select purchased from wallet where ve_id = $1", [veId])).toStrictEqual([
      { purchased: "10.500000000000" },
    ]);
  });

  test("every change of configuration has a later revision than the one before", async () => {
    const { veId, keyId, lmId, pmId, providerId } = await makeCatalogue(api, "revisions");
    const revisions = await db.query<{ revision: bigint }>(
      `select revision from provider where id = $1 union all select revision from physical_model where id = $2
       union all select revision from virtual_endpoint where id = $3 union all select revision from logical_model where id = $4
       union all select revision from access_key where id = $5`,
      [providerId, pmId, veId, lmId, keyId],
    );
    const numbers = revisions.map(({ revision }) => revision);
    expect(numbers).toStrictEqual(numbers.toSorted((a, b) => Number(a - b)));
    expect(new Set(numbers).size).toBe(5);
  });

  test("pages are complete and stable while VEs are made and deleted", async () => {
    const merchant = await cp.makeMerchant("paging");
    const mine = clientsOf(cp, merchant.token);
    const made: string[] = [];
    for (let index = 0; index < 7; index += 1)
      made.push((await mine.ves.createVirtualEndpoint({ name: `p${index}` })).virtualEndpoint!.id);
    const first = await mine.ves.listVirtualEndpoints({ pageSize: 3 });
    await mine.ves.createVirtualEndpoint({ name: "late" });
    await mine.ves.deleteVirtualEndpoint({ id: made[1]! });
    const second = await mine.ves.listVirtualEndpoints({ pageSize: 3, pageToken: first.nextPageToken });
    const third = await mine.ves.listVirtualEndpoints({ pageSize: 3, pageToken: second.nextPageToken });
    const ids = [first, second, third].flatMap((page) => page.virtualEndpoints.map(({ id }) => id));
    expect(ids.slice(0, 7)).toStrictEqual(made);
    expect(ids).toHaveLength(8);
    expect(third.nextPageToken).toBe("");

    for (const pageToken of ["junk", `${first.nextPageToken}A`, first.nextPageToken.slice(1), "AAAA"]) {
      expect((await failureOf(mine.ves.listVirtualEndpoints({ pageToken }))).reason).toBe("bad_page_token");
    }
    expect(
      (await failureOf(mine.ves.listVirtualEndpoints({ pageToken: first.nextPageToken, template: true }))).reason,
    ).toBe("bad_page_token");
    expect((await failureOf(api.ves.listVirtualEndpoints({ pageToken: first.nextPageToken }))).reason).toBe(
      "bad_page_token",
    );
    expect((await failureOf(mine.ves.listVirtualEndpoints({ pageSize: -1 }))).reason).toBe("invalid_field");
    expect((await mine.ves.listVirtualEndpoints({ pageSize: 2_000_000 })).virtualEndpoints).toHaveLength(7);
  });
});
