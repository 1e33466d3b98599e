/** A small world for tests of money and feed: one merchant, one priced Physical Model, and nodes that report. */

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { createContextValues, type HandlerContext } from "@connectrpc/connect";
import { pino } from "pino";
import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import { priceUsage } from "../../core/pricing.ts";
import { Meter, UnitSource } from "../../core/meters.ts";
import {
  ReportUsageRequestSchema,
  type ReportUsageResponse,
  ReportUsageResponseSchema,
  UsageRecordSchema,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { PriceSchema, type Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { type Deps, type Principal, principalKey } from "../api/context.ts";
import { usageReportService } from "../api/usage_report_service.ts";
import type { Database } from "../db/database.ts";
import { createSecrets } from "../secrets.ts";
import { parseSettings } from "../settings.ts";
import { SERVICE_TICK_MAX_MS } from "../domain/service_clock.ts";
import { nextRevision } from "../store/feed_state.ts";
import { tickServiceClock } from "../store/service_clock.ts";
import { createWallet } from "../store/wallet.ts";
import { decodePrice } from "./decode.ts";
import type { CreditHints } from "../credit_recall.ts";

export const T0 = Date.UTC(2026, 10, 23, 12, 0, 0);
export const MERCHANT = "mer_a";

export interface TestWorld {
  readonly deps: Deps;
  /** Moves the clock. */
  advance(ms: number): void;
}

/** Deps with a clock that stands still, and ids that count. */
export function testWorld(db: Database): TestWorld {
  let now = T0;
  let count = 0;
  const deps: Deps = {
    db,
    now: () => now,
    newId: (prefix) => `${prefix}${String((count += 1)).padStart(6, "0")}`,
    secrets: createSecrets(new Uint8Array(32).fill(7)),
    settings: { ...parseSettings({}), publicUrl: "http://pay.test" },
    log: pino({ level: "silent" }),
  };
  return {
    deps,
    advance(ms) {
      now += ms;
    },
  };
}

/** Lets service time pass, as the sweeps of a replica at work do, but takes nothing back. Moves the clock as well. */
export async function passServiceTime({ deps, advance }: TestWorld, ms: number): Promise<void> {
  await deps.db.query("update service_clock set ticked_at = $1", [new Date(deps.now())]);
  for (let left = ms; left > 0; left -= SERVICE_TICK_MAX_MS) {
    advance(Math.min(left, SERVICE_TICK_MAX_MS));
    await tickServiceClock(deps.db, deps.now());
  }
}

export function callContext(who: Principal, signal: AbortSignal = new AbortController().signal): HandlerContext {
  const values = createContextValues().set(principalKey, who);
  return { values, signal } as unknown as HandlerContext;
}

export const NODE: Principal = { kind: "node" };
export const OF_MERCHANT: Principal = { kind: "merchant", merchantId: MERCHANT, tokenId: "tok_a" };

export async function addMerchant(db: Database, id = MERCHANT): Promise<void> {
  await db.query("insert into merchant (id, name, created_at, updated_at) values ($1, $1, now(), now())", [id]);
}

export async function addProvider(
  db: Database,
  id: string,
  merchantId = MERCHANT,
  credentials: Uint8Array | null = null,
): Promise<void> {
  await db.tx(async (tx) => {
    const revision = await nextRevision(tx);
    await tx.query(
      `insert into provider (id, merchant_id, name, format, base_url, credentials, on_disconnect, headers, region, api_version, revision, created_at, updated_at)
       values ($1, $2, $1, 1, 'http://up.test/v1', $3, 1, '{"x-a":"b"}', '', '', $4, now(), now())`,
      [id, merchantId, credentials, revision],
    );
  });
}

export type PriceKind = NonNullable<MessageInitShape<typeof PriceSchema>["kind"]>;

/** A Physical Model and its price `price_<id>`. */
export async function addPm(
  db: Database,
  id: string,
  providerId: string,
  kind: PriceKind,
  merchantId = MERCHANT,
): Promise<Price> {
  const price = create(PriceSchema, { id: `price_${id}`, physicalModelId: id, kind });
  await db.tx(async (tx) => {
    const revision = await nextRevision(tx);
    await tx.query(
      "insert into price (id, merchant_id, physical_model_id, body, created_at) values ($1, $2, $3, $4, now())",
      [price.id, merchantId, id, toBinary(PriceSchema, price)],
    );
    await tx.query(
      `insert into physical_model (id, merchant_id, provider_id, name, upstream_name, price_id, max_output_tokens, revision, created_at, updated_at)
       values ($1, $2, $3, $1, 'up-1', $4, 4096, $5, now(), now())`,
      [id, merchantId, providerId, price.id, revision],
    );
  });
  return price;
}

export interface NewVe {
  readonly credits?: string;
  readonly low?: string;
  readonly template?: boolean;
  readonly merchantId?: string;
}

/** A VE with a wallet and the key `key_<id>`. */
export async function addVe(
  world: TestWorld,
  id: string,
  { credits = "0", low = "0", template = false, merchantId = MERCHANT }: NewVe = {},
): Promise<void> {
  const { db } = world.deps;
  await db.tx(async (tx) => {
    await createWallet(tx, {
      veId: id,
      merchantId,
      initial: parseCredits(credits),
      transferId: world.deps.newId("tr_"),
      now: world.deps.now(),
    });
    const revision = await nextRevision(tx);
    await tx.query(
      `insert into virtual_endpoint (id, merchant_id, name, template, budget_mode, exhausted_status, low_balance, offline_grace, labels, revision, created_at, updated_at)
       values ($1, $2, $1, $3, 1, 429, $4, 0, '{}', $5, now(), now())`,
      [id, merchantId, template, low, revision],
    );
    await tx.query(
      `insert into access_key (id, merchant_id, ve_id, name, prefix, digest, revision, created_at, updated_at)
       values ($1, $2, $3, 'k', 'tbk_abcd', sha256($4::bytea), $5, now(), now())`,
      [`key_${id}`, merchantId, id, new TextEncoder().encode(id), revision],
    );
  });
}

export async function addLm(
  db: Database,
  id: string,
  veId: string,
  pmId: string,
  merchantId = MERCHANT,
): Promise<void> {
  await db.tx(async (tx) => {
    const revision = await nextRevision(tx);
    await tx.query(
      `insert into logical_model (id, merchant_id, ve_id, name, targets, pm_ids, deadlines, revision, created_at, updated_at)
       values ($1, $2, $3, $1, $4::jsonb, $5, '{"connect_ms":0,"first_byte_ms":5,"idle_ms":0,"total_ms":0}', $6, now(), now())`,
      [id, merchantId, veId, JSON.stringify([{ pm: pmId, tier: 0, weight: 1 }]), [pmId], revision],
    );
  });
}

/** 1 Credit per 1,000 tokens. */
export const PLAIN_PRICE: PriceKind = { case: "simple", value: { creditPerUnit: "1", unit: 1, perUnits: 1000n } };

/** A merchant with `prov_a`, and `pm_a` at PLAIN_PRICE. */
export async function addBasics(db: Database): Promise<Price> {
  await addMerchant(db);
  await addProvider(db, "prov_a");
  return addPm(db, "pm_a", "prov_a", PLAIN_PRICE);
}

type RecordInit = MessageInitShape<typeof UsageRecordSchema>;

/** A record of `tokens` output tokens at `price`, with the node's figure computed as a node does. */
export function record(
  recordNo: bigint,
  veId: string,
  tokens: number,
  price: Price,
  more: RecordInit = {},
): RecordInit {
  const units = [{ meter: Meter.OUTPUT_TOKENS, quantity: tokens, source: UnitSource.REPORTED }];
  const credits = priceUsage(decodePrice(price.id, toBinary(PriceSchema, price)), units);
  return {
    recordNo,
    id: `usg_${veId}_${recordNo}`,
    veId,
    accessKeyId: `key_${veId}`,
    logicalModelId: "lm_a",
    logicalModel: "gpt",
    endpoint: 1,
    physicalModelId: price.physicalModelId,
    priceId: price.id,
    units: units.map((unit) => ({ ...unit, quantity: BigInt(unit.quantity) })),
    credits: formatCredits(credits),
    outcome: 1,
    httpStatus: 200,
    attempts: [
      { physicalModelId: price.physicalModelId, tier: 0, result: 1, httpStatus: 200, startUs: 5n, durationUs: 900n },
    ],
    arriveUnixUs: BigInt(T0) * 1000n + recordNo,
    firstByteUs: 10n,
    firstContentUs: 11n,
    durationUs: 1000n,
    upstreamRequestId: "up_1",
    ...more,
  };
}

export function encode(init: RecordInit): Uint8Array {
  return toBinary(UsageRecordSchema, create(UsageRecordSchema, init));
}

export type ReportInit = MessageInitShape<typeof ReportUsageRequestSchema>;
export type Reporter = (init: ReportInit) => Promise<ReportUsageResponse>;

/** Nobody gives anything back. */
export const NO_HINTS: CreditHints = { onCredits: () => () => {} };

/** Calls ReportUsage as a node does; each call has its own service, as after a restart of the control plane. */
export function reporter(deps: Deps, hints: CreditHints = NO_HINTS): Reporter {
  const service = usageReportService(deps, hints);
  return async (init) => {
    const response = await service.reportUsage(create(ReportUsageRequestSchema, init), callContext(NODE));
    return create(ReportUsageResponseSchema, response as MessageInitShape<typeof ReportUsageResponseSchema>);
  };
}

/** A node that cuts reports one after the other, as `boot`. */
export class TestNode {
  seq = 0n;
  recordNo = 0n;
  readonly boot: string;
  readonly #report: Reporter;
  constructor(report: Reporter, boot: string) {
    this.#report = report;
    this.boot = boot;
  }

  /** The next report; `records` get their numbers from `recordNo`. */
  cut(records: readonly Uint8Array[], leases: ReportInit["leases"] = [], final = false): ReportInit {
    this.seq += 1n;
    const firstRecordNo = records.length === 0 ? 0n : this.recordNo + 1n;
    this.recordNo += BigInt(records.length);
    return {
      nodeId: `node_${this.boot}`,
      bootId: this.boot,
      seq: this.seq,
      firstRecordNo,
      records: [...records],
      leases,
      final,
    };
  }

  send(records: readonly Uint8Array[], leases: ReportInit["leases"] = [], final = false): Promise<ReportUsageResponse> {
    return this.#report(this.cut(records, leases, final));
  }

  again(init: ReportInit): Promise<ReportUsageResponse> {
    return this.#report(init);
  }
}

export function sumOf(values: readonly Credits[]): Credits {
  return values.reduce((sum, value) => sum + value, 0n);
}
