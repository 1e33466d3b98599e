/** What the proxy adds to streams: time to first byte, delay of each chunk, CPU per chunk. */

import { fileURLToPath } from "node:url";
import { chatRequest } from "./bodies.ts";
import { startGateway } from "./gateway.ts";
import { startNginxProxy } from "./nginx.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { coreWaitUs, cpuUs, LOAD_CORE, message, pinSelfToLoadCore, PROXY_CORE, start } from "./processes.ts";
import { digits, median, percentile, printHeading, printTable, spread } from "./stats.ts";
import { openStreams, type StreamTarget } from "./stream_load.ts";

const ROUNDS = 5;
const STREAMS = 200;
const CHUNKS = 100;
const EVERY_MS = 20;
/** Opened each millisecond: 200 streams within 100 ms. */
const OPEN_PER_MS = 2;

interface System {
  readonly name: string;
  readonly target: StreamTarget;
  readonly pid: number;
}

interface Sample {
  readonly firstByteMs: number;
  readonly firstByteP99Ms: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuUs: number;
  /** Share of the time, in %, that threads were ready but had no core. */
  readonly wait: number;
}

async function measure({ target, pid }: System, chunks: number): Promise<Sample> {
  const before = cpuUs(pid);
  const waited = coreWaitUs(pid);
  const begin = performance.now();
  const streams = await openStreams([target], STREAMS, OPEN_PER_MS);
  await Promise.all(streams.map((stream) => stream.ended));
  const used = cpuUs(pid) - before;
  const wait = (coreWaitUs(pid) - waited) / 10 / (performance.now() - begin);
  const delays = streams.flatMap((stream) => stream.times.chunkUs);
  if (delays.length !== STREAMS * chunks)
    throw new Error(`${delays.length} chunks came instead of ${STREAMS * chunks}`);
  const firstBytes = streams.map((stream) => stream.times.firstByteUs);
  return {
    firstByteMs: median(firstBytes) / 1000,
    firstByteP99Ms: percentile(firstBytes, 0.99) / 1000,
    p50Ms: median(delays) / 1000,
    p99Ms: percentile(delays, 0.99) / 1000,
    cpuUs: used / delays.length,
    wait,
  };
}

function report(systems: readonly System[], samples: ReadonlyMap<string, Sample[]>): void {
  const of = (name: string, pick: keyof Sample): number[] => samples.get(name)!.map((sample) => sample[pick]);
  const added = (name: string, pick: keyof Sample): string =>
    name === "direct" ? "" : spread(of(name, pick).map((value, round) => value - of("direct", pick)[round]!));
  const rows = systems.map(({ name }) => [
    name,
    digits(median(of(name, "firstByteMs"))),
    digits(median(of(name, "firstByteP99Ms"))),
    added(name, "firstByteMs"),
    digits(median(of(name, "p50Ms"))),
    digits(median(of(name, "p99Ms"))),
    added(name, "p50Ms"),
    added(name, "p99Ms"),
    spread(of(name, "cpuUs")),
    digits(median(of(name, "wait"))),
  ]);
  printTable(
    [
      "system",
      "first byte p50",
      "p99",
      "added p50",
      "chunk p50",
      "p99",
      "added p50",
      "added p99",
      "CPU µs/chunk",
      "waited %",
    ],
    rows,
  );
}

async function run({ rounds = ROUNDS, seconds = (CHUNKS * EVERY_MS) / 1000 }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  const chunks = Math.max(2, Math.round((seconds * 1000) / EVERY_MS));
  printHeading(
    "sse",
    `${STREAMS} streams of ${chunks} chunks, one every ${EVERY_MS} ms, opened within ${STREAMS / OPEN_PER_MS} ms. ${rounds} interleaved rounds, medians (least-most)\n` +
      `in ms. Each chunk carries the moment of its writing. nginx does not buffer. CPU of "direct" is the upstream's own.\n` +
      `"waited": ready but without a core, in % of the time; above a few the machine is busy.`,
  );
  const script = fileURLToPath(new URL("sse_upstream.ts", import.meta.url));
  const settings = JSON.stringify({ chunks, everyMs: EVERY_MS });
  const upstream = start("the mock upstream", process.execPath, [script, settings], { core: LOAD_CORE, ipc: true });
  const port = await message(upstream, (value) => value?.port as number | undefined);
  const nginx = await startNginxProxy(PROXY_CORE, port, { buffering: false });
  const gateway = await startGateway({ bench: `http://127.0.0.1:${port}/v1` });
  const body = chatRequest(1, "bench", true);
  const target = (to: number, key: string): StreamTarget => ({ port: to, path: "/v1/chat/completions", key, body });
  const systems: System[] = [
    { name: "TokenBill", target: target(gateway.port, gateway.key), pid: gateway.dataPlane.pid },
    { name: "nginx", target: target(nginx.port, "none"), pid: nginx.process.pid },
    { name: "direct", target: target(port, "none"), pid: upstream.pid },
  ];
  const samples = new Map(systems.map(({ name }) => [name, [] as Sample[]]));
  for (const system of systems) await measure(system, chunks);
  for (let round = 0; round < rounds; round++) {
    for (const system of systems) samples.get(system.name)!.push(await measure(system, chunks));
  }
  report(systems, samples);
}

if (import.meta.main) await benchMain(run);
