/** What the nodes hold: memory and file descriptors, as the system counts them. */

import { readdirSync, readFileSync } from "node:fs";
import type { DataPlaneNode } from "../support/system.ts";

/** The last quarter of a run may have so much more than the second one. */
const MEMORY_FACTOR_MAX = 1.15;
const MEMORY_SLACK_MB = 20;
const MIB = 1024 ** 2;

function rssMb({ part }: DataPlaneNode): number {
  const status = readFileSync(`/proc/${part.process.pid}/status`, "utf8");
  return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024) / MIB;
}

export function openFiles({ part }: DataPlaneNode): number {
  return readdirSync(`/proc/${part.process.pid}/fd`).length;
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

/** The resident memory of each node over time. */
export class MemorySeries {
  readonly #series: number[][] = [];

  sample(nodes: readonly DataPlaneNode[]): void {
    for (const [n, node] of nodes.entries()) (this.#series[n] ??= []).push(rssMb(node));
  }

  get latest(): string {
    return this.#series.map((series) => `${Math.round(series.at(-1) ?? 0)} MB`).join(" ");
  }

  /** For each node twelve medians over the run, and the two that are compared. */
  rows() {
    return this.#series.map((series, n) => {
      const quarter = series.length / 4;
      const second = medianOf(series.slice(quarter, quarter * 2));
      const last = medianOf(series.slice(quarter * 3));
      const twelfths = Array.from({ length: 12 }, (_, i) =>
        Math.round(medianOf(series.slice((i * series.length) / 12, ((i + 1) * series.length) / 12))),
      );
      const allowed = second * MEMORY_FACTOR_MAX + MEMORY_SLACK_MB;
      return { node: n + 1, second, last, allowed, grew: last > allowed, series: twelfths.join(" ") };
    });
  }
}
