/**
 * The tokenizer, in a worker thread. The thread starts with the first job, keeps no process alive, and is started again
 * after it died. Everything is bounded: texts (tokens.ts), jobs that wait, and the time of each.
 */

import { Worker } from "node:worker_threads";
import type { Logger } from "pino";
import { encodingOf } from "./encodings.ts";
import type { WorkerAnswer, WorkerJob } from "./token_worker.ts";
import { type CountJob, extrapolate, type TokenCounter, type TokenCounts } from "./tokens.ts";

/** Jobs under way and waiting; more are not taken. */
export const JOBS_MAX = 256;
/** A job that takes longer is given up, with the thread that does it. The first one loads the encoding. */
export const JOB_MS_MAX = 5_000;
/** A thread that died is started again after this. */
export const RESTART_MS = 1_000;
/** An encoding takes about 75 MB. */
const WORKER_HEAP_MB_MAX = 512;

type Done = (counts: TokenCounts | null) => void;

interface Job {
  readonly job: CountJob;
  readonly done: Done;
}

export interface WorkerCounterOptions {
  readonly log: Logger;
  /** For tests: another thread. */
  readonly script?: URL;
  readonly jobMsMax?: number;
  readonly restartMs?: number;
}

export class WorkerCounter implements TokenCounter {
  private readonly log: Logger;
  private readonly script: URL;
  private readonly jobMsMax: number;
  private readonly restartMs: number;
  private readonly waiting: Job[] = [];
  private worker: Worker | null = null;
  private running: Job | null = null;
  private lastId = 0;
  private timer: NodeJS.Timeout | null = null;
  private restart: NodeJS.Timeout | null = null;
  private closed = false;

  constructor({ log, script, jobMsMax = JOB_MS_MAX, restartMs = RESTART_MS }: WorkerCounterOptions) {
    this.log = log;
    this.script = script ?? new URL("./token_worker.ts", import.meta.url);
    this.jobMsMax = jobMsMax;
    this.restartMs = restartMs;
  }

  count(job: CountJob, done: Done): void {
    const full = this.waiting.length + (this.running === null ? 0 : 1) >= JOBS_MAX;
    // A thread that just died is not waited for: nobody would wait so long.
    if (this.closed || full || this.restart !== null) return void setImmediate(done, null);
    this.waiting.push({ job, done });
    this.next();
  }

  /** What is under way is told that it was not counted. */
  async close(): Promise<void> {
    this.closed = true;
    if (this.restart !== null) clearTimeout(this.restart);
    this.restart = null;
    const { worker } = this;
    this.worker = null;
    this.giveUp();
    await worker?.terminate();
  }

  private next(): void {
    if (this.running !== null) return;
    const next = this.waiting.shift();
    if (next === undefined) return;
    this.running = next;
    this.timer = setTimeout(() => this.failed("took too long"), this.jobMsMax);
    this.timer.unref();
    const { model, input, output } = next.job;
    const message: WorkerJob = {
      id: ++this.lastId,
      encoding: encodingOf(model),
      // Copies: what stands behind a view may be a whole socket buffer, or go on to be written.
      input: Uint8Array.from(input.bytes),
      output: Uint8Array.from(output.bytes),
    };
    this.worker ??= this.start();
    this.worker.postMessage(message, [message.input.buffer as ArrayBuffer, message.output.buffer as ArrayBuffer]);
  }

  private start(): Worker {
    const worker = new Worker(this.script, {
      execArgv: [],
      env: {},
      resourceLimits: { maxOldGenerationSizeMb: WORKER_HEAP_MB_MAX },
    });
    worker.unref();
    worker.on("message", (answer: WorkerAnswer) => this.answered(worker, answer));
    worker.on("error", (error) => {
      this.log.error({ err: error }, "the tokenizer failed");
      if (this.worker === worker) this.failed("died");
    });
    worker.on("exit", () => {
      if (this.worker === worker) this.failed("exited");
    });
    return worker;
  }

  private answered(worker: Worker, { id, input, output }: WorkerAnswer): void {
    const { running } = this;
    if (this.worker !== worker || running === null || id !== this.lastId) return;
    this.stopTimer();
    this.running = null;
    const { job, done } = running;
    done({ input: extrapolate(input, job.input), output: extrapolate(output, job.output) });
    this.next();
  }

  /** The thread is of no use any more: what waits for it goes without. */
  private failed(what: string): void {
    if (this.closed) return;
    this.log.warn({ what, waiting: this.waiting.length }, "the tokenizer is started again");
    const { worker } = this;
    this.worker = null;
    void worker?.terminate();
    this.restart = setTimeout(() => (this.restart = null), this.restartMs);
    this.restart.unref();
    this.giveUp();
  }

  private giveUp(): void {
    this.stopTimer();
    const jobs = this.waiting.splice(0);
    if (this.running !== null) jobs.unshift(this.running);
    this.running = null;
    for (const { done } of jobs) done(null);
  }

  private stopTimer(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }
}
