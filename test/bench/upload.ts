/** A large recording through the gateway, beside the same upload without it: how long it takes, and what memory it needs. */

import { createServer, type IncomingMessage, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { startGateway } from "./gateway.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { atEnd, pinSelfToLoadCore, rssBytes } from "./processes.ts";
import { printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 10;
const FILE_BYTES = 25 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;
const WARM_UPS = 3;
const SAMPLE_MS = 5;
const SETTLE_MS = 500;
const BOUNDARY = "bench-boundary";
const MODEL = "recordings";

/** Frames of MP3 (128 kbit/s, 44.1 kHz) that hold nothing: 25 MB of them are walked to be measured. */
function recording(): Buffer {
  const frame = Buffer.alloc(417);
  frame.writeUInt32BE(0xfffb9000, 0);
  return Buffer.concat(Array.from({ length: Math.floor(FILE_BYTES / frame.length) }, () => frame));
}

/** The model stands after the file, as the official SDK writes it. */
function form(): Buffer {
  const part = (name: string, rest: string): string =>
    `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"${rest}\r\n\r\n`;
  return Buffer.concat([
    Buffer.from(part("file", '; filename="a.mp3"\r\ncontent-type: audio/mpeg')),
    recording(),
    Buffer.from(`\r\n${part("model", "")}${MODEL}\r\n--${BOUNDARY}--\r\n`),
  ]);
}

/** Reads everything, and says how much it was. */
async function startUpstream(): Promise<number> {
  const server = createServer((request: IncomingMessage, response) => {
    let bytes = 0;
    request.on("data", (chunk: Buffer) => (bytes += chunk.length));
    request.on("end", () => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ text: String(bytes) }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  atEnd(() => server.closeAllConnections());
  atEnd(() => void server.close());
  return (server.address() as AddressInfo).port;
}

/** Sends the form in chunks; resolves with milliseconds. */
function upload(port: number, key: string, body: Buffer): Promise<number> {
  const began = performance.now();
  return new Promise((resolve, reject) => {
    const headers = {
      authorization: `Bearer ${key}`,
      "content-type": `multipart/form-data; boundary=${BOUNDARY}`,
      "content-length": String(body.length),
    };
    const call = httpRequest({ port, host: "127.0.0.1", path: "/v1/audio/transcriptions", method: "POST", headers });
    call.once("error", reject);
    call.once("response", (response) => {
      response.resume();
      response.once("end", () => {
        if (response.statusCode === 200) resolve(performance.now() - began);
        else reject(new Error(`the answer was ${response.statusCode}`));
      });
    });
    let at = 0;
    const write = (): void => {
      while (at < body.length) {
        const chunk = body.subarray(at, at + CHUNK_BYTES);
        at += chunk.length;
        if (!call.write(chunk)) return void call.once("drain", write);
      }
      call.end();
    };
    write();
  });
}

/** The most memory that a process had while something ran. */
async function peakDuring(pid: number, run: () => Promise<number>): Promise<{ ms: number; peak: number }> {
  let over = false;
  let peak = 0;
  const sampling = (async () => {
    while (!over) {
      peak = Math.max(peak, rssBytes(pid));
      await delay(SAMPLE_MS);
    }
  })();
  const ms = await run();
  over = true;
  await sampling;
  return { ms, peak };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  printHeading(
    "upload",
    `A recording of 25 MB as a form, its model after the file, sent and received on this machine. ${rounds} rounds, interleaved,\n` +
      `medians (least-most). Memory is the most that the node had above what it had before.`,
  );
  const upstreamPort = await startUpstream();
  const gateway = await startGateway({ [MODEL]: `http://127.0.0.1:${upstreamPort}/v1` });
  const body = form();
  for (let i = 0; i < WARM_UPS; i++) await upload(gateway.port, gateway.key, body);
  const direct: number[] = [];
  const ours: number[] = [];
  const grown: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await delay(SETTLE_MS);
    direct.push(await upload(upstreamPort, "none", body));
    const before = rssBytes(gateway.dataPlane.pid);
    const { ms, peak } = await peakDuring(gateway.dataPlane.pid, () => upload(gateway.port, gateway.key, body));
    ours.push(ms);
    grown.push((peak - before) / 1024 ** 2);
  }
  printTable(
    ["way", "ms", "memory MB"],
    [
      ["direct", spread(direct), ""],
      ["TokenBill", spread(ours), spread(grown)],
    ],
  );
}

if (import.meta.main) await benchMain(run);
