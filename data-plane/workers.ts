/**
 * `DATA_PLANE_WORKERS=n`: n processes serve one port, each a node of its own with its own boot, journal and leases. The
 * primary starts them, starts a dead one again, replaces all of them on SIGHUP, and puts their metrics together.
 *
 * The listening socket belongs to all of them, so connections that wait in it are never lost while one of them is left.
 */

import cluster, { type Worker } from "node:cluster";
import type { Logger } from "pino";
import { AggregatorRegistry } from "prom-client";
import { FINAL_REPORT_MS } from "./node.ts";
import { type Message, METRICS_TIMEOUT_MS, WORKER_VARIABLE, type WorkerRole } from "./worker_messages.ts";

const RESTART_MIN_MS = 100;
const RESTART_MAX_MS = 10_000;
/** A worker that lived this long starts with a clean record. */
const STEADY_MS = 30_000;
/** Beyond what a worker may take to stop, before it is killed. */
const STOP_SLACK_MS = 5_000;
/** A new worker that cannot serve by then is given up, and the old one goes on. */
export const JOIN_MS_MAX = 60_000;
const EXIT_CONFIG = 78;

export interface PrimaryOptions {
  readonly count: number;
  readonly nodeId: string;
  readonly drainMs: number;
  readonly log: Logger;
  /** Arranges that `stop` runs on SIGTERM and the like. */
  onStop(stop: () => Promise<void>, log: Logger): void;
  readonly joinMsMax?: number;
}

/** One worker process. */
interface Running {
  readonly k: number;
  readonly worker: Worker;
  readonly startedAt: number;
  ready: boolean;
  /** Runs when it can serve (true), or is gone. */
  onFate: (ready: boolean) => void;
}

/** The place of worker k. */
interface Slot {
  readonly k: number;
  /** Who has it. */
  current: Running | null;
  /** Who is to have it, once it can serve. */
  next: Running | null;
  failures: number;
}

export class Primary {
  readonly #options: PrimaryOptions;
  readonly #slots: Slot[];
  /** Replaced, and finishing what they have. */
  readonly #retired = new Set<Running>();
  readonly #collections = new Map<number, { readonly parts: object[]; readonly add: (part: object) => void }>();
  #lastId = 0;
  /** Who writes the stored route table. */
  #keeper: Running | null = null;
  #stopping = false;
  #reloading = false;
  #reloadAgain = false;
  #told = false;
  /** Runs whenever a process is gone. */
  #onExit: () => void = () => undefined;

  constructor(options: PrimaryOptions) {
    this.#options = options;
    const slot = (_: unknown, n: number): Slot => ({ k: n + 1, current: null, next: null, failures: 0 });
    this.#slots = Array.from({ length: options.count }, slot);
  }

