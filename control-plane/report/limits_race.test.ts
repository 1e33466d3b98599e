/** Everything that locks limits, wallets, VEs and merchants, all at once: nothing waits for ever, and the sums are right. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { UpdateMerchantRequestSchema } from "../../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { Period, type Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import {
  GetPhysicalModelRequestSchema,
  UpdatePhysicalModelRequestSchema,
} from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import {
  AdjustCreditsRequestSchema,
  CreateVirtualEndpointRequestSchema,
  UpdateVirtualEndpointRequestSchema,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { merchantService } from "../api/merchant_service.ts";
import { physicalModelCalls } from "../api/physical_model_calls.ts";
import { virtualEndpointService } from "../api/virtual_endpoint_service.ts";
import { audit } from "../audit.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { DomainError } from "../domain/errors.ts";
import { beginPeriods } from "../period_jobs.ts";
import { readLimits } from "../store/limit.ts";
import {
  addMerchant,
  addPm,
  addProvider,
  addVe,
  callContext,
  encode,
  NO_HINTS,
  OF_MERCHANT,
  PLAIN_PRICE,
  record,
  type Reporter,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "./testing.ts";

const ROUNDS = 25;
const MODELS = ["pm_1", "pm_2", "pm_3"];
const VES = ["ve_1", "ve_2", "ve_3"];

describe.each(openTestDatabases())("limits and periods under load on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  const prices: Price[] = [];

  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addMerchant(db);
    await addProvider(db, "prov_a");
    for (const id of MODELS) prices.push(await addPm(db, id, "prov_a", PLAIN_PRICE));
    for (const id of VES) await addVe(world, id, { credits: "1000" });
  });
  afterAll(() => db.close());

  /** Like `fn`, but a wallet that has too little is an answer, too. */
  async function tolerant(fn: () => unknown): Promise<void> {
    try {
      await fn();
    } catch (error) {
      if (!(error instanceof DomainError && error.code === "insufficient_credits")) throw error;
    }
  }

  const context = callContext(OF_MERCHANT);

  function worker(at: number, replica: Reporter): () => Promise<void> {
    const node = new TestNode(replica, `boot_${at}`);
    return async () => {
      // Each in an order of its own, which the control plane must put right.
      const order = at % 2 === 0 ? [0, 1, 2] : [2, 1, 0];
      const records = order.map((n) => {
        const no = node.recordNo + 1n + BigInt(order.indexOf(n));
        const arriveUnixUs = BigInt(world.deps.now()) * 1000n;
        return encode(record(no, VES[n]!, 10, prices[n]!, { id: `usg_${at}_${no}`, arriveUnixUs }));
      });
      const init = node.cut(
        records,
        order.map((n) => ({ veId: VES[n]!, want: "1" })),
      );
      const limits = order.flatMap((n) => [1, 2].map((kind) => ({ physicalModelId: MODELS[n]!, kind, want: "5" })));
      await node.again({ ...init, limits } as typeof init);
    };
  }

  /** Each report has 10 tokens of each model, which cost a thousandth of a Credit each. */
  async function checkSums(reports: number): Promise<void> {
    const accounts = await readLimits(db, MODELS);
    expect(accounts).toHaveLength(6);
    for (const { physicalModelId, kind, used, leased } of accounts) {
      const tokens = BigInt(reports) * 10n;
      expect(used).toBe(kind === 1 ? tokens * 10n ** 12n : tokens * 10n ** 9n);
      const [leases] = await db.query<{ sum: string }>(
        "select (sum(amount) * 1000000000000)::numeric(38, 0)::text as sum from limit_lease where physical_model_id = $1 and kind = $2",
        [physicalModelId, kind],
      );
      expect(BigInt(leases!.sum)).toBe(leased);
    }
  }

  it("has no deadlocks and counts every record once", async () => {
    const merchants = merchantService(world.deps);
    const models = physicalModelCalls(world.deps);
    const ves = virtualEndpointService(world.deps, NO_HINTS);
    const setLimits = (id: string, round: number) => {
      const init: MessageInitShape<typeof UpdatePhysicalModelRequestSchema> = {
        id,
        unitLimit: { unit: UnitKind.TOKENS, quantity: BigInt(100_000 + round), resetPeriod: Period.MONTHLY },
        creditLimit: { credits: String(1000 + round) },
      };
      return models.updatePhysicalModel(create(UpdatePhysicalModelRequestSchema, init), context);
    };
    for (const id of MODELS) await setLimits(id, 0);
    const replicas = [reporter(world.deps), reporter(world.deps)];
    const budgetReset = { credits: "1000", resetPeriod: Period.DAILY };
    const jobs: ((round: number) => Promise<unknown>)[] = [
      // Two nodes at each of two replicas, which may take their reports together.
      ...[0, 1, 2, 3].map((at) => worker(at, replicas[at % 2]!)),
      async (round) => setLimits(MODELS[round % 3]!, round),
      async (round) => setLimits(MODELS[2 - (round % 3)]!, round),
      async (round) =>
        merchants.updateMerchant(
          create(UpdateMerchantRequestSchema, { timeZone: round % 2 === 0 ? "Asia/Tokyo" : "UTC" }),
          context,
        ),
      async () => beginPeriods(world.deps),
      async (round) => {
        if (round % 5 === 0) world.advance(3_600_000);
        return ves.updateVirtualEndpoint(
          create(UpdateVirtualEndpointRequestSchema, { id: VES[round % 3]!, budgetReset }),
          context,
        );
      },
      async (round) =>
        ves.createVirtualEndpoint(
          create(CreateVirtualEndpointRequestSchema, { name: `new ${round}`, budgetReset }),
          context,
        ),
      (round) =>
        tolerant(() =>
          ves.adjustCredits(
            create(AdjustCreditsRequestSchema, {
              veId: VES[round % 3]!,
              credits: round % 2 === 0 ? "5" : "-3",
              reason: "r",
            }),
            context,
          ),
        ),
      async (round) =>
        models.getPhysicalModel(create(GetPhysicalModelRequestSchema, { id: MODELS[round % 3]! }), context),
    ];
    await Promise.all(
      jobs.map(async (job) => {
        for (let round = 0; round < ROUNDS; round += 1) await job(round);
      }),
    );
    await checkSums(4 * ROUNDS);
    expect(await audit(db, { deep: true })).toEqual([]);
  }, 60_000);

  it("reports that are taken together count as if they came one after the other", async () => {
    let transactions = 0;
    const counted: Database = {
      dialect: db.dialect,
      tx: (fn) => {
        transactions += 1;
        return db.tx(fn);
      },
      snapshot: (fn) => db.snapshot(fn),
      query: (text, params) => db.query(text, params),
      script: (tx, text) => db.script(tx, text),
      listen: (...args) => db.listen(...args),
      close: () => db.close(),
    };
    const replica = reporter({ ...world.deps, db: counted });
    const send = Array.from({ length: 8 }, (_, at) => worker(10 + at, replica));
    // A boot's first report goes alone.
    await Promise.all(send.map((one) => one()));
    transactions = 0;
    await Promise.all(send.map((one) => one()));
    expect(transactions).toBeLessThan(send.length);
    await checkSums(4 * ROUNDS + 2 * send.length);
    expect(await audit(db, { deep: true })).toEqual([]);
  });
});
