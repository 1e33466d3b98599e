/** One machine with a disk, and the node that runs on it, run after run: put together from the real modules. */

import { pino } from "pino";
import { Wallets } from "../../data-plane/budget/wallets.ts";
import { forwardClock } from "../../data-plane/forward_clock.ts";
import {
  createBootDir,
  HEARTBEAT_MS,
  type Host,
  removeBootDir,
  touchClaim,
} from "../../data-plane/journal/boot_dir.ts";
import { FRAME_HEADER_BYTES, FrameType, scanSegment } from "../../data-plane/journal/frame.ts";
import { FileJournal } from "../../data-plane/journal/file_journal.ts";
import { readRecordHead } from "../../data-plane/journal/record.ts";
import { Recovery } from "../../data-plane/journal/recovery.ts";
import { Reporter } from "../../data-plane/journal/reporter.ts";
import { createPipeline } from "../../data-plane/proxy.ts";
import { RouteTable } from "../../data-plane/route_table.ts";
import type { Pipeline } from "../../data-plane/transport.ts";
import type {
  ReportUsageRequest,
  ReportUsageResponse,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { Books } from "./books.ts";
import { SNAPSHOT } from "./catalogue.ts";
import type { Control } from "./control.ts";
import { SimDisk } from "./disk.ts";
import { linkOf } from "./link.ts";
import type { Network } from "./network.ts";
import type { Random } from "./random.ts";
import { Actor, type Scheduler, WALL_START_MS } from "./scheduler.ts";
import { SimUpstream } from "./upstream.ts";
import { type BudgetWatch, WatchedBudget, WatchedJournal } from "./watched.ts";

/** As node.ts. */
const FINAL_REPORT_MS = 5_000;
const ROOT = "/home/node/journal";
const SILENT = pino({ level: "silent" });
/** Small, so that runs reach the end of a segment. */
const SEGMENT_BYTES = 6_000;
/** The newest records that stay in memory: so few that a backlog is read from disk. */
const RECENT_BYTES = 4_000;

export interface NodeWorld {
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly control: Control;
  readonly books: Books;
  readonly random: Random;
  /** How often upstreams fail. */
  readonly upstreamTrouble: number;
  budgetWatch(node: SimNode): BudgetWatch;
  answered(node: SimNode, request: ReportUsageRequest, response: ReportUsageResponse): void;
}

/** One run of the process. */
export interface Boot {
  readonly bootId: string;
  readonly actor: Actor;
  readonly wallets: Wallets;
  readonly journal: FileJournal;
  readonly reporter: Reporter;
  readonly recovery: Recovery;
  readonly pipeline: Pipeline;
  readonly startedAt: number;
  now(): number;
}

export class SimNode {
  readonly name: string;
  readonly disk: SimDisk;
  boot: Boot | null = null;
  /** Every run on this machine whose journal may still be there. */
  readonly boots = new Map<string, FileJournal>();
  /** Its disk has refused something in this run. */
  troubled = false;
  /** Since when it runs without interruption. */
  steadySince = 0;
  stopping = false;
  readonly #world: NodeWorld;
  #skewMs = 0;
  #pids = 100;

  constructor(name: string, world: NodeWorld) {
    this.name = name;
    this.#world = world;
    this.disk = new SimDisk(world.scheduler, world.random);
  }

  get frozen(): boolean {
    return this.boot !== null && this.boot.actor.frozenUntil > this.#world.scheduler.now;
  }

  /** Its wall clock jumps. */
  jump(ms: number): void {
    this.#skewMs += ms;
    if (this.boot !== null) this.boot.actor.wallSkewMs = this.#skewMs;
  }

  start(): void {
    if (this.boot !== null) return;
    const { scheduler } = this.#world;
    const actor = new Actor(this.name);
    actor.wallSkewMs = this.#skewMs;
    this.troubled = false;
    this.stopping = false;
    this.steadySince = scheduler.now;
    try {
      this.boot = scheduler.as(actor, () => this.#assemble(actor));
      this.boots.set(this.boot.bootId, this.boot.journal);
    } catch (error) {
      // A full disk: it does not start, and is tried again.
      actor.alive = false;
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    }
  }

  #assemble(actor: Actor): Boot {
    const { scheduler, books, control, random, upstreamTrouble } = this.#world;
    const bootId = control.newId("boot_");
    const pid = ++this.#pids;
    const disk = this.disk.view(actor);
    const owner = { pid, start: `${pid}`, machine: this.name, nodeId: this.name };
    const host: Host = { disk, processStart: (other) => (other === pid ? `${pid}` : null) };
    const dir = createBootDir(ROOT, bootId, owner, disk);
    const startedAt = scheduler.now;
    const now = forwardClock(
      () => scheduler.wall(actor),
      () => scheduler.now - startedAt,
    );
    const wallNow = (): number => Math.floor(scheduler.wall(actor));
    setInterval(() => touchClaim(dir, wallNow(), disk), HEARTBEAT_MS);
    const newId = (prefix: string): string => control.newId(prefix);
    const journal = new FileJournal({
      dir,
      log: SILENT,
      now: wallNow,
      newId,
      fs: disk,
      segmentBytes: SEGMENT_BYTES,
      recentBytesMax: RECENT_BYTES,
    });
    const wallets = new Wallets(now, (ms, run) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    });
    const client = linkOf({
      node: this.name,
      actor,
      scheduler,
      network: this.#world.network,
      control,
      random,
      onAnswer: (request, response) => this.#world.answered(this, request, response),
    });
    const same = { nodeId: this.name, bootId, log: SILENT, now, random: () => random.next() };
    const reporter = new Reporter({ ...same, client, journal, wallets });
    const recovery = new Recovery({ ...same, client, root: ROOT, owner, wallNow, newId, host });
    const table = new RouteTable();
    for (const event of SNAPSHOT) table.apply(event);
    // As in node.ts: the wall clock of the start, and monotonic from there.
    const startWall = WALL_START_MS + this.#skewMs;
    const pipeline = createPipeline({
      table,
      budget: new WatchedBudget(wallets, books, this.#world.budgetWatch(this)),
      journal: new WatchedJournal(journal, books, bootId, scheduler),
      upstream: new SimUpstream(scheduler, actor, random, upstreamTrouble),
      now: () => startWall + scheduler.now,
      random: () => random.next(),
      newId,
      settings: { veDomain: "", corsOrigins: [] },
      log: SILENT,
      metrics: { request() {}, firstContent() {}, attempt() {} },
    });
    reporter.start();
    recovery.start();
    return { bootId, actor, wallets, journal, reporter, recovery, pipeline, startedAt, now };
  }

  /** kill -9. `torn`: in the middle of a write. */
  kill(torn = false): void {
    const { boot } = this;
    if (boot === null) return;
    const { scheduler, books } = this.#world;
    boot.actor.alive = false;
    books.processDied(boot.bootId, scheduler.now, !torn && !this.troubled && !this.stopping && boot.journal.accepting);
    this.disk.dieAtWrite = null;
    this.boot = null;
  }

  /** Kills it in the middle of its next write. */
  killAtWrite(): void {
    this.disk.dieAtWrite = () => this.kill(true);
  }

  /** Power off: what was not synced may be lost. */
  cutPower(): void {
    const { books, control } = this.#world;
    this.kill(true);
    const durable = new Map([...this.boots].map(([bootId, journal]) => [bootId, journal.durableNo]));
    books.machineDied(durable, (bootId) => this.#reportedNo(control, bootId));
    this.disk.loseUnsynced();
  }

  /** The disk is gone with everything on it, and an empty one in its place. */
  loseDisk(): void {
    const { books, control } = this.#world;
    this.kill(true);
    books.diskLost(this.boots.keys(), (bootId) => this.#reportedNo(control, bootId));
    this.boots.clear();
    this.disk.wipe();
  }

  /** One bit of a dead run's journal rots. */
  rot(): boolean {
    const { books, random } = this.#world;
    const files = this.disk
      .files(".log")
      .filter(({ path, bytes }) => bytes.length > 0 && (this.boot === null || !path.includes(this.boot.bootId)));
    if (files.length === 0) return false;
    const { path, bytes } = random.pick(files);
    const bootId = path.split("/").at(-2)!;
    const before = this.#recordsOf(bootId);
    this.disk.flip(path, random.int(0, bytes.length - 1), random.int(0, 7));
    const after = this.#recordsOf(bootId);
    books.rotten(bootId, new Set([...before].filter((recordNo) => !after.has(recordNo))));
    return true;
  }

  /** The numbers of the settled records that can be read. */
  #recordsOf(bootId: string): Set<number> {
    const numbers = new Set<number>();
    for (const { path, bytes } of this.disk.files(".log")) {
      if (!path.includes(bootId)) continue;
      scanSegment(bytes, ({ type, payload }) => {
        const head = type === FrameType.SETTLE ? readRecordHead(payload) : null;
        if (head !== null) numbers.add(head.recordNo);
      });
    }
    return numbers;
  }

  /** The first settlement in the journal of a dead run rots. */
  rotSettlement(): void {
    const { books, control } = this.#world;
    for (const { path, bytes } of this.disk.files(".log")) {
      let at = -1;
      scanSegment(bytes, ({ type, start }) => {
        if (type === FrameType.SETTLE && at < 0) at = start;
      });
      if (at < 0) continue;
      this.disk.flip(path, at + FRAME_HEADER_BYTES + 1, 3);
      books.diskLost(this.boots.keys(), (bootId) => this.#reportedNo(control, bootId));
      return;
    }
  }

  #reportedNo(control: Control, bootId: string): number {
    return Number(control.ledger.boots.get(bootId)?.lastRecordNo ?? 0);
  }

  /** SIGSTOP for so long. */
  freeze(ms: number): void {
    if (this.boot === null) return;
    // What is frozen already stays so.
    this.boot.actor.frozenUntil = Math.max(this.boot.actor.frozenUntil, this.#world.scheduler.now + ms);
    this.steadySince = this.boot.actor.frozenUntil;
  }

  /** As node.ts: everything is written and reported, and the home is let go of. Its requests have ended. */
  stop(done: (allReported: boolean) => void): void {
    const { boot } = this;
    if (boot === null) return;
    this.stopping = true;
    const { scheduler } = this.#world;
    scheduler.after(
      0,
      () => {
        void this.#release(boot).then((all) => {
          boot.actor.alive = false;
          if (this.boot === boot) this.boot = null;
          scheduler.after(0, () => done(all), scheduler.world);
        });
      },
      boot.actor,
    );
  }

  async #release({ bootId, actor, journal, reporter, recovery, pipeline }: Boot): Promise<boolean> {
    pipeline.abortAll();
    await pipeline.idle();
    pipeline.close();
    await recovery.stop();
    await journal.sync();
    const all = await reporter.stop(FINAL_REPORT_MS);
    await journal.close();
    if (all) removeBootDir(ROOT, bootId, this.disk.view(actor));
    return all;
  }
}
