/**
 * A worker thread that posts a message at the moments of a schedule. Timers of an event loop are a millisecond coarse;
 * a thread that sleeps on a futex is not, and costs no core to spin on.
 */

import { parentPort, workerData } from "node:worker_threads";

/** Microseconds on the monotonic clock, the same for all threads and processes of the machine. */
export function monotonicUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

export interface PacerData {
  readonly startUs: number;
  readonly everyUs: number;
  readonly count: number;
}

function pace({ startUs, everyUs, count }: PacerData): void {
  const never = new Int32Array(new SharedArrayBuffer(4));
  for (let index = 0; index < count; index++) {
    const waitUs = startUs + index * everyUs - monotonicUs();
    if (waitUs > 0) Atomics.wait(never, 0, 0, waitUs / 1000);
    parentPort!.postMessage(index);
  }
}

if (parentPort !== null) pace(workerData as PacerData);
