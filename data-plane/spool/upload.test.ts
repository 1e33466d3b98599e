/** Uploads through the real parts: node:http, the spool, undici. Nothing is held whole, and everything is given back. */

import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import OpenAI, { toFile } from "openai";
import pino from "pino";
import { afterEach, expect, test } from "vitest";
import { createFormReader, formModel, modelSplice, readForm } from "../multipart_form.ts";
import { type RunningServer, startServer } from "../server.ts";
import { announcedBytes, receiveBody } from "./receive.ts";
import type { Spool } from "./spool.ts";
import { Spools } from "./spools.ts";
import type { Exchange, OutboundCall, Pipeline, Upstream } from "../transport.ts";
import { createUpstream } from "../upstream.ts";

const MIB = 1024 * 1024;
let toClose: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of toClose.reverse()) await close();
  toClose = [];
});

interface World {
  readonly port: number;
  readonly dir: string;
  readonly spools: Spools;
  /** What happened, in order. */
  readonly events: string[];
  /** The spool of the last request. */
  spool: Spool | null;
}

interface Behaviour {
  answer(request: IncomingMessage, response: ServerResponse): void;
  /** Begin to send as soon as the model is known. */
  readonly early?: boolean;
  readonly bytesMax?: number;
}

/** The shortest pipeline there is. */
class Relay implements Pipeline {
  live = 0;
  private readonly world: World;
  private readonly upstream: Upstream;
  private readonly origin: string;
  private readonly behaviour: Behaviour;

  constructor(world: World, upstream: Upstream, origin: string, behaviour: Behaviour) {
    this.world = world;
    this.upstream = upstream;
    this.origin = origin;
    this.behaviour = behaviour;
  }

  handle(exchange: Exchange): void {
    const { world, behaviour } = this;
    const spool = world.spools.create(announcedBytes(exchange))!;
    world.spool = spool;
    const form = createFormReader(exchange.header("content-type"));
    let call: OutboundCall | null = null;
    exchange.setSink({
      onDrain() {},
      onGone() {
        world.events.push("gone");
        spool.fail("cut");
        if (call === null) spool.close();
      },
    });
    const finish = (status: number, text: string): void => {
      spool.close();
      exchange.writeHead(status, ["content-length", String(text.length)]);
      exchange.end(Buffer.from(text));
    };
    receiveBody(exchange, spool, behaviour.bytesMax ?? 64 * MIB, {
      onChunk: (chunk) => {
        form.push(chunk);
        if (behaviour.early === true && call === null && formModel(form.parts) !== null) call = send();
      },
      onEnd: () => {
        form.end();
        expect(readForm(form).model.name).toBe("my-model");
        call ??= send();
      },
      onFailure: (failure) => finish(failure === "too_large" ? 413 : 503, failure),
    });
    const send = (): OutboundCall => {
      const splice = modelSplice(formModel(form.parts)!, "upstream-name");
      let head = 0;
      let text = "";
      return this.upstream.send(
        {
          origin: this.origin,
          path: "/v1/audio/transcriptions",
          method: "POST",
          headers: ["content-type", exchange.header("content-type")],
          body: spool.source([splice]),
        },
        {
          onSent: () => world.events.push("sent"),
          onBodySent: () => world.events.push("body sent"),
          onHead: (status) => (head = status),
          onChunk: (chunk) => (text += chunk.toString()),
          onEnd: () => finish(head, text),
          onError: (kind, detail) => {
            world.events.push(`error ${kind} ${detail}`);
            finish(502, kind);
          },
        },
      );
    };
  }
  idle(): Promise<void> {
    return Promise.resolve();
  }
  abortAll(): void {}
  close(): void {}
}

async function start(behaviour: Behaviour): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), "spool-"));
  toClose.push(() => rm(dir, { recursive: true }));
  let files = 0;
  const spools = await Spools.open({ dir, newId: () => String(files++) });
  const target = createServer((request, response) => behaviour.answer(request, response));
  await once(target.listen(0, "127.0.0.1"), "listening");
  const origin = `http://127.0.0.1:${(target.address() as AddressInfo).port}`;
  toClose.push(() => (target.closeAllConnections(), target.close()));
  const upstream = createUpstream({ allowPrivate: true });
  toClose.push(() => upstream.close());
  const world: World = { port: 0, dir, spools, events: [], spool: null };
  const server: RunningServer = await startServer({
    address: "127.0.0.1:0",
    pipeline: new Relay(world, upstream, origin, behaviour),
    health: { ready: () => true, metrics: () => Promise.reject(new Error("none")) },
    newId: (prefix) => prefix,
    log: pino({ level: "silent" }),
  });
  toClose.push(() => server.close({ drainMs: 0 }));
  return Object.assign(world, { port: Number(server.address.split(":")[1]) });
}