  start(): void {
    // The kernel hands connections out; going through this process would cost every one of them a detour.
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    for (const slot of this.#slots) slot.current = this.#fork(slot);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onExit = () => {
      if (this.#all().length === 0) resolve();
    };
    for (const running of this.#all()) this.#end(running);
    this.#onExit();
    await promise;
  }

  /** Replaces the workers one after the other. Asked for again meanwhile, it is done once more, not twice. */
  async reload(): Promise<void> {
    const { log } = this.#options;
    if (this.#stopping) return;
    if (this.#reloading) {
      this.#reloadAgain = true;
      log.info("workers are being replaced already; it is done again after that");
      return;
    }
    this.#reloading = true;
    do {
      this.#reloadAgain = false;
      log.info("replacing all workers");
      const whole = await this.#replaceAll();
      await this.#untilRetired();
      if (whole && !this.#stopping) log.info("all workers were replaced");
    } while (this.#reloadAgain && !this.#stopping);
    this.#reloading = false;
  }

  /** False: a new worker failed, and what follows it would too. */
  async #replaceAll(): Promise<boolean> {
    for (const slot of this.#slots) {
      if (this.#stopping || !(await this.#replace(slot))) return false;
    }
    return true;
  }

  async #replace(slot: Slot): Promise<boolean> {
    const { log, joinMsMax = JOIN_MS_MAX } = this.#options;
    const next = this.#fork(slot);
    slot.next = next;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    next.onFate = resolve;
    const timer = setTimeout(() => resolve(false), joinMsMax);
    const ready = await promise;
    clearTimeout(timer);
    if (this.#stopping) return false;
    if (!ready) {
      log.error({ worker: slot.k, pid: next.worker.process.pid }, "a new worker cannot serve; the old ones go on");
      // It serves nobody, and may be stuck.
      next.worker.process.kill("SIGKILL");
      return false;
    }
    const old = slot.current;
    [slot.current, slot.next, slot.failures] = [next, null, 0];
    if (old === null) return true;
    this.#retired.add(old);
    this.#end(old);
    return true;
  }

  async #untilRetired(): Promise<void> {
    while (this.#retired.size > 0 && !this.#stopping) {
      await Promise.race([...this.#retired].map(({ worker }) => new Promise((done) => worker.once("exit", done))));
    }
  }

  #all(): Running[] {
    const inSlots = this.#slots.flatMap(({ current, next }) => [current, next]);
    return [...inSlots.filter((running) => running !== null), ...this.#retired];
  }

  /** Asks a worker to stop, and kills it when it does not. */
  #end({ worker }: Running): void {
    worker.process.kill("SIGTERM");
    const kill = (): void => void worker.process.kill("SIGKILL");
    const timer = setTimeout(kill, this.#options.drainMs + FINAL_REPORT_MS + STOP_SLACK_MS);
    worker.once("exit", () => clearTimeout(timer));
  }

  #fork(slot: Slot): Running {
    const { k } = slot;
    const keepsTable = k === 1 && this.#keeper === null;
    const joins = this.#slots.some(({ current }) => current?.ready === true);
    const role: WorkerRole = { k, keepsTable, joins };
    const worker = cluster.fork({ [WORKER_VARIABLE]: JSON.stringify(role), NODE_ID: this.#options.nodeId });
    const running: Running = { k, worker, startedAt: performance.now(), ready: false, onFate: () => undefined };
    if (keepsTable) this.#keeper = running;
    worker.on("message", (message: Message) => this.#onMessage(running, message));
    worker.on("error", (error) => this.#options.log.error({ err: error, worker: k }, "a worker cannot be reached"));
    worker.on("exit", (code, signal) => this.#onWorkerExit(slot, running, code, signal));
    return running;
  }

  #onMessage(running: Running, message: Message): void {
    const { worker } = running;
    if (message.type === "ready") {
      running.ready = true;
      running.onFate(true);
      this.#tell(message.address);
      this.#passTable();
    } else if (message.type === "metrics") {
      void this.#collect().then((body) => {
        if (worker.isConnected()) worker.send({ type: "text", id: message.id, body } satisfies Message);
      });
    } else if (message.type === "part") {
      this.#collections.get(message.id)?.add(message.metrics);
    }
  }

  /** Says once that everybody is ready. */
  #tell(address: string): void {
    if (this.#told || !this.#slots.every(({ current }) => current?.ready === true)) return;
    this.#told = true;
    this.#options.log.info({ address, workers: this.#slots.length, pid: process.pid }, "all workers are ready");
    if (process.connected) process.send?.({ type: "ready", address });
  }

  /** The stored table has one writer at a time: after the old worker 1 is gone, the new one. */
  #passTable(): void {
    const first = this.#slots[0]!.current;
    if (this.#keeper !== null || first === null || !first.ready || !first.worker.isConnected()) return;
    this.#keeper = first;
    first.worker.send({ type: "keep_table" } satisfies Message);
  }

  #onWorkerExit(slot: Slot, running: Running, code: number | null, signal: string | null): void {
    const wasRetired = this.#retired.delete(running);
    if (slot.current === running) slot.current = null;
    if (slot.next === running) slot.next = null;
    if (this.#keeper === running) this.#keeper = null;
    running.onFate(false);
    if (this.#stopping) return this.#onExit();
    this.#passTable();
    if (code === EXIT_CONFIG && !this.#told) {
      // It has said why, and would say it again.
      void this.stop().then(() => process.exit(EXIT_CONFIG));
      return;
    }
    if (!wasRetired) this.#options.log.error({ worker: slot.k, code, signal }, "a worker died");
    else if (code !== 0) this.#options.log.error({ worker: slot.k, code, signal }, "a replaced worker ended badly");
    if (wasRetired) return;
    if (slot.current === null && slot.next === null) this.#forkLater(slot, running);
  }

  #forkLater(slot: Slot, dead: Running): void {
    slot.failures = performance.now() - dead.startedAt > STEADY_MS ? 1 : slot.failures + 1;
    const delayMs = Math.min(RESTART_MAX_MS, RESTART_MIN_MS * 2 ** (slot.failures - 1));
    this.#options.log.info({ worker: slot.k, delayMs }, "starting the worker again");
    setTimeout(() => {
      if (this.#stopping || slot.current !== null || slot.next !== null) return;
      slot.current = this.#fork(slot);
    }, delayMs);
  }

  /** The metrics of all workers that answer in time; those that were replaced are not asked, as their places are taken. */
  async #collect(): Promise<string> {
    const id = ++this.#lastId;
    const asked = this.#slots.flatMap(({ current }) =>
      current?.worker.isConnected() === true ? [current.worker] : [],
    );
    const { promise, resolve } = Promise.withResolvers<void>();
    const parts: object[] = [];
    const add = (part: object): void => {
      parts.push(part);
      if (parts.length >= asked.length) resolve();
    };
    this.#collections.set(id, { parts, add });
    const timer = setTimeout(resolve, asked.length === 0 ? 0 : METRICS_TIMEOUT_MS);
    for (const worker of asked) worker.send({ type: "metrics", id } satisfies Message);
    await promise;
    clearTimeout(timer);
    this.#collections.delete(id);
    return AggregatorRegistry.aggregate(parts).metrics();
  }
}

/** Starts the workers and looks after them until the process is told to stop. */
export function runPrimary(options: PrimaryOptions): Primary {
  const primary = new Primary(options);
  options.onStop(() => primary.stop(), options.log);
  primary.start();
  return primary;
}
