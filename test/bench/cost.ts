/** Time and allocation of something small that is done very often. */

import { getHeapStatistics } from "node:v8";

export interface Cost {
  /** Nanoseconds of each. */
  readonly ns: number;
  /** Bytes of the JavaScript heap that each allocates. */
  readonly bytes: number;
}

/** Runs `each` so often, one after the other. */
export function costOf(count: number, each: (i: number) => void): Cost {
  globalThis.gc?.();
  const allocated = getHeapStatistics().total_allocated_bytes;
  const begin = process.hrtime.bigint();
  for (let i = 0; i < count; i++) each(i);
  const ns = Number(process.hrtime.bigint() - begin) / count;
  return { ns, bytes: (getHeapStatistics().total_allocated_bytes - allocated) / count };
}

/** As `costOf`, for what ends later: `run` resolves when all are done. Its time is the CPU time of this thread. */
export async function cpuOf(count: number, run: () => Promise<void>): Promise<Cost> {
  globalThis.gc?.();
  const allocated = getHeapStatistics().total_allocated_bytes;
  const cpu = process.threadCpuUsage();
  await run();
  const { user, system } = process.threadCpuUsage(cpu);
  return {
    ns: ((user + system) * 1000) / count,
    bytes: (getHeapStatistics().total_allocated_bytes - allocated) / count,
  };
}
