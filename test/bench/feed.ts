/** How long a committed edit takes until a node's route table has it, with a large configuration loaded. */

import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { openPostgres } from "../../control-plane/db/postgres.ts";
import { RouteTable } from "../../data-plane/route_table.ts";
import {
  ConfigFeedService,
  WatchConfigResponseSchema,
} from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { type ControlPlane, startControlPlane } from "./gateway.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { atEnd, stop } from "./processes.ts";
import { loadSqlWorld, type SqlWorld } from "./sql_world.ts";
import { digits, percentile, printAim, printHeading, printTable } from "./stats.ts";

const VES = 100_000;
const LMS_PER_VE = 10;
const EDITS = 400;
const WARM_UP_EDITS = 40;
/** Between edits, so that each is a delta of its own. */
const PAUSE_MS = 10;
const P99_MS_AIM = 50;
const EDIT_TIMEOUT_MS = 10_000;

/** A node as far as its table goes: the feed's real stream, applied to the real table. */
class Watcher {
  readonly table = new RouteTable();
  readonly snapshot = { bytes: 0, resources: 0, receivedMs: 0, applyMs: 0 };
  readonly #whole = Promise.withResolvers<void>();
  readonly whole = this.#whole.promise;
  onApply: () => void = () => {};

  async follow(controlPlane: ControlPlane, signal: AbortSignal): Promise<void> {
    const client = createClient(ConfigFeedService, controlPlane.nodeTransport());
    const begin = performance.now();
    const boot = randomBytes(8).toString("hex");
    for await (const event of client.watchConfig({ nodeId: "node_bench", bootId: `boot_${boot}` }, { signal })) {
      const { case: kind, value } = event.event;
      const applying = performance.now();
      const { applied, rejected } = this.table.apply(event);
      if (!applied || rejected.length > 0) throw new Error(`the table refused: ${rejected[0]?.reason ?? "a gap"}`);
      if (kind === "delta") this.onApply();
      if (kind !== "snapshotChunk" && kind !== "snapshotEnd") continue;
      this.snapshot.applyMs += performance.now() - applying;
      this.snapshot.bytes += toBinary(WatchConfigResponseSchema, event).length;
      if (kind === "snapshotChunk") this.snapshot.resources += value.resources.length;
      if (kind !== "snapshotEnd") continue;
      this.snapshot.receivedMs = performance.now() - begin;
      this.#whole.resolve();
    }
  }

  fail(error: unknown): void {
    this.#whole.reject(error);
  }
}

interface EditTimes {
  readonly sentMs: number;
  readonly answeredMs: number;
}

/** One edit with a weight that was never there: milliseconds until the table has it, from the call and from its answer. */
async function edit(controlPlane: ControlPlane, watcher: Watcher, world: SqlWorld, weight: number): Promise<EditTimes> {
  const client = controlPlane.client(LogicalModelService);
  const ve = Math.floor(Math.random() * VES);
  const lm = Math.floor(Math.random() * LMS_PER_VE);
  const used = Promise.withResolvers<number>();
  const late = setTimeout(
    () => used.reject(new Error(`an edit was not used within ${EDIT_TIMEOUT_MS} ms`)),
    EDIT_TIMEOUT_MS,
  );
  watcher.onApply = () => {
    const group = watcher.table.logicalModel(watcher.table.ve(world.veId(ve))!, world.lmName(lm))?.spec.group;
    if (group?.tiers[0]?.cumulative[0] === weight) used.resolve(performance.now());
  };
  const sent = performance.now();
  const targets = { targets: [{ physicalModelId: world.pmIds[lm]!, tier: 0, weight }] };
  await client.updateLogicalModel({ id: world.lmId(ve, lm), targets });
  const answered = performance.now();
  const at = await used.promise;
  clearTimeout(late);
  return { sentMs: at - sent, answeredMs: at - answered };
}

async function run({ rounds = 1 }: BenchOptions): Promise<void> {
  printHeading(
    "feed",
    `A Logical Model is edited by RPC until the route table of a watching node has it: real control plane on PostgreSQL, real stream, real\n` +
      `table in this process. ${VES.toLocaleString("en-US")} VEs with a key and ${LMS_PER_VE} Logical Models each, ${EDITS * rounds} edits one after another.`,
  );
  const empty = await startControlPlane(undefined);
  const db = openPostgres({ url: empty.databaseUrl, poolMax: 2, onNotice: () => {} });
  atEnd(() => db.close());
  await stop(empty.process);
  const loading = performance.now();
  const world = await loadSqlWorld(db, VES, LMS_PER_VE);
  console.log(`Loaded in ${digits((performance.now() - loading) / 1000)} s.\n`);
  const controlPlane = await startControlPlane(undefined, empty);
  const watcher = new Watcher();
  const abort = new AbortController();
  let stopping = false;
  const following = watcher.follow(controlPlane, abort.signal).catch((error: unknown) => {
    if (!stopping) watcher.fail(error);
  });
  await watcher.whole;
  const times: EditTimes[] = [];
  for (let n = 0; n < WARM_UP_EDITS + EDITS * rounds; n++) {
    const result = await edit(controlPlane, watcher, world, 1000 + n);
    if (n >= WARM_UP_EDITS) times.push(result);
    await delay(PAUSE_MS);
  }
  stopping = true;
  abort.abort();
  await following;
  const sent = times.map((time) => time.sentMs);
  const answered = times.map((time) => time.answeredMs);
  const row = (name: string, values: readonly number[]): string[] => [
    name,
    ...[0.5, 0.9, 0.99, 1].map((p) => digits(percentile(values, p))),
  ];
  printTable(
    ["until the table has it, ms", "p50", "p90", "p99", "most"],
    [row("from sending the edit", sent), row("from its answer (it is committed)", answered)],
  );
  const { bytes, resources, receivedMs, applyMs } = watcher.snapshot;
  console.log(
    `\nSnapshot: ${resources.toLocaleString("en-US")} resources, ${digits(bytes / 1024 ** 2)} MiB, whole after ${digits(receivedMs / 1000)} s (of which ${digits(applyMs / 1000)} s applying).`,
  );
  printAim({
    what: "p99 from sending the edit",
    value: percentile(sent, 0.99),
    bound: P99_MS_AIM,
    kind: "below",
    unit: " ms",
  });
}

if (import.meta.main) await benchMain(run);
