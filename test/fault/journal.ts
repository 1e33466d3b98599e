/** What can happen to a journal: a torn tail, a flipped bit, a full disk, a directory that is gone. */

import assert from "node:assert/strict";
import { appendFile, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Frame, FRAME_HEADER_BYTES, FrameType, scanSegment } from "../../data-plane/journal/frame.ts";
import { readRecordHead } from "../../data-plane/journal/record.ts";
import { canMount } from "../support/part.ts";
import { Outcome } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import type { DataPlaneNode } from "../support/system.ts";
import { closeBooks, readEntries, readIds, untilReported } from "./books.ts";
import type { Fate } from "./client.ts";
import { askSmall, countFates, Load, MIXED_MODELS } from "./load.ts";
import { defineScenario, type Figures, ms, type Run, seeded } from "./scenario.ts";
import { type FaultShop, World } from "./world.ts";

interface Params {
  readonly clients: number;
  readonly loadMs: number;
  readonly rounds: number;
  /** The disk is full when a segment has so many bytes. */
  readonly diskBytes: number;
}

const FULL_TIMEOUT_MS = 60_000;
const ROOM_TIMEOUT_MS = 20_000;
const QUARANTINE_TIMEOUT_MS = 20_000;
/** The node that everything happens to. */
const NUMBER = 0;

interface Bench {
  readonly world: World;
  readonly shop: FaultShop;
  readonly params: Params;
  readonly random: () => number;
  readonly fates: Fate[];
  readonly lost: Set<string>;
  readonly rows: Figures[];
}

const theNode = ({ world }: Bench): DataPlaneNode => world.nodes[NUMBER]!;

async function bootsOf(home: string): Promise<string[]> {
  return (await readdir(join(home, "node", "journal"))).filter((name) => name.startsWith("boot_"));
}

/** The one segment of the one boot that is on disk. */
async function lastSegment(node: DataPlaneNode): Promise<string> {
  const root = join(node.home, "node", "journal");
  const names = await readdir(root, { recursive: true });
  const path = names.find((name) => /^boot_[^/]+\/\d+\.log$/.test(name));
  assert.ok(path !== undefined, `the dead node left a journal: ${names.join(" ")}`);
  return join(root, path);
}

function settledFrames(bytes: Buffer): Frame[] {
  const frames: Frame[] = [];
  scanSegment(bytes, (frame) => {
    if (frame.type === FrameType.SETTLE) frames.push(frame);
  });
  return frames;
}

/** Load on the one node, the last of it while reports cannot leave, then kill -9: that is in the journal alone. */
async function fillAndKill(bench: Bench): Promise<void> {
  const { world, shop, params, random, fates } = bench;
  const load = new Load({ world, shops: [shop], clients: params.clients, random, nodes: [NUMBER] });
  await world.until("the node has a lease", async () => load.whole >= params.clients);
  world.nodeProxies[NUMBER]!.refuse();
  const before = load.whole;
  await world.pause(params.loadMs);
  await world.until("something is in the journal alone", async () => load.whole >= before + params.clients);
  await theNode(bench).part.kill();
  fates.push(...(await load.stop()));
}

async function restart(bench: Bench): Promise<number> {
  const { world, fates, lost } = bench;
  world.nodeProxies[NUMBER]!.heal();
  const { home } = await world.system.restartNode(theNode(bench));
  const tookMs = await untilReported(world, fates, undefined, lost);
  // The dead boot is closed, and its lease given back, a moment later.
  await world.until("the dead boot's journal is cleared away", async () => (await bootsOf(home)).length === 1);
  return tookMs;
}

/** A write was under way when the machine died: the first half of a frame is at the end. */
async function tearTail(bench: Bench): Promise<void> {
  await fillAndKill(bench);
  const path = await lastSegment(theNode(bench));
  const bytes = await readFile(path);
  const frame = settledFrames(bytes).at(-1)!;
  const half = frame.start + Math.floor((frame.end - frame.start) / 2);
  await appendFile(path, bytes.subarray(frame.start, half));
  const tookMs = await restart(bench);
  bench.rows.push({ what: "torn tail", lost: 0, reported_after: ms(tookMs) });
}