const HEAD = '--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n';
const model = (name: string): string =>
  `\r\n--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n${name}\r\n--B--\r\n`;
/** The first part is the model. */
const MODEL_FIRST = '--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nmy-model\r\n';
const BLOCK = Buffer.alloc(256 * 1024);
for (let i = 0; i < BLOCK.length; i++) BLOCK[i] = (i * 31 + (i >> 8)) & 0xff;

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Sends a form with a file of so many blocks and then the model. */
async function upload(
  port: number,
  blocks: number,
  chunked = false,
  onBlock?: (block: number) => void,
): Promise<Answer> {
  const length = HEAD.length + blocks * BLOCK.length + model("my-model").length;
  const request = httpRequest({
    port,
    host: "127.0.0.1",
    method: "POST",
    agent: false,
    headers: { "content-type": "multipart/form-data; boundary=B", ...(chunked ? {} : { "content-length": length }) },
  });
  const answered = once(request, "response") as Promise<[IncomingMessage]>;
  request.write(HEAD);
  for (let block = 0; block < blocks; block++) {
    if (!request.write(BLOCK)) await once(request, "drain");
    onBlock?.(block);
  }
  request.end(model("my-model"));
  const [response] = await answered;
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode!, text };
}

function expected(blocks: number): string {
  const hash = createHash("sha256").update(HEAD);
  for (let block = 0; block < blocks; block++) hash.update(BLOCK);
  return hash.update(model("upstream-name")).digest("hex");
}

async function hashBody(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = createHash("sha256");
  for await (const chunk of request) hash.update(chunk as Buffer);
  const { "content-length": length, "transfer-encoding": coding } = request.headers;
  response.end(`${hash.digest("hex")} ${length ?? coding}`);
}

async function eventually(check: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !check(); i++) await sleep(5);
  expect(check()).toBe(true);
}

async function openFiles(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}

const BLOCKS_25_MB = 100;

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;
/** Bytes outside the engine's heap that are really in use. */
function held(): number {
  gc();
  return process.memoryUsage().arrayBuffers;
}

test("25 MB arrive with the model replaced, at flat memory, and nothing is left", async () => {
  const world = await start({ answer: (...both) => void hashBody(...both) });
  await upload(world.port, 4);
  const before = held();
  const { rss } = process.memoryUsage();
  let most = 0;
  let mostHeld = 0;
  const { status, text } = await upload(world.port, BLOCKS_25_MB, false, (block) => {
    most = Math.max(most, world.spools.memoryBytes);
    if (block % 10 === 9) mostHeld = Math.max(mostHeld, held() - before);
  });
  const length = HEAD.length + BLOCKS_25_MB * BLOCK.length + model("upstream-name").length;
  expect([status, text]).toEqual([200, `${expected(BLOCKS_25_MB)} ${length}`]);
  expect(most).toBeLessThan(MIB);
  // Client, gateway and upstream are all in this process.
  expect(mostHeld).toBeLessThan(6 * MIB);
  expect(process.memoryUsage().rss - rss).toBeLessThan(64 * MIB);
  await eventually(() => world.spools.live === 0);
  expect([world.spools.memoryBytes, world.spools.diskBytes]).toEqual([0, 0]);
  expect(await readdir(world.dir)).toEqual([]);
  expect(world.events).toEqual(["sent", "body sent", "sent", "body sent"]);
});

test("small forms never touch the disk, and those without a length go in chunks", async () => {
  const world = await start({ answer: (...both) => void hashBody(...both) });
  const { text } = await upload(world.port, 0, true);
  // It was received whole before it was sent, so its length is known.
  expect(text).toBe(`${expected(0)} ${HEAD.length + model("upstream-name").length}`);
  const early = await start({ early: true, answer: (...both) => void hashBody(...both) });
  const request = httpRequest({
    port: early.port,
    host: "127.0.0.1",
    method: "POST",
    headers: { "content-type": "multipart/form-data; boundary=B" },
  });
  request.write(MODEL_FIRST + HEAD);
  // The upstream is on the line while the client still sends.
  await eventually(() => early.events.includes("sent"));
  request.end("data\r\n--B--\r\n");
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let answer = "";
  for await (const chunk of response) answer += String(chunk);
  expect(answer.endsWith(" chunked")).toBe(true);
  await eventually(() => early.spools.live === 0);
});

