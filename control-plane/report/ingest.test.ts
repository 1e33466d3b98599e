import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { create } from "@bufbuild/protobuf";
import {
  GetWalletRequestSchema,
  type ReportUsageResponse,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { AttemptKind, AttemptResult, Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { GetRequestRequestSchema } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { usageReportService } from "../api/usage_report_service.ts";
import { usageService } from "../api/usage_service.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { available, type WalletRow } from "../domain/wallet.ts";
import { adjustWallet, readWallet } from "../store/wallet.ts";
import {
  addBasics,
  addMerchant,
  addPm,
  addProvider,
  addVe,
  callContext,
  encode,
  NO_HINTS,
  NODE,
  OF_MERCHANT,
  PLAIN_PRICE,
  record,
  reporter,
  T0,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

const APPLIED = 1;
const DUPLICATE = 2;
const GAP = 3;

describe.each(openTestDatabases())("usage reports on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let price: Price;
  let count = 0;

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    price = await addBasics(db);
  });
  afterAll(async () => {
    expect(await audit(db, { deep: true })).toEqual([]);
    await db.close();
  });

  async function newVe(credits: string, low = "0"): Promise<string> {
    const id = `ve_${(count += 1)}`;
    await addVe(world, id, { credits, low });
    return id;
  }
  const newNode = () => new TestNode(reporter(world.deps), `boot_${(count += 1)}`);
  const leaseOf = (answer: ReportUsageResponse, veId: string) => answer.leases.find((lease) => lease.veId === veId)!;

  async function figures(veId: string): Promise<Record<string, string>> {
    const row: WalletRow = (await readWallet(db, veId))!;
    return {
      settled: formatCredits(row.settled),
      escrowed: formatCredits(row.escrowed),
      debt: formatCredits(row.debt),
      available: formatCredits(available(row)),
    };
  }

  it("grants, settles from the lease, and releases", async () => {
    const ve = await newVe("100");
    const node = newNode();
    const first = await node.send([], [{ veId: ve, want: "10" }]);
    expect(first.status).toBe(APPLIED);
    expect(leaseOf(first, ve)).toMatchObject({ granted: "10", ttlMs: 60_000n, state: 1, creditRemaining: "100" });
    expect(await figures(ve)).toEqual({ settled: "0", escrowed: "10", debt: "0", available: "90" });

    const second = await node.send([encode(record(1n, ve, 3000, price)), encode(record(2n, ve, 500, price))]);
    expect(second).toMatchObject({ status: APPLIED, lastSeq: 2n, lastRecordNo: 2n });
    expect(leaseOf(second, ve)).toMatchObject({ granted: "6.5", creditRemaining: "96.5" });

    const third = await node.send([], [{ veId: ve, release: "4" }]);
    expect(leaseOf(third, ve).granted).toBe("2.5");
    expect(await figures(ve)).toEqual({ settled: "3.5", escrowed: "2.5", debt: "0", available: "94" });
    const transfers = await db.query<{ reference: string; credits: string }>(
      "select reference, credits from transfer where ve_id = $1 and credit_account = 'usage'",
      [ve],
    );
    expect(transfers).toEqual([{ reference: `use:${node.boot}:2:${ve}`, credits: "3.500000000000" }]);
  });

  it("takes a wallet for ample when it is for all nodes that share it, and those alone", async () => {
    const ve = await newVe("1500");
    const [one, two] = [newNode(), newNode()];
    const burning = [{ veId: ve, want: "1", burn: "1" }];
    // The other nodes of these tests are live as well, but spend from other wallets.
    expect(leaseOf(await one.send([], burning), ve)).toMatchObject({ granted: "90", ttlMs: 900_000n });
    expect(leaseOf(await two.send([], burning), ve)).toMatchObject({ granted: "1", ttlMs: 60_000n });
    expect(leaseOf(await one.send([], burning), ve).ttlMs).toBe(60_000n);
  });

  it("bills the call of a hedged request that was overtaken like any other", async () => {
    const ve = await newVe("100");
    const node = newNode();
    const served = record(1n, ve, 1000, price);
    const lost = record(2n, ve, 250, price, {
      outcome: Outcome.HEDGE_LOST,
      httpStatus: 200,
      hedgeOf: served.id!,
      attempts: [
        {
          physicalModelId: "pm_a",
          result: AttemptResult.HEDGE_LOST,
          httpStatus: 200,
          durationUs: 900n,
          kind: AttemptKind.HEDGE,
          firstByteUs: 400n,
          firstContentUs: 800n,
          detail: "overtaken",
          credits: "0.25",
        },
      ],
    });
    const answer = await node.send([encode(served), encode(lost)]);
    expect(answer).toMatchObject({ status: APPLIED, lastRecordNo: 2n });
    expect((await figures(ve))["settled"]).toBe("1.25");
    expect(await db.query("select 1 from usage_quarantine where boot_id = $1", [node.boot])).toEqual([]);
    const [day] = await db.query<{ requests: bigint; credits: string }>(
      "select requests, credits from usage_daily where ve_id = $1",
      [ve],
    );
    expect(day).toEqual({ requests: 2n, credits: "1.250000000000" });
    const service = usageService(world.deps);
    const request = create(GetRequestRequestSchema, { id: lost.id! });
    expect(await service.getRequest(request, callContext(OF_MERCHANT))).toMatchObject({
      request: {
        outcome: Outcome.HEDGE_LOST,
        hedgeOf: served.id,
        credits: "0.25",
        attempts: [
          { kind: AttemptKind.HEDGE, firstByteUs: 400n, firstContentUs: 800n, detail: "overtaken", credits: "0.25" },
        ],
      },
    });
  });

  it("takes boots by whatever name", async () => {
    const [one, two] = [await newVe("100"), await newVe("100")];
    const node = new TestNode(reporter(world.deps), 'boot\n1\n,{}"\\');
    const asks = [one, two].map((veId) => ({ veId, want: "10" }));
    await node.send([encode(record(1n, one, 1000, price)), encode(record(2n, two, 2000, price))], asks);
    const again = await node.send([encode(record(3n, two, 3000, price))], [{ veId: one, release: "4" }]);
    expect([one, two].map((ve) => leaseOf(again, ve).granted)).toEqual(["6", "7"]);
    const leases = await db.query("select ve_id, boot_id, credits from lease where boot_id = $1 order by ve_id", [
      node.boot,
    ]);
    expect(leases).toEqual(
      [one, two].toSorted().map((ve) => ({
        ve_id: ve,
        boot_id: node.boot,
        credits: ve === one ? "6.000000000000" : "7.000000000000",
      })),
    );
    await node.send([], [], true);
  });

  it("applies a report once, however often and in whatever order it comes", async () => {
    const ve = await newVe("100");
    const node = newNode();
    const reports = [1n, 2n, 3n, 4n].map((no) =>
      node.cut([encode(record(no, ve, 1000, price))], [{ veId: ve, want: "5" }]),
    );
    expect(await node.again(reports[2]!)).toMatchObject({ status: GAP, lastSeq: 0n, lastRecordNo: 0n });
    const seen: number[] = [];
    for (const at of [0, 0, 2, 1, 0, 1, 3, 2, 2, 1, 3, 0, 3, 3]) seen.push((await node.again(reports[at]!)).status);
    expect(seen.filter((status) => status === APPLIED)).toHaveLength(4);
    expect(seen.filter((status) => status === GAP)).toHaveLength(2);
    const [events] = await db.query<{ count: bigint }>("select count(*) as count from usage_event where ve_id = $1", [
      ve,
    ]);
    expect(events!.count).toBe(4n);
    expect((await figures(ve))["settled"]).toBe("4");
  });

  it("stores empty ids, names with line breaks and every record's own bytes", async () => {
    const ve = await newVe("100");
    const node = newNode();
    const names = ["a\nb", "", '{"c,\\', "a\nb"];
    const bodies = names.map((logicalModel, i) =>
      encode(record(BigInt(i + 2), ve, 1000 + i, price, { logicalModel, accessKeyId: i === 1 ? `key_${ve}` : "" })),
    );
    await node.send([encode(record(1n, ve, 1000, price, { logicalModel: "", accessKeyId: "" }))]);
    expect((await node.send(bodies)).status).toBe(APPLIED);
    const rows = await db.query<{ logical_model: string; access_key_id: string; body: Uint8Array }>(
      "select logical_model, access_key_id, body from usage_event where ve_id = $1 and record_no > 1 order by record_no",
      [ve],
    );
    expect(rows.map((row) => row.logical_model)).toEqual(names);
    expect(rows.map((row) => row.access_key_id)).toEqual(["", `key_${ve}`, "", ""]);
    expect(rows.map((row) => Buffer.from(row.body))).toEqual(bodies.map((body) => Buffer.from(body)));
    const [day] = await db.query<{ requests: bigint }>(
      "select requests from usage_daily where ve_id = $1 and logical_model = $2",
      [ve, "a\nb"],
    );
    expect(day!.requests).toBe(2n);
  });

  it("answers a repeated report with the present lease and grants nothing", async () => {
    const ve = await newVe("100");
    const node = newNode();
    const init = node.cut([], [{ veId: ve, want: "8" }]);
    const lost = await node.again(init);
    const again = await node.again(init);
    expect(again).toMatchObject({ status: DUPLICATE, lastSeq: 1n });
    expect(leaseOf(again, ve).granted).toBe(leaseOf(lost, ve).granted);
    expect((await figures(ve))["escrowed"]).toBe("8");
  });

  it("refuses a gap in the records, and tells where to go on", async () => {
    const ve = await newVe("10");
    const node = newNode();
    await node.send([encode(record(1n, ve, 1, price))]);
    node.recordNo = 5n;
    const answer = await node.send([encode(record(6n, ve, 1, price))]);
    expect(answer).toMatchObject({ status: GAP, lastSeq: 1n, lastRecordNo: 1n, leases: [] });
    expect((await figures(ve))["settled"]).toBe("0.001");
  });

  it("tells the cursor of a boot for seq 0, without making one", async () => {
    const ve = await newVe("10");
    const node = newNode();
    const ask = { nodeId: `node_${node.boot}`, bootId: node.boot, seq: 0n };
    expect(await node.again(ask)).toMatchObject({ lastSeq: 0n, lastRecordNo: 0n });
    await node.send([encode(record(1n, ve, 1, price))]);
    expect(await node.again(ask)).toMatchObject({ lastSeq: 1n, lastRecordNo: 1n });
  });

  it("refuses a boot under another node's name", async () => {
    const node = newNode();
    const init = node.cut([]);
    await node.again(init);
    await expect(node.again({ ...init, nodeId: "other" })).rejects.toMatchObject({ code: "invalid_field" });
  });

  it("posts spend that nothing covers as debt, which later Credits repay", async () => {
    const ve = await newVe("1");
    const node = newNode();
    const answer = await node.send([encode(record(1n, ve, 3500, price))]);
    expect(leaseOf(answer, ve)).toMatchObject({ granted: "0", state: 3, creditRemaining: "0" });
    expect(await figures(ve)).toEqual({ settled: "3.5", escrowed: "0", debt: "2.5", available: "0" });
    const adjust = (credits: string) =>
      db.tx((tx) =>
        adjustWallet(tx, {
          veId: ve,
          merchantId: "mer_a",
          credits: parseCredits(credits),
          reason: "top-up",
          transferId: world.deps.newId("tr_"),
          now: T0,
        }),
      );
    await adjust("1");
    expect(await figures(ve)).toEqual({ settled: "3.5", escrowed: "0", debt: "1.5", available: "0" });
    await adjust("5");
    expect(await figures(ve)).toEqual({ settled: "3.5", escrowed: "0", debt: "0", available: "3.5" });
    await expect(adjust("-3.500000000001")).rejects.toMatchObject({ code: "insufficient_credits" });
    await adjust("-3.5");
    expect((await figures(ve))["available"]).toBe("0");
  });

  it("repays debt from a lease that comes back, so that the cap stays hard", async () => {
    const ve = await newVe("10");
    const [holder, spender] = [newNode(), newNode()];
    await holder.send([], [{ veId: ve, need: "8" }]);
    await spender.send([encode(record(1n, ve, 5000, price))]);
    expect(await figures(ve)).toEqual({ settled: "5", escrowed: "8", debt: "3", available: "0" });
    await holder.send([], [{ veId: ve, release: "8" }]);
    expect(await figures(ve)).toEqual({ settled: "5", escrowed: "0", debt: "0", available: "5" });
  });

  it("shares a wallet among nodes, and grants the last request's need", async () => {
    const ve = await newVe("100");
    const [one, two] = [newNode(), newNode()];
    expect(leaseOf(await one.send([], [{ veId: ve, want: "90" }]), ve).granted).toBe("50");
    expect(leaseOf(await two.send([], [{ veId: ve, want: "90" }]), ve).granted).toBe("12.5");
    expect(leaseOf(await two.send([], [{ veId: ve, need: "30" }]), ve).granted).toBe("42.5");
  });

  it("grants long leases from an ample wallet", async () => {
    const ve = await newVe("100000");
    const node = newNode();
    const answer = await node.send([], [{ veId: ve, want: "10" }]);
    expect(leaseOf(answer, ve)).toMatchObject({ granted: "900", ttlMs: 900_000n });
  });

  it("gives all leases back with the last report, and still takes records after it", async () => {
    const [a, b] = [await newVe("100"), await newVe("100")];
    const node = newNode();
    await node.send(
      [],
      [
        { veId: a, want: "5" },
        { veId: b, want: "5" },
      ],
    );
    const last = await node.send([encode(record(1n, a, 1000, price))], [], true);
    expect(last.status).toBe(APPLIED);
    expect(await figures(a)).toEqual({ settled: "1", escrowed: "0", debt: "0", available: "99" });
    expect((await figures(b))["escrowed"]).toBe("0");
    const late = await node.send([encode(record(2n, a, 1000, price))], [{ veId: a, want: "5" }]);
    expect(leaseOf(late, a).granted).toBe("0");
    expect((await figures(a))["settled"]).toBe("2");
  });

  it("bills its own figure when the node's differs, and raises an alarm", async () => {
    const ve = await newVe("100");
    const node = newNode();
    await node.send([
      encode(record(1n, ve, 1000, price, { credits: "0.5" })),
      encode(record(2n, ve, 1000, price, { credits: "nonsense" })),
    ]);
    expect((await figures(ve))["settled"]).toBe("2");
    const alarms = await db.query<{ kind: string; detail: { records: number } }>(
      "select kind, detail from alarm where subject = $1",
      [`${node.boot}:1`],
    );
    expect(alarms).toMatchObject([{ kind: "price_mismatch", detail: { records: 2 } }]);
  });

  it("keeps records that it cannot bill, and goes on", async () => {
    const ve = await newVe("100");
    await addMerchant(db, `mer_other`);
    await addProvider(db, "prov_other", "mer_other");
    const foreign = await addPm(db, "pm_other", "prov_other", PLAIN_PRICE, "mer_other");
    const node = newNode();
    const bad: [string, Uint8Array][] = [
      ["undecodable", new Uint8Array([255, 255, 255])],
      ["unknown_ve", encode(record(2n, "ve_nowhere", 1, price))],
      ["unknown_price", encode(record(3n, ve, 1, price, { priceId: "price_x" }))],
      ["unknown_price", encode(record(4n, ve, 1, foreign))],
      ["record_no", encode(record(9n, ve, 1, price))],
      ["bad_units", encode(record(6n, ve, 1, price, { units: [{ meter: 4, quantity: -5n, source: 1 }] }))],
      [
        "bad_units",
        encode(record(7n, ve, 1, price, { units: [{ meter: 4, quantity: 9_000_000_000_000_000_000n, source: 1 }] })),
      ],
      ["bad_id", encode(record(8n, ve, 1, price, { accessKeyId: "a\0b" }))],
      ["unknown_ve", encode(record(9n, "ve\0", 1, price)).slice(0)],
      ["bad_time", encode(record(10n, ve, 1, price, { arriveUnixUs: 9_000_000_000_000_000_000n }))],
      ["too_large", encode(record(11n, ve, 1, price, { errorCode: "x".repeat(70_000) }))],
    ];
    bad[8]![0] = "bad_id";
    const good = encode(record(12n, ve, 1000, price, { logicalModel: "nul \0 and \u{1f600}".padEnd(400, "y") }));
    const answer = await node.send([...bad.map(([, body]) => body), good]);
    expect(answer).toMatchObject({ status: APPLIED, lastRecordNo: 12n });
    const kept = await db.query<{ record_no: bigint; reason: string; body: Uint8Array }>(
      "select record_no, reason, body from usage_quarantine where boot_id = $1 order by record_no",
      [node.boot],
    );
    expect(kept.map((row) => row.reason)).toEqual(bad.map(([reason]) => reason));
    expect(kept.map((row) => row.body)).toEqual(bad.map(([, body]) => body));
    expect((await figures(ve))["settled"]).toBe("1");
    expect(await node.send([])).toMatchObject({ status: APPLIED });
  });

  it("notes when a key was last used, at most once a minute, and only for its own VE", async () => {
    const [ve, other] = [await newVe("100"), await newVe("100")];
    const node = newNode();
    const lastUse = async (id: string) =>
      (await db.query<{ last_used_at: Date | null }>("select last_used_at from access_key where id = $1", [id]))[0]!
        .last_used_at;
    const at = (s: number) => BigInt(T0 + s * 1000) * 1000n;
    await node.send([
      encode(record(1n, ve, 1, price, { arriveUnixUs: at(0) })),
      encode(record(2n, ve, 1, price, { accessKeyId: `key_${other}` })),
    ]);
    expect(await lastUse(`key_${ve}`)).toEqual(new Date(T0));
    expect(await lastUse(`key_${other}`)).toBeNull();
    await node.send([encode(record(3n, ve, 1, price, { arriveUnixUs: at(59) }))]);
    expect(await lastUse(`key_${ve}`)).toEqual(new Date(T0));
    await node.send([encode(record(4n, ve, 1, price, { arriveUnixUs: at(61) }))]);
    expect(await lastUse(`key_${ve}`)).toEqual(new Date(T0 + 61_000));
  });

  it("says LOW and EXHAUSTED, and answers unknown VEs as exhausted", async () => {
    const ve = await newVe("10", "20");
    const node = newNode();
    const answer = await node.send(
      [],
      [
        { veId: ve, want: "1" },
        { veId: "ve_unknown", need: "1" },
      ],
    );
    expect(leaseOf(answer, ve).state).toBe(2);
    expect(leaseOf(answer, "ve_unknown")).toMatchObject({ granted: "0", state: 3, creditRemaining: "0" });
  });

  it("shows a wallet to nodes", async () => {
    const ve = await newVe("10", "9");
    await newNode().send([encode(record(1n, ve, 2000, price))], [{ veId: ve, want: "1" }]);
    const service = usageReportService(world.deps, NO_HINTS);
    const get = (veId: string, who = NODE) =>
      service.getWallet(create(GetWalletRequestSchema, { veId }), callContext(who));
    expect(await get(ve)).toEqual({
      wallet: { creditBudget: "10", creditRemaining: "8", settled: "2", escrowed: "1", debt: "0", state: 2 },
    });
    await expect(get("ve_none")).rejects.toMatchObject({ code: "not_found" });
    await expect(get(ve, OF_MERCHANT)).rejects.toMatchObject({ code: "wrong_scope" });
  });

  it.each(["disabled", "frozen"])("grants nothing to a %s VE, but bills it", async (column) => {
    const ve = await newVe("10");
    await db.query(`update virtual_endpoint set ${column} = true where id = $1`, [ve]);
    const answer = await newNode().send([encode(record(1n, ve, 1000, price))], [{ veId: ve, need: "1" }]);
    expect(leaseOf(answer, ve)).toMatchObject({ granted: "0", creditRemaining: "9" });
  });

  it("refuses to change the ledger", async () => {
    await expect(db.query("update transfer set credits = 1")).rejects.toThrow(/append-only/);
    await expect(db.query("delete from transfer")).rejects.toThrow(/append-only/);
    await expect(db.query("truncate transfer")).rejects.toThrow(/append-only/);
  });
});
