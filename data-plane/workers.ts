/**
 * `DATA_PLANE_WORKERS=n`: n processes serve one port, each a node of its own with its own boot, journal and leases. The
 * primary starts them, starts a dead one again, and puts their metrics together.
 */

import cluster, { type Worker } from "node:cluster";
import type { Logger } from "pino";
import { AggregatorRegistry, Registry } from "prom-client";
import { FINAL_REPORT_MS } from "./node.ts";
import type { NodeMetrics } from "./metrics.ts";

/** Tells a worker its number. */
export const WORKER_VARIABLE = "TOKENBILL_WORKER";
const RESTART_MIN_MS = 100;
const RESTART_MAX_MS = 10_000;
/** A worker that lived this long starts with a clean record. */
const STEADY_MS = 30_000;
const METRICS_TIMEOUT_MS = 2_000;
/** Beyond what a worker may take to stop, before it is killed. */
const STOP_SLACK_MS = 5_000;
const EXIT_CONFIG = 78;

/** What workers and primary say to each other. */
type Message =
  | { readonly type: "ready"; readonly address: string }
  /** Worker: somebody asked for `/metrics`. Primary: tell yours. */
  | { readonly type: "metrics"; readonly id: number }
  /** Worker: mine. */
  | { readonly type: "part"; readonly id: number; readonly metrics: object }
  /** Primary: everybody's. */
  | { readonly type: "text"; readonly id: number; readonly body: string };

/** In a worker: answers `/metrics` with those of all workers, and gives the primary its own. */
export function answerMetrics(own: () => NodeMetrics): () => Promise<{ contentType: string; body: string }> {
  const waiting = new Map<number, (body: string) => void>();
  let lastId = 0;
  process.on("message", (message: Message) => {
    if (message.type === "metrics") {
      void own()
        .registry.getMetricsAsJSON()
        .then((metrics) => process.send?.({ type: "part", id: message.id, metrics } satisfies Message));
    } else if (message.type === "text") {
      waiting.get(message.id)?.(message.body);
    }
  });
  return async () => {
    const id = ++lastId;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const timer = setTimeout(() => reject(new Error("the primary did not answer")), METRICS_TIMEOUT_MS * 2);
    waiting.set(id, resolve);
    process.send?.({ type: "metrics", id } satisfies Message);
    try {
      return { contentType: Registry.PROMETHEUS_CONTENT_TYPE, body: await promise };
    } finally {
      clearTimeout(timer);
      waiting.delete(id);
    }
  };
}

export interface PrimaryOptions {
  readonly count: number;
  readonly nodeId: string;
  readonly drainMs: number;
  readonly log: Logger;
  /** Arranges that `stop` runs on SIGTERM and the like. */
  onStop(stop: () => Promise<void>, log: Logger): void;
}

interface Slot {
  readonly k: number;
  worker: Worker | null;
  ready: boolean;
  startedAt: number;
  failures: number;
}

class Primary {
  readonly #options: PrimaryOptions;
  readonly #slots: Slot[];
  readonly #collections = new Map<number, { readonly parts: object[]; readonly add: (part: object) => void }>();
  #lastId = 0;
  #stopping = false;
  #told = false;
  #onExit: () => void = () => undefined;

  constructor(options: PrimaryOptions) {
    this.#options = options;
    this.#slots = Array.from({ length: options.count }, (_, n) => ({
      k: n + 1,
      worker: null,
      ready: false,
      startedAt: 0,
      failures: 0,
    }));
  }

  start(): void {
    // The kernel hands connections out; going through this process would cost every one of them a detour.
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    for (const slot of this.#slots) this.#fork(slot);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    const kill = setTimeout(
      () => {
        for (const { worker } of this.#slots) worker?.process.kill("SIGKILL");
      },
      this.#options.drainMs + FINAL_REPORT_MS + STOP_SLACK_MS,
    );
    this.#onExit = () => {
      if (this.#slots.every(({ worker }) => worker === null)) resolve();
    };
    for (const { worker } of this.#slots) worker?.process.kill("SIGTERM");
    this.#onExit();
    await promise;
    clearTimeout(kill);
  }

  #fork(slot: Slot): void {
    const worker = cluster.fork({ [WORKER_VARIABLE]: String(slot.k), NODE_ID: this.#options.nodeId });
    slot.worker = worker;
    slot.ready = false;
    slot.startedAt = performance.now();
    worker.on("message", (message: Message) => this.#onMessage(slot, worker, message));
    worker.on("error", (error) =>
      this.#options.log.error({ err: error, worker: slot.k }, "a worker cannot be reached"),
    );
    worker.on("exit", (code, signal) => this.#onWorkerExit(slot, code, signal));
  }

  #onMessage(slot: Slot, worker: Worker, message: Message): void {
    if (message.type === "ready") {
      slot.ready = true;
      if (this.#told || !this.#slots.every(({ ready }) => ready)) return;
      this.#told = true;
      this.#options.log.info({ address: message.address, workers: this.#slots.length }, "all workers are ready");
      if (process.connected) process.send?.({ type: "ready", address: message.address });
    } else if (message.type === "metrics") {
      void this.#collect().then((body) => {
        if (worker.isConnected()) worker.send({ type: "text", id: message.id, body } satisfies Message);
      });
    } else if (message.type === "part") {
      this.#collections.get(message.id)?.add(message.metrics);
    }
  }

  #onWorkerExit(slot: Slot, code: number | null, signal: string | null): void {
    slot.worker = null;
    slot.ready = false;
    if (this.#stopping) return this.#onExit();
    if (code === EXIT_CONFIG) {
      // It has said why, and would say it again.
      void this.stop().then(() => process.exit(EXIT_CONFIG));
      return;
    }
    slot.failures = performance.now() - slot.startedAt > STEADY_MS ? 1 : slot.failures + 1;
    const delayMs = Math.min(RESTART_MAX_MS, RESTART_MIN_MS * 2 ** (slot.failures - 1));
    this.#options.log.error({ worker: slot.k, code, signal, delayMs }, "a worker died; starting it again");
    setTimeout(() => {
      if (!this.#stopping) this.#fork(slot);
    }, delayMs);
  }

  /** The metrics of all workers that answer in time. */
  async #collect(): Promise<string> {
    const id = ++this.#lastId;
    const asked = this.#slots.filter(({ worker }) => worker?.isConnected() === true);
    const { promise, resolve } = Promise.withResolvers<void>();
    const parts: object[] = [];
    const add = (part: object): void => {
      parts.push(part);
      if (parts.length >= asked.length) resolve();
    };
    this.#collections.set(id, { parts, add });
    const timer = setTimeout(resolve, METRICS_TIMEOUT_MS);
    for (const { worker } of asked) worker!.send({ type: "metrics", id } satisfies Message);
    await promise;
    clearTimeout(timer);
    this.#collections.delete(id);
    return AggregatorRegistry.aggregate(parts).metrics();
  }
}

/** Starts the workers and looks after them until the process is told to stop. */
export async function runPrimary(options: PrimaryOptions): Promise<void> {
  const primary = new Primary(options);
  options.onStop(() => primary.stop(), options.log);
  primary.start();
}
