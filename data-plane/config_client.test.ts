import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { Wallets } from "./budget/wallets.ts";
import { ConfigClient } from "./config_client.ts";
import { TableFile } from "./config_table_file.ts";
import { connectControlPlane, type ControlPlane } from "./control_plane.ts";
import { SILENT } from "./journal/testing.ts";
import { RouteTable } from "./route_table.ts";
import { resource } from "./testing.ts";
import { FakeControlPlane, NODE_TOKEN } from "./testing_control_plane.ts";

const VE = "ve_aaaaaaaaaaaaaaaaaaaaaaaaaa";

let dir: string;
let server: FakeControlPlane;
let control: ControlPlane;
let clients: ConfigClient[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "tokenbill-config-"));
  server = new FakeControlPlane();
  await server.start();
  control = connectControlPlane(server.url, NODE_TOKEN);
  clients = [];
});
afterEach(async () => {
  for (const client of clients) await client.stop();
  control.close();
  await server.stop();
  rmSync(dir, { recursive: true, force: true });
});

interface Node {
  readonly client: ConfigClient;
  readonly table: RouteTable;
  readonly wallets: Wallets;
  readonly pushes: unknown[];
  readonly seen: string[];
  readonly graces: [string, bigint][];
  readonly hasTable: Promise<void>;
}

function start(more: { silenceMs?: number } = {}): Node {
  const table = new RouteTable();
  const wallets = new Wallets(
    () => performance.now(),
    () => () => undefined,
  );
  const pushes: unknown[] = [];
  const graces: [string, bigint][] = [];
  const seen: string[] = [];
  wallets.push = (veId, { recall, toppedUp }) => void pushes.push({ veId, recall, toppedUp });
  const setGrace = wallets.setGrace.bind(wallets);
  wallets.setGrace = (veId, grace) => {
    graces.push([veId, grace]);
    setGrace(veId, grace);
  };
  const ready = Promise.withResolvers<void>();
  const client = new ConfigClient({
    client: control.feed,
    table,
    wallets,
    file: new TableFile({ path: join(dir, "table.bin"), nodeToken: NODE_TOKEN, log: SILENT, writes: true }),
    nodeId: "node_a",
    bootId: "boot_a",
    log: SILENT,
    now: () => performance.now(),
    random: () => 0,
    onTable: ready.resolve,
    onHealth: (notes) => void seen.push(...notes.map(({ subjectId }) => subjectId)),
    ...more,
  });
  clients.push(client);
  client.start();
  return { client, table, wallets, pushes, seen, graces, hasTable: ready.promise };
}

type Init = MessageInitShape<typeof WatchConfigResponseSchema>["event"];

function send(event: Init): void {
  server.send(create(WatchConfigResponseSchema, { event } as MessageInitShape<typeof WatchConfigResponseSchema>));
}

function ve(grace: string) {
  return {
    kind: {
      case: "virtualEndpoint" as const,
      value: { id: VE, name: "a", offlineGraceCredits: grace, lowBalanceCredits: "0" },
    },
  };
}

function sendSnapshot(revision: bigint, grace = "0"): void {
  send({ case: "snapshotBegin", value: { epoch: "e", revision } });
  send({ case: "snapshotChunk", value: { resources: [ve(grace)] } });
  send({ case: "snapshotEnd", value: { revision } });
}

test("a snapshot makes the table, deltas and wallet events follow, and the state is told", async () => {
  const node = start();
  await server.until(() => server.watches.length === 1);
  expect(server.watches[0]).toMatchObject({ nodeId: "node_a", bootId: "boot_a" });
  expect(server.watches[0]!.cursor).toBeUndefined();
  sendSnapshot(3n, "5");
  await node.hasTable;
  expect(node.table.ve(VE)).toBeDefined();
  expect([...node.wallets.graced()]).toEqual([VE]);
  send({ case: "delta", value: { fromRevision: 3n, revision: 4n, upserts: [ve("0")], removedIds: [] } });
  send({ case: "wallet", value: { veId: VE, recall: true, toppedUp: false } });
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 4n));
  expect(node.pushes).toEqual([{ veId: VE, recall: true, toppedUp: false }]);
  expect([...node.wallets.graced()]).toEqual([]);
});

