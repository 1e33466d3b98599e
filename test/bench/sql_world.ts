/** Many VEs of one merchant, put into PostgreSQL by a few statements instead of a million calls. */

import { create, toBinary } from "@bufbuild/protobuf";
import type { Database } from "../../control-plane/db/database.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { PriceSchema, ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";

export const PHYSICAL_MODELS = 10;
/** Credits per 1,000 tokens of every Physical Model. */
export const CREDITS_PER_1000 = "0.05";

export interface SqlWorld {
  readonly merchantId: string;
  readonly pmIds: readonly string[];
  readonly priceIds: readonly string[];
  veId(n: number): string;
  keyId(n: number): string;
  lmId(ve: number, lm: number): string;
  lmName(lm: number): string;
}

/** 26 letters that are valid in an id and grow with `n`: hexadecimal with its four digits that base32 lacks replaced. */
export function idText(n: number): string {
  return n
    .toString(16)
    .padStart(26, "0")
    .replace(/[0189]/g, (digit) => ({ "0": "w", "1": "x", "8": "y", "9": "z" })[digit]!);
}

/** The same in SQL. */
function idSql(expression: string): string {
  return `translate(lpad(to_hex(${expression}), 26, '0'), '0189', 'wxyz')`;
}

async function insertModels(db: Database, world: SqlWorld, revision: bigint): Promise<void> {
  const { merchantId, pmIds, priceIds } = world;
  const providerId = `prov_${idText(1)}`;
  await db.query(
    `insert into provider (id, merchant_id, name, format, base_url, on_disconnect, headers, region, api_version, revision, created_at, updated_at)
     values ($1, $2, 'bench world', $3, 'http://127.0.0.1:9/v1', 2, '{}', '', '', $4, now(), now())`,
    [providerId, merchantId, ProviderFormat.OPENAI, revision],
  );
  const bodies = pmIds.map((physicalModelId, i) => {
    const value = { creditPerUnit: CREDITS_PER_1000, unit: UnitKind.TOKENS, perUnits: 1000n };
    const price = create(PriceSchema, {
      id: priceIds[i]!,
      physicalModelId,
      kind: { case: "simple", value: { $typeName: "tokenbill.v1.SimplePrice", ...value } },
    });
    return toBinary(PriceSchema, price);
  });
  await db.query(
    `insert into price (id, merchant_id, physical_model_id, body, created_at)
     select d.*, now() from (select a, $1, b, c from unnest($2::text[], $3::text[], $4::bytea[]) as u (a, b, c)) as d`,
    [merchantId, [...priceIds], [...pmIds], bodies],
  );
  await db.query(
    `insert into physical_model (id, merchant_id, provider_id, name, upstream_name, price_id, max_output_tokens, revision, created_at, updated_at)
     select id, $1, $2, 'bench world ' || n, 'upstream-' || n, price, 4096, $5::bigint, now(), now()
     from unnest($3::text[], $4::text[]) with ordinality as u (id, price, n)`,
    [merchantId, providerId, [...pmIds], [...priceIds], revision],
  );
}

async function insertEndpoints(
  db: Database,
  { merchantId, pmIds }: SqlWorld,
  ves: number,
  lms: number,
  revision: bigint,
): Promise<void> {
  await db.query(
    `insert into virtual_endpoint (id, merchant_id, name, template, budget_mode, exhausted_status, low_balance, offline_grace, labels, revision, created_at, updated_at)
     select 've_' || ${idSql("n")}, $1, 'user ' || n, false, 1, 429, 1, 0, '{}', $3::bigint, now(), now() from generate_series(1, $2::int) as n`,
    [merchantId, ves, revision],
  );
  await db.query(
    `insert into wallet (ve_id, merchant_id, purchased, created_at, updated_at)
     select 've_' || ${idSql("n")}, $1, 1000000, now(), now() from generate_series(1, $2::int) as n`,
    [merchantId, ves],
  );
  await db.query(
    `insert into access_key (id, merchant_id, ve_id, name, prefix, digest, revision, created_at, updated_at)
     select 'key_' || ${idSql("n")}, $1, 've_' || ${idSql("n")}, 'key', 'tbk_bench', sha256(convert_to('tbk_bench_' || n, 'UTF8')), $3::bigint, now(), now()
     from generate_series(1, $2::int) as n`,
    [merchantId, ves, revision],
  );
  // Two targets of weights 3 and 1 in the first tier, a fallback in the second.
  await db.query(
    `insert into logical_model (id, merchant_id, ve_id, name, targets, pm_ids, deadlines, revision, created_at, updated_at)
     select 'lm_' || ${idSql("n * 1000 + m")}, $1, 've_' || ${idSql("n")}, 'model-' || m,
       jsonb_build_array(jsonb_build_object('pm', p[1 + m % ${PHYSICAL_MODELS}], 'tier', 0, 'weight', 3),
         jsonb_build_object('pm', p[1 + (m + 1) % ${PHYSICAL_MODELS}], 'tier', 0, 'weight', 1),
         jsonb_build_object('pm', p[1 + (m + 2) % ${PHYSICAL_MODELS}], 'tier', 1, 'weight', 1)),
       array[p[1 + m % ${PHYSICAL_MODELS}], p[1 + (m + 1) % ${PHYSICAL_MODELS}], p[1 + (m + 2) % ${PHYSICAL_MODELS}]],
       '{"connect_ms": 0, "first_byte_ms": 0, "idle_ms": 0, "total_ms": 0}', $5::bigint, now(), now()
     from generate_series(1, $2::int) as n, generate_series(0, $3::int - 1) as m, (select $4::text[] as p) as pms`,
    [merchantId, ves, lms, [...pmIds], revision],
  );
}

/** Fills a migrated database that has one merchant. Start the control plane afterwards: it is not told. */
export async function loadSqlWorld(db: Database, ves: number, lms: number): Promise<SqlWorld> {
  const [merchant] = await db.query<{ id: string }>("select id from merchant order by n limit 1");
  const numbers = Array.from({ length: PHYSICAL_MODELS }, (_, i) => i + 1);
  const world: SqlWorld = {
    merchantId: merchant!.id,
    pmIds: numbers.map((n) => `pm_${idText(n)}`),
    priceIds: numbers.map((n) => `price_${idText(n)}`),
    veId: (n) => `ve_${idText(n + 1)}`,
    keyId: (n) => `key_${idText(n + 1)}`,
    lmId: (ve, lm) => `lm_${idText((ve + 1) * 1000 + lm)}`,
    lmName: (lm) => `model-${lm}`,
  };
  const [state] = await db.query<{ revision: bigint }>(
    "update feed_state set revision = revision + 1 returning revision",
  );
  await insertModels(db, world, state!.revision);
  await insertEndpoints(db, world, ves, lms, state!.revision);
  await db.query("analyze");
  return world;
}