/** The disk returns another bit than it was given: that record is lost, and is told; all others are billed. */
async function flipBit(bench: Bench): Promise<void> {
  const { world, shop, random, fates, lost } = bench;
  await fillAndKill(bench);
  const path = await lastSegment(theNode(bench));
  const bytes = await readFile(path);
  const known = await readIds(world, shop);
  const heads = settledFrames(bytes)
    .map((frame) => ({ frame, id: readRecordHead(frame.payload)!.id }))
    .filter(({ id }) => fates.some((fate) => fate.id === id && fate.whole) && !known.has(id));
  const { frame, id } = heads[Math.floor(random() * heads.length)]!;
  const at = frame.start + FRAME_HEADER_BYTES + Math.floor(random() * frame.payload.length);
  bytes[at] = bytes[at]! ^ (1 << Math.floor(random() * 8));
  await writeFile(path, bytes);
  lost.add(id);
  const tookMs = await restart(bench);
  // A stream whose settlement is damaged is like one that the node died in: billed from its last progress.
  const entry = (await readEntries(world, shop)).find((one) => one.id === id);
  assert.ok(entry === undefined || entry.outcome === Outcome.NODE_CRASHED, "a damaged record is not billed as it was");
  await world.until(
    "the lost record is told to the operator",
    async () => {
      const [row] = await world.database.query<{ n: bigint }>("select count(*) as n from usage_quarantine");
      return Number(row!.n) >= lost.size;
    },
    QUARANTINE_TIMEOUT_MS,
  );
  bench.rows.push({ what: "flipped bit", lost: 1, reported_after: ms(tookMs) });
}

/** Nothing can be written any more: nothing is admitted, nothing is lost, and it goes on when there is room. */
async function fillDisk(bench: Bench): Promise<void> {
  const { world, shop, params, random, fates } = bench;
  await theNode(bench).part.stop();
  // A disk of its own is empty: a new home, and with it another node id. Everything of the old one is reported.
  const [home, own] = [await world.system.makeHome(), await canMount()];
  await world.system.restartNode(theNode(bench), { home, disk: { bytes: params.diskBytes, folder: home, own } });
  const load = new Load({ world, shops: [shop], clients: params.clients, random, nodes: [NUMBER] });
  const isFull = async (): Promise<boolean> => {
    const fate = await askSmall(theNode(bench), shop);
    fates.push(fate);
    return fate.status === 503 && fate.code === "service_unavailable";
  };
  await world.until("admission stops on the full disk", isFull, FULL_TIMEOUT_MS);
  await world.pause(500);
  const served = load.whole;
  await world.pause(1_000);
  assert.equal(load.whole, served, "nothing is admitted while the disk is full");
  await theNode(bench).part.makeRoom();
  const beganMs = performance.now();
  await world.until("the node serves again", async () => !(await isFull()), ROOM_TIMEOUT_MS);
  const againMs = performance.now() - beganMs;
  await world.pause(params.loadMs / 2);
  const mine = await load.stop();
  fates.push(...mine);
  const tookMs = await untilReported(world, fates, undefined, bench.lost);
  await theNode(bench).part.stop();
  await world.system.restartNode(theNode(bench), { home: await world.system.makeHome(), disk: undefined });
  const { requests, whole, service_unavailable: refused } = countFates(mine);
  bench.rows.push({
    what: own ? "full disk" : "files cannot grow",
    lost: 0,
    reported_after: ms(tookMs),
    requests: requests!,
    whole: whole!,
    refused_503: refused ?? 0,
    serves_again_after: ms(againMs),
  });
}

/** Somebody removes the journal under a running node: what it served is reported from memory, and it stops in order. */
async function removeJournal(bench: Bench): Promise<void> {
  const { world, shop, params, random, fates } = bench;
  const load = new Load({ world, shops: [shop], clients: params.clients, random, nodes: [NUMBER] });
  await world.pause(params.loadMs / 2);
  await rm(join(theNode(bench).home, "node", "journal"), { recursive: true });
  await world.pause(params.loadMs / 2);
  fates.push(...(await load.stop()));
  const tookMs = await untilReported(world, fates, undefined, bench.lost);
  await theNode(bench).part.stop();
  await world.system.restartNode(theNode(bench));
  bench.rows.push({ what: "journal removed while running", lost: 0, reported_after: ms(tookMs) });
}

async function runJournal(params: Params, run: Run): Promise<void> {
  await World.with(run, { nodes: 2 }, async (world) => {
    const shop = await world.openShop({ tokens: 1_000_000_000n, upstreamModels: MIXED_MODELS });
    const bench: Bench = { world, shop, params, random: seeded(5), fates: [], lost: new Set(), rows: [] };
    for (let round = 1; round <= params.rounds; round++) {
      for (const damage of [tearTail, flipBit, fillDisk, removeJournal]) {
        await damage(bench);
        run.progress(`round ${round} of ${params.rounds}: ${String(bench.rows.at(-1)!["what"])}`);
      }
    }
    run.figures("damage", bench.rows);
    await closeBooks(world, bench.fates, { clients: params.clients, lost: bench.lost, ample: true });
  });
}

export const journal = defineScenario<Params>({
  name: "journal",
  title: "torn tail, flipped bit, full disk, journal removed: nothing but the destroyed record is lost",
  short: { clients: 12, loadMs: 1_000, rounds: 1, diskBytes: 128 * 1024 },
  long: { clients: 32, loadMs: 10_000, rounds: 10, diskBytes: 2 * 1024 * 1024 },
  run: runJournal,
});
