/** Many seeds on several processes. */

import { type ChildProcess, fork } from "node:child_process";
import { constants, setPriority } from "node:os";
import { fileURLToPath } from "node:url";
import type { Options } from "./options.ts";
import { mergeInto, newTotals, type Totals } from "./totals.ts";

const WORKER = fileURLToPath(new URL("worker.ts", import.meta.url));
const PLANT = new URL("plant.ts", import.meta.url).href;

export interface Crowd {
  readonly ended: Promise<void>;
  readonly totals: Totals;
  /** All seeds below this one are done. */
  next(): number;
  stop(): void;
}

/** Its time is simulated: it needs much of the processors, and at no moment in particular. Tests with real clocks go first. */
function yieldTo({ pid }: ChildProcess): void {
  if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_LOW);
}

type Task = Pick<Options, "first" | "seeds" | "workers" | "mutation">;

/** `onProgress` hears of each batch. Rejects when a worker dies. */
export function startCrowd(task: Task, onProgress: (totals: Totals) => void, untilFailure = false): Crowd {
  const { first, seeds, workers, mutation } = task;
  const totals = newTotals();
  const reached = Array.from({ length: workers }, (_, part) => first + part);
  const children: ChildProcess[] = [];
  let stopped = false;
  const stop = (): void => {
    stopped = true;
    for (const child of children) child.kill("SIGKILL");
  };
  const run = (part: number): Promise<void> => {
    const args = ["--first", first, "--seeds", seeds, "--workers", workers, "--part", part].map(String);
    const execArgv = mutation === null ? [] : ["--import", PLANT];
    const env = mutation === null ? process.env : { ...process.env, SIMULATOR_MUTATION: mutation };
    const child = fork(WORKER, args, { execArgv, env });
    children.push(child);
    yieldTo(child);
    child.on("message", (message: { totals: Totals; next: number }) => {
      mergeInto(totals, message.totals);
      reached[part] = message.next;
      onProgress(totals);
      if (untilFailure && totals.failures.length > 0) stop();
    });
    return new Promise((done, fail) => {
      child.on("exit", (code) => {
        if (code === 0 || stopped) done();
        else fail(new Error(`a worker of the simulator ended with ${code}, before seed ${reached[part]} was done`));
      });
    });
  };
  const ended = Promise.all(reached.map((_, part) => run(part))).then(() => undefined);
  return { ended, totals, next: () => Math.min(...reached), stop };
}