test("pushes about limits reach their accounts, and another kind of Unit makes a lease worthless", async () => {
  const node = start();
  const forfeited: string[] = [];
  node.wallets.forfeit = (account) => void forfeited.push(account);
  const pm = (unitLimitUnit: number) =>
    resource("physicalModel", { id: "pm_a", providerId: "p", upstreamName: "u", unitLimitUnit, creditLimited: true });
  const change = (revision: bigint, unit: number): void =>
    send({ case: "delta", value: { fromRevision: revision - 1n, revision, upserts: [pm(unit)], removedIds: [] } });
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n);
  await node.hasTable;
  change(4n, 1);
  change(5n, 1);
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 5n));
  expect(node.table.physicalModel("pm_a")).toMatchObject({ unitLimit: 1, creditLimited: true, limited: true });
  expect(forfeited).toEqual([]);
  change(6n, 5);
  send({ case: "wallet", value: { physicalModelId: "pm_a", limitKind: 1, recall: true, toppedUp: false } });
  send({ case: "wallet", value: { physicalModelId: "pm_a", limitKind: 2, recall: false, toppedUp: true } });
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 6n));
  expect(forfeited).toEqual(["pm_a/units"]);
  expect(node.pushes).toEqual([
    { veId: "pm_a/units", recall: true, toppedUp: false },
    { veId: "pm_a/credits", recall: false, toppedUp: true },
  ]);
});

test("what other nodes saw of upstreams is handed on, and not kept", async () => {
  const node = start();
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n);
  send({ case: "health", value: { notes: [{ subjectId: "pm_a", coolMs: 9 }, { subjectId: "pm_b" }] } });
  send({ case: "delta", value: { fromRevision: 3n, revision: 4n, upserts: [], removedIds: [] } });
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 4n));
  expect(node.seen).toEqual(["pm_a", "pm_b"]);
  await node.client.stop();
  await server.stop();
  const again = start();
  await again.hasTable;
  expect([again.table.cursor?.revision, again.seen]).toEqual([4n, []]);
});

test("after the connection breaks it goes on from where it was", async () => {
  const node = start();
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n);
  await node.hasTable;
  await server.stop();
  await server.start();
  await server.until(() => server.watches.length >= 2);
  expect(server.watches.at(-1)!.cursor).toMatchObject({ epoch: "e", revision: 3n });
  expect(node.table.ve(VE)).toBeDefined();
});

test("a gap brings it back without a cursor, and the table serves on", async () => {
  const node = start();
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n);
  await node.hasTable;
  send({ case: "delta", value: { fromRevision: 7n, revision: 8n, upserts: [], removedIds: [VE] } });
  await server.until(() => server.watches.length === 2);
  expect(server.watches[1]!.cursor).toBeUndefined();
  expect(node.table.ve(VE)).toBeDefined();
  sendSnapshot(8n);
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 8n));
});

test("a feed that falls silent is opened again", async () => {
  start({ silenceMs: 30 });
  await server.until(() => server.watches.length >= 3);
});

test("what cannot be used is told by id, until it can be", async () => {
  const node = start();
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n);
  await node.hasTable;
  const key = { kind: { case: "accessKey" as const, value: { id: "key_a", veId: VE, digest: new Uint8Array(3) } } };
  send({ case: "delta", value: { fromRevision: 3n, revision: 4n, upserts: [key], removedIds: [] } });
  await server.until(() => server.statuses.some(({ rejected }) => rejected.some(({ id }) => id === "key_a")));
  send({ case: "delta", value: { fromRevision: 4n, revision: 5n, upserts: [], removedIds: ["key_a"] } });
  await server.until(() =>
    server.statuses.some(({ applied, rejected }) => applied?.revision === 5n && rejected.length === 0),
  );
  expect(node.client.rejected).toBe(0);
});

test("starts from the stored table while the control plane is away, with its grace amounts", async () => {
  const first = start();
  await server.until(() => server.watches.length === 1);
  sendSnapshot(3n, "2.5");
  send({ case: "delta", value: { fromRevision: 3n, revision: 4n, upserts: [], removedIds: [] } });
  await server.until(() => server.statuses.some(({ applied }) => applied?.revision === 4n));
  await first.client.stop();
  await server.stop();
  const second = start();
  await second.hasTable;
  expect(second.table.cursor).toEqual({ epoch: "e", revision: 4n });
  expect(second.graces).toContainEqual([VE, 2_500_000_000_000n]);
  await server.start();
  await server.until(() => server.watches.length >= 2);
  expect(server.watches.at(-1)!.cursor).toMatchObject({ revision: 4n });
});