test("the official SDK's form, whatever the order of its fields", async () => {
  let body = "";
  const world = await start({
    async answer(request, response) {
      for await (const chunk of request) body += (chunk as Buffer).toString("latin1");
      response.end('{"text":"hi"}');
    },
  });
  const client = new OpenAI({ apiKey: "k", baseURL: `http://127.0.0.1:${world.port}/v1`, maxRetries: 0 });
  const file = await toFile(Buffer.alloc(600_000, "a\r\n"), "speech.mp3", { type: "audio/mpeg" });
  const granularities = ["word" as const, "segment" as const];
  const asked = { file, model: "my-model", timestamp_granularities: granularities };
  expect(await client.audio.transcriptions.create(asked)).toBe('{"text":"hi"}');
  expect(body).toContain('name="model"\r\n\r\nupstream-name\r\n');
  expect(body).toContain('name="timestamp_granularities[]"\r\n\r\nsegment\r\n');
  expect(body).toContain("a\r\n".repeat(200_000));
  await eventually(() => world.spools.live === 0);
});

test.each([false, true])("a client that goes away in the middle closes everything (sent early: %s)", async (early) => {
  let closed = 0;
  const world = await start({
    early,
    answer: (request) => {
      request.on("error", () => undefined).on("close", () => closed++);
      request.resume();
    },
  });
  const files = await openFiles();
  const socket = connect(world.port, "127.0.0.1");
  socket.write(
    `POST / HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=B\r\ncontent-length: 50000000\r\n\r\n${MODEL_FIRST}${HEAD}`,
  );
  for (let i = 0; i < 8; i++) socket.write(BLOCK);
  await eventually(() => (world.spool?.bytes ?? 0) > 8 * BLOCK.length);
  if (early) await eventually(() => world.events.includes("sent"));
  socket.destroy();
  await eventually(() => world.spools.live === 0);
  expect([world.spools.memoryBytes, world.spools.diskBytes]).toEqual([0, 0]);
  expect(world.events).toEqual(early ? ["sent", "gone", "error body REQUEST_BODY_FAILED"] : ["gone"]);
  if (early) await eventually(() => closed === 1);
  await sleep(20);
  expect(await openFiles()).toBeLessThanOrEqual(files);
});

test.each([
  [413, false],
  [401, true],
])("an upstream that answers %i before it has read is heard (and closes: %s)", async (status, close) => {
  const world = await start({
    answer: (_, response) => {
      response.writeHead(status, close ? { connection: "close" } : {});
      response.end("no");
    },
  });
  const answer = await upload(world.port, 40);
  await eventually(() => world.spools.live === 0);
  // Closing without having read resets the connection, which may overtake the answer.
  if (!close || answer.status !== 502) expect(answer).toEqual({ status, text: "no" });
});

test("an upstream that breaks the connection is a reset, and nothing is left", async () => {
  const world = await start({ answer: (request) => void request.socket.destroy() });
  expect(await upload(world.port, 40)).toEqual({ status: 502, text: "reset" });
  await eventually(() => world.spools.live === 0);
});

test("a slow upstream holds the reader back, not memory", async () => {
  let waiting: IncomingMessage | null = null;
  const world = await start({
    answer: (request, response) => {
      waiting = request.pause();
      setTimeout(() => void hashBody(request, response), 150);
    },
  });
  const before = held();
  const done = upload(world.port, BLOCKS_25_MB);
  await eventually(() => waiting !== null);
  await sleep(100);
  expect(world.spools.memoryBytes).toBeLessThan(MIB);
  expect(world.events).toEqual(["sent"]);
  // The kernel's buffers hold some of it too.
  expect(held() - before).toBeLessThan(12 * MIB);
  expect((await done).text.split(" ")[0]).toBe(expected(BLOCKS_25_MB));
});

test.each([true, false])("a body that is too large is refused (announced: %s)", async (announced) => {
  const world = await start({ bytesMax: MIB, answer: () => expect.unreachable() });
  expect(await upload(world.port, 8, !announced)).toEqual({ status: 413, text: "too_large" });
  await eventually(() => world.spools.live === 0);
});

test("the directory is this user's alone, and left-overs go", async () => {
  const dir = await mkdtemp(join(tmpdir(), "spool-"));
  toClose.push(() => rm(dir, { recursive: true }));
  const own = join(dir, "a", "b");
  const newId = (): string => "x";
  await Spools.open({ dir: own, newId });
  expect((await stat(own)).mode & 0o777).toBe(0o700);
  await writeFile(join(own, "old.body"), "x");
  await writeFile(join(own, "README"), "x");
  await Spools.open({ dir: own, newId });
  expect(await readdir(own)).toEqual(["README"]);
  expect(await readFile(join(own, "README"), "utf8")).toBe("x");
});
