/**
 * Open-loop load at a fixed rate: requests leave by the clock, whatever the answers do, and each is timed from the moment
 * it should have left. A system that stalls therefore pays for every request that it held up (no coordinated omission).
 */

import { connect, type Socket } from "node:net";
import { Worker } from "node:worker_threads";
import { monotonicUs, type PacerData } from "./pacer.ts";

const CONNECTIONS_MAX = 2000;
const LATE_ANSWER_MS = 10_000;
const HEAD_END = Buffer.from("\r\n\r\n");

export interface OpenLoopTarget {
  readonly port: number;
  readonly path: string;
  readonly key: string;
  readonly body: string;
}

export interface OpenLoopResult {
  /** Microseconds from the scheduled moment to the last byte of the answer, one for each request. */
  readonly latenciesUs: Float64Array;
  /** How late requests left, at the 99th percentile to be judged: the generator's own fault. */
  readonly lateUs: Float64Array;
}

/** One kept connection with at most one request under way. Understands answers with a content-length or in chunks. */
class Connection {
  readonly socket: Socket;
  private readonly onAnswer: (connection: Connection, status: number) => void;
  private buffered: Buffer = Buffer.alloc(0);
  index = -1;

  constructor(
    port: number,
    onAnswer: (connection: Connection, status: number) => void,
    onError: (error: Error) => void,
  ) {
    this.onAnswer = onAnswer;
    this.socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.socket.on("data", (chunk) => this.receive(chunk as Buffer));
    this.socket.on("error", onError);
  }

  send(index: number, bytes: Buffer): void {
    this.index = index;
    this.socket.write(bytes);
  }

  private receive(chunk: Buffer): void {
    this.buffered = this.buffered.length === 0 ? chunk : Buffer.concat([this.buffered, chunk]);
    const headEnd = this.buffered.indexOf(HEAD_END);
    if (headEnd < 0) return;
    const head = this.buffered.toString("latin1", 0, headEnd);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head);
    const whole =
      length !== null
        ? this.buffered.length >= headEnd + 4 + Number(length[1])
        : this.buffered.length >= headEnd + 9 &&
          this.buffered.toString("latin1", this.buffered.length - 7).endsWith("\r\n0\r\n\r\n");
    if (!whole) return;
    this.buffered = Buffer.alloc(0);
    this.onAnswer(this, Number(head.slice(9, 12)));
  }
}

function requestBytes({ port, path, key, body }: OpenLoopTarget): Buffer {
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    `authorization: Bearer ${key}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${head.join("\r\n")}\r\n\r\n${body}`);
}

/** @throws when an answer is not 200, a connection breaks, or answers are missing long after the end */
export function runOpenLoop(target: OpenLoopTarget, perSecond: number, seconds: number): Promise<OpenLoopResult> {
  const count = Math.round(perSecond * seconds);
  const bytes = requestBytes(target);
  const everyUs = 1e6 / perSecond;
  const startUs = monotonicUs() + 200_000;
  const latenciesUs = new Float64Array(count);
  const lateUs = new Float64Array(count);
  const idle: Connection[] = [];
  const all: Connection[] = [];
  let answered = 0;
  return new Promise((resolve, reject) => {
    const data: PacerData = { startUs, everyUs, count };
    const pacer = new Worker(new URL("pacer.ts", import.meta.url), { workerData: data });
    const finish = (error?: Error): void => {
      clearTimeout(timeout);
      void pacer.terminate();
      for (const { socket } of all)
        socket
          .removeAllListeners("error")
          .on("error", () => {})
          .destroy();
      if (error === undefined) resolve({ latenciesUs, lateUs });
      else reject(error);
    };
    const timeout = setTimeout(
      () => finish(new Error(`only ${answered} of ${count} answers came`)),
      seconds * 1000 + LATE_ANSWER_MS,
    );
    const onAnswer = (connection: Connection, status: number): void => {
      if (status !== 200) return finish(new Error(`an answer was ${status}`));
      latenciesUs[connection.index] = monotonicUs() - (startUs + connection.index * everyUs);
      idle.push(connection);
      if (++answered === count) finish();
    };
    pacer.on("error", finish);
    pacer.on("message", (index: number) => {
      let connection = idle.pop();
      if (connection === undefined) {
        if (all.length === CONNECTIONS_MAX)
          return finish(new Error(`${CONNECTIONS_MAX} requests are unanswered: the rate is too high`));
        all.push((connection = new Connection(target.port, onAnswer, finish)));
      }
      lateUs[index] = monotonicUs() - (startUs + index * everyUs);
      connection.send(index, bytes);
    });
  });
}
