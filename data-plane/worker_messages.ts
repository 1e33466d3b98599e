/** What a primary and its workers say to each other, and the worker's side of it. */

import { Registry } from "prom-client";
import type { NodeMetrics } from "./metrics.ts";

export type Message =
  | { readonly type: "ready"; readonly address: string }
  /** Primary: the stored route table is yours to write from now on. */
  | { readonly type: "keep_table" }
  /** Worker: somebody asked for `/metrics`. Primary: tell yours. */
  | { readonly type: "metrics"; readonly id: number }
  /** Worker: mine. */
  | { readonly type: "part"; readonly id: number; readonly metrics: object }
  /** Primary: everybody's. */
  | { readonly type: "text"; readonly id: number; readonly body: string };

/** What a worker is, from its start. */
export interface WorkerRole {
  /** From 1. */
  readonly k: number;
  /** Whether it writes the stored route table, of which there is one for all. */
  readonly keepsTable: boolean;
  /** Others serve already: it accepts nothing before it can serve. */
  readonly joins: boolean;
}

/** Tells a worker its role. */
export const WORKER_VARIABLE = "TOKENBILL_WORKER";
/** How long the primary waits for the metrics of a worker. */
export const METRICS_TIMEOUT_MS = 2_000;

export function readRole(env: Readonly<Record<string, string | undefined>>): WorkerRole {
  return JSON.parse(env[WORKER_VARIABLE] ?? "") as WorkerRole;
}

/** In a worker: runs `keep` when the primary says that the stored table is this worker's. */
export function onKeepTable(keep: () => void): void {
  process.on("message", (message: Message) => {
    if (message.type === "keep_table") keep();
  });
}

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
