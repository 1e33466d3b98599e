/** Opens many streams on bare sockets and times their chunks by the moments written inside of them. */

import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { monotonicUs } from "./pacer.ts";

export interface StreamTarget {
  readonly port: number;
  readonly path: string;
  readonly key: string;
  readonly body: string;
}

export interface StreamTimes {
  /** Microseconds from the request to the first byte of the answer. */
  firstByteUs: number;
  /** Microseconds from the request to the first content. */
  firstChunkUs: number;
  /** Microseconds that each content chunk took from the upstream's write to its arrival. */
  readonly chunkUs: number[];
}

export interface OpenStream {
  readonly socket: Socket;
  readonly times: StreamTimes;
  /** Resolves with the first content. */
  readonly first: Promise<void>;
  /** Resolves when the stream ended as it should. */
  readonly ended: Promise<void>;
}

export function openStream({ port, path, key, body }: StreamTarget): OpenStream {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const times: StreamTimes = { firstByteUs: 0, firstChunkUs: 0, chunkUs: [] };
  const first = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  // Whoever waits for one of them only must not be told twice.
  first.promise.catch(() => {});
  ended.promise.catch(() => {});
  let sentUs = 0;
  let rest = "";
  socket.setEncoding("latin1");
  socket.once("connect", () => {
    sentUs = monotonicUs();
    socket.write(
      `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nauthorization: Bearer ${key}\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  });
  socket.on("data", (data) => {
    const now = monotonicUs();
    if (times.firstByteUs === 0) {
      times.firstByteUs = now - sentUs;
      if (!(data as unknown as string).startsWith("HTTP/1.1 200"))
        socket.destroy(new Error(`the answer to a stream was ${String(data).slice(0, 1000)}`));
    }
    const text = rest + (data as unknown as string);
    let after = 0;
    for (const match of text.matchAll(/@(\d+)@/g)) {
      times.chunkUs.push(now - Number(match[1]));
      after = match.index + match[0].length;
    }
    if (times.chunkUs.length > 0 && times.firstChunkUs === 0) {
      times.firstChunkUs = now - sentUs;
      first.resolve();
    }
    if (text.includes("[DONE]") && text.endsWith("\r\n0\r\n\r\n")) {
      ended.resolve();
      socket.destroy();
    }
    // A mark or the end may be cut by the border of two reads.
    rest = text.slice(Math.max(after, text.length - 256));
  });
  const broken = (error?: Error): void => {
    first.reject(error ?? new Error("a stream was closed early"));
    ended.reject(error ?? new Error("a stream was closed early"));
  };
  socket.once("error", broken);
  socket.once("close", () => broken());
  return { socket, times, first: first.promise, ended: ended.promise };
}

/** Opens `count` streams, `perMs` of them each millisecond and in turn to each target, and waits for each one's first content. */
export async function openStreams(
  targets: readonly StreamTarget[],
  count: number,
  perMs: number,
): Promise<OpenStream[]> {
  const streams: OpenStream[] = [];
  while (streams.length < count) {
    for (let i = 0; i < perMs && streams.length < count; i++)
      streams.push(openStream(targets[streams.length % targets.length]!));
    await delay(1);
  }
  await Promise.all(streams.map((stream) => stream.first));
  return streams;
}
