/**
 * A mock upstream for streams on bare sockets. Every content chunk carries the moment of its writing. Settings come as
 * JSON in argv: `{chunks, everyMs}`; with `chunks: 1` a stream stays open and silent after its first chunk.
 */

import { type AddressInfo, createServer, type Socket } from "node:net";
import { LOOPBACKS } from "./loopbacks.ts";
import { monotonicUs } from "./pacer.ts";

interface StreamSettings {
  /** Content chunks of a whole stream; 1: the stream never ends. */
  readonly chunks: number;
  readonly everyMs: number;
  /** How many of LOOPBACKS to listen on; by default one. */
  readonly addresses?: number;
}

interface Stream {
  readonly socket: Socket;
  sent: number;
  readonly usage: boolean;
}

const HEAD =
  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
const BASE = `{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764000000,"model":"bench-upstream"`;
const USAGE = `,"choices":[],"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}`;

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

function content(): string {
  // "@…@" is what the client looks for.
  return chunk(
    `data: ${BASE},"choices":[{"index":0,"delta":{"content":"@${monotonicUs()}@ and a word"},"finish_reason":null}]}\n\n`,
  );
}

function ending(usage: boolean): string {
  const stop = chunk(`data: ${BASE},"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n`);
  return `${stop}${usage ? chunk(`data: ${BASE}${USAGE}\n\n`) : ""}${chunk("data: [DONE]\n\n")}0\r\n\r\n`;
}

const settings = JSON.parse(process.argv[2]!) as StreamSettings;
/** Streams by the millisecond of the period in which they write, so that they do not all write at once. */
const slots: Set<Stream>[] = Array.from({ length: settings.everyMs }, () => new Set<Stream>());
let opened = 0;

function open(socket: Socket, request: string): void {
  const stream: Stream = { socket, sent: 0, usage: request.includes('"include_usage":true') };
  socket.write(HEAD);
  if (settings.chunks === 1) {
    socket.write(content());
    return;
  }
  const slot = slots[opened++ % slots.length]!;
  slot.add(stream);
  socket.once("close", () => slot.delete(stream));
}

function write(slot: Set<Stream>): void {
  for (const stream of slot) {
    if (stream.sent === settings.chunks) {
      slot.delete(stream);
      stream.socket.write(ending(stream.usage));
    } else {
      stream.sent++;
      stream.socket.write(content());
    }
  }
}

function serve(socket: Socket): void {
  let buffered = "";
  socket.setEncoding("latin1");
  socket.on("error", () => {});
  socket.on("data", (text) => {
    buffered += text;
    const headEnd = buffered.indexOf("\r\n\r\n");
    const length = /\r\ncontent-length: *(\d+)/i.exec(buffered);
    if (headEnd < 0 || length === null || buffered.length < headEnd + 4 + Number(length[1])) return;
    open(socket, buffered);
    buffered = "";
  });
}

let tick = Math.ceil(performance.now());
setInterval(() => {
  // Timers may skip a millisecond under load; no slot may be skipped with it.
  for (const now = performance.now(); tick <= now; tick++) write(slots[tick % slots.length]!);
}, 1);

/** The same port on several addresses: to a client each is an upstream of its own. */
async function listen(): Promise<void> {
  let port = 0;
  for (const host of LOOPBACKS.slice(0, settings.addresses ?? 1)) {
    const server = createServer({ noDelay: true }, serve);
    await new Promise<void>((resolve) => server.listen({ port, host, backlog: 4096 }, resolve));
    port = (server.address() as AddressInfo).port;
  }
  process.send?.({ type: "ready", port });
}

await listen();
process.on("disconnect", () => process.exit(0));
process.on("SIGTERM", () => process.exit(0));
