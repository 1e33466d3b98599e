/** Usage records per second into PostgreSQL through ReportUsage, beside a bare insert of the same rows. */

import { randomBytes } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Database } from "../../control-plane/db/database.ts";
import { openPostgres } from "../../control-plane/db/postgres.ts";
import { DATABASE_POOL_DEFAULT } from "../../control-plane/settings.ts";
import { base32 } from "../../data-plane/ids.ts";
import {
  ReportStatus,
  UsageRecordSchema,
  UsageReportService,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { Meter, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { AttemptResult, Endpoint, Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { startControlPlane } from "./gateway.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { atEnd, cpuUs } from "./processes.ts";
import { CREDITS_PER_1000, loadSqlWorld, PHYSICAL_MODELS, type SqlWorld } from "./sql_world.ts";
import { digits, median, printAim, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 3;
const VES = 10_000;
const BATCH_RECORDS = 1000;
/** Records of one round. */
const ROUND_RECORDS = 16_000;

/** What is reported: each record is of any of the VEs, and any of the models of its VE. */
interface Shape {
  readonly boots: number;
  readonly ves: number;
  readonly models: number;
  /** Of one report. */
  readonly records: number;
}

/** As of a second: the more nodes there are, the less each of them has to report. */
function shapeOf(boots: number, ves: number): Shape {
  return { boots, ves, models: 3, records: Math.min(BATCH_RECORDS, ROUND_RECORDS / boots) };
}

const SHAPES: readonly Shape[] = [
  ...[VES, 1].flatMap((ves) => [1, 8, 64].map((boots) => shapeOf(boots, ves))),
  { ...shapeOf(4, 1000), models: PHYSICAL_MODELS },
  shapeOf(4, 100),
];

function nameOf({ boots, ves }: Shape): string {
  return `${boots} ${boots === 1 ? "node" : "nodes"}, ${ves === 1 ? "one hot VE" : `${ves.toLocaleString("en-US")} hot VEs`}`;
}

/** Not all can be routed to, but all are priced. */
const LMS_PER_VE = 1;
const BOOTS_MAX = 64;
/** The connections of the control plane, and of the bare insert. */
const CONNECTIONS = DATABASE_POOL_DEFAULT;
const RATIO_AIM = 0.5;
const RATE = parseCredits(CREDITS_PER_1000) / 1000n;

/** A row of `usage_event`, but for what the database makes. */
interface Row {
  readonly arriveUs: bigint;
  readonly id: string;
  readonly veId: string;
  readonly keyId: string;
  readonly model: string;
  readonly pmId: string;
  readonly credits: bigint;
  readonly recordNo: bigint;
  readonly body: Uint8Array;
}

interface Boot {
  readonly id: string;
  readonly client: Client<typeof UsageReportService>;
  seq: bigint;
  recordNo: bigint;
}

function makeRow(world: SqlWorld, shape: Shape, recordNo: bigint, nowUs: bigint): Row {
  const ve = Math.floor(Math.random() * shape.ves);
  const pm = (ve + Math.floor(Math.random() * shape.models)) % PHYSICAL_MODELS;
  const input = BigInt(Math.floor(Math.random() * 2000));
  const output = BigInt(Math.floor(Math.random() * 500));
  const row = {
    arriveUs: nowUs,
    id: `usg_${base32(randomBytes(16))}`,
    veId: world.veId(ve),
    keyId: world.keyId(ve),
    model: world.lmName(pm),
    pmId: world.pmIds[pm]!,
    credits: RATE * (input + output),
    recordNo,
  };
  const record = create(UsageRecordSchema, {
    recordNo,
    id: row.id,
    veId: row.veId,
    accessKeyId: row.keyId,
    logicalModelId: world.lmId(ve, pm),
    logicalModel: row.model,
    endpoint: Endpoint.CHAT_COMPLETIONS,
    physicalModelId: row.pmId,
    priceId: world.priceIds[pm]!,
    units: [
      { meter: Meter.INPUT_TOKENS, quantity: input, source: UnitSource.REPORTED },
      { meter: Meter.OUTPUT_TOKENS, quantity: output, source: UnitSource.REPORTED },
    ],
    credits: formatCredits(row.credits),
    outcome: Outcome.COMPLETED,
    httpStatus: 200,
    attempts: [
      {
        physicalModelId: row.pmId,
        tier: 0,
        result: AttemptResult.SERVED,
        httpStatus: 200,
        startUs: 35n,
        durationUs: 412_345n,
      },
    ],
    arriveUnixUs: nowUs,
    firstByteUs: 380_000n,
    firstContentUs: 380_000n,
    durationUs: 412_400n,
    upstreamRequestId: `req_${row.id}`,
  });
  return { ...row, body: toBinary(UsageRecordSchema, record) };
}

/** Reports of each boot in one round. */
function batchesOf({ boots, records }: Shape): number {
  return Math.max(1, Math.floor(ROUND_RECORDS / boots / records));
}

function recordsOf(shape: Shape): number {
  return shape.boots * batchesOf(shape) * shape.records;
}

/** The batches of one boot for one round, made before the clock starts. */
function makeBatches(world: SqlWorld, shape: Shape, boot: Boot): Row[][] {
  const nowUs = BigInt(Date.now()) * 1000n;
  return Array.from({ length: batchesOf(shape) }, () =>
    Array.from({ length: shape.records }, () => makeRow(world, shape, ++boot.recordNo, nowUs)),
  );
}

/** What a node says with its records: the spend of each VE, and that it wants as much again. */
function leasesOf(rows: readonly Row[]): { veId: string; spent: string; want: string }[] {
  const spent = new Map<string, bigint>();
  for (const { veId, credits } of rows) spent.set(veId, (spent.get(veId) ?? 0n) + credits);
  return [...spent].map(([veId, credits]) => ({ veId, spent: formatCredits(credits), want: formatCredits(credits) }));
}

async function report(boot: Boot, batches: readonly Row[][]): Promise<void> {
  for (const rows of batches) {
    const answer = await boot.client.reportUsage({
      nodeId: `node_${boot.id}`,
      bootId: boot.id,
      seq: ++boot.seq,
      firstRecordNo: rows[0]!.recordNo,
      records: rows.map(({ body }) => body),
      leases: leasesOf(rows),
    });
    if (answer.status !== ReportStatus.APPLIED || answer.lastRecordNo !== rows.at(-1)!.recordNo) {
      throw new Error(`a report was answered with status ${answer.status}, record ${answer.lastRecordNo}`);
    }
  }
}

/** The columns, indexes and partitions of usage_event, and nothing else. */
async function createBareTable(db: Database): Promise<void> {
  await db.query(
    "create table usage_bare (like usage_event including defaults including constraints) partition by range (arrive_us)",
  );
  const indexes = await db.query<{ indexdef: string }>(
    "select pg_get_indexdef(indexrelid) as indexdef from pg_index where indrelid = 'usage_event'::regclass",
  );
  for (const { indexdef } of indexes) {
    const columns = /USING .*$/.exec(indexdef)![0];
    await db.query(`create ${indexdef.includes("UNIQUE") ? "unique" : ""} index on usage_bare ${columns}`);
  }
  const partitions = await db.query<{ bounds: string }>(
    `select pg_get_expr(c.relpartbound, c.oid) as bounds from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'usage_event'::regclass`,
  );
  for (const [i, { bounds }] of partitions.entries()) {
    await db.query(`create table usage_bare_${i} partition of usage_bare ${bounds}`);
  }
}

async function insertBare(db: Database, world: SqlWorld, boot: Boot, batches: readonly Row[][]): Promise<void> {
  for (const rows of batches) {
    await db.query(
      `insert into usage_bare (arrive_us, id, merchant_id, ve_id, access_key_id, logical_model, physical_model_id, credits, boot_id, record_no, node_id, transfer_id, body)
       select a, b, $1, c, d, e, f, g, $2, h, $3, $4, i
       from unnest($5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::numeric[], $12::bigint[], $13::bytea[]) as u (a, b, c, d, e, f, g, h, i)`,
      [
        world.merchantId,
        boot.id,
        `node_${boot.id}`,
        `tr_${boot.id}`,
        rows.map((row) => row.arriveUs),
        rows.map((row) => row.id),
        rows.map((row) => row.veId),
        rows.map((row) => row.keyId),
        rows.map((row) => row.model),
        rows.map((row) => row.pmId),
        rows.map((row) => formatCredits(row.credits)),
        rows.map((row) => row.recordNo),
        rows.map((row) => row.body),
      ],
    );
  }
}

async function perSecond(shape: Shape, run: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await run();
  return (recordsOf(shape) * 1000) / (performance.now() - begin);
}

/** Everything that was reported must be there, and paid for. */
async function verify(db: Database, world: SqlWorld, records: number): Promise<void> {
  const [row] = await db.query<{ count: bigint; credits: string; settled: string }>(
    `select count(*) as count, coalesce(sum(credits), 0) as credits,
       (select coalesce(sum(settled), 0) from wallet where merchant_id = $1) as settled from usage_event where merchant_id = $1`,
    [world.merchantId],
  );
  if (row!.count !== BigInt(records) || row!.credits !== row!.settled) {
    throw new Error(
      `${records} records were sent, ${row!.count} arrived; usage ${row!.credits}, settled ${row!.settled}`,
    );
  }
}

interface Measured {
  readonly ours: number[];
  readonly bare: number[];
  readonly cpu: number[];
}

function printResults(results: ReadonlyMap<Shape, Measured>): void {
  const ratiosOf = ({ ours, bare }: Measured) => ours.map((value, round) => value / bare[round]!);
  printTable(
    [
      "reported by",
      "records of a report",
      "ReportUsage records/s",
      "bare insert records/s",
      "ratio",
      "control plane CPU µs/record",
    ],
    [...results].map(([shape, measured]) => [
      nameOf(shape),
      String(shape.records),
      spread(measured.ours),
      spread(measured.bare),
      spread(ratiosOf(measured)),
      spread(measured.cpu),
    ]),
  );
  console.log(`\nThe ledger agrees: every record is there once, and the settled Credits are their sum.`);
  for (const [shape, measured] of results) {
    printAim({
      what: `records/s of the bare insert, ${nameOf(shape)}`,
      value: median(ratiosOf(measured)),
      bound: RATIO_AIM,
      kind: "at least",
      unit: "",
    });
    const rate = median(measured.ours);
    console.log(`${digits(rate)} records/s are ${digits((rate * 86_400) / 1e6)} million a day.`);
  }
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "ingest",
    `Nodes that report at once on the same VEs, each with one report in flight, with leases asked for. The bare insert:\n` +
      `the same rows, batches, connections and driver, into the columns, indexes and partitions of usage_event, arrays by unnest,\n` +
      `committed batch by batch. ${rounds} interleaved rounds of ${ROUND_RECORDS.toLocaleString("en-US")} records each, medians (least-most), ratio within a round.`,
  );
  const first = await startControlPlane(undefined);
  const db = openPostgres({ url: first.databaseUrl, poolMax: CONNECTIONS, onNotice: () => {} });
  atEnd(() => db.close());
  const world = await loadSqlWorld(db, VES, LMS_PER_VE);
  await createBareTable(db);
  const boots = Array.from({ length: BOOTS_MAX }, (): Boot => {
    const client = createClient(UsageReportService, first.nodeTransport());
    return { id: `boot_${base32(randomBytes(16))}`, client, seq: 0n, recordNo: 0n };
  });
  const results = new Map<Shape, Measured>(SHAPES.map((shape) => [shape, { ours: [], bare: [], cpu: [] }]));
  for (let round = 0; round <= rounds; round++) {
    for (const [shape, measured] of results) {
      const nodes = boots.slice(0, shape.boots);
      const batches = nodes.map((boot) => makeBatches(world, shape, boot));
      const before = cpuUs(first.process.pid);
      const applied = await perSecond(shape, () => Promise.all(nodes.map((boot, i) => report(boot, batches[i]!))));
      const used = (cpuUs(first.process.pid) - before) / recordsOf(shape);
      const inserted = await perSecond(shape, () =>
        Promise.all(nodes.map((boot, i) => insertBare(db, world, boot, batches[i]!))),
      );
      // The first round warms up.
      if (round === 0) continue;
      measured.ours.push(applied);
      measured.bare.push(inserted);
      measured.cpu.push(used);
    }
  }
  const records = boots.reduce((sum, boot) => sum + Number(boot.recordNo), 0);
  await verify(db, world, records);
  printResults(results);
}

if (import.meta.main) await benchMain(run);
