/** What an open, silent stream costs in memory. */

import { fileURLToPath } from "node:url";
import { setTimeout as delay } from "node:timers/promises";
import { chatRequest } from "./bodies.ts";
import { addDataPlane, configure, startControlPlane } from "./gateway.ts";
import { LOOPBACKS } from "./loopbacks.ts";
import { startNginxProxy } from "./nginx.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { LOAD_CORE, message, pinSelfToLoadCore, PROXY_CORE, rssBytes, start, type Started, stop } from "./processes.ts";
import { printHeading, printTable, spread } from "./stats.ts";
import { openStreams, type StreamTarget } from "./stream_load.ts";

const ROUNDS = 3;
const STREAMS = 2000;
const OPEN_PER_MS = 2;
/** Opened and closed before counting, so that code and pools are there. */
const WARM_UP_STREAMS = 100;
/** Lets timers, reports and garbage collections of the opening pass. */
const SETTLE_MS = 2000;

interface Sample {
  readonly baseMb: number;
  readonly kbPerStream: number;
}

async function measure(proxy: Started, targets: readonly StreamTarget[]): Promise<Sample> {
  for (const { socket } of await openStreams(targets, WARM_UP_STREAMS, OPEN_PER_MS)) socket.destroy();
  await delay(SETTLE_MS);
  const base = rssBytes(proxy.pid);
  const streams = await openStreams(targets, STREAMS, OPEN_PER_MS);
  await delay(SETTLE_MS);
  const open = rssBytes(proxy.pid);
  const closed = streams.filter(({ socket }) => socket.destroyed).length;
  if (closed > 0) throw new Error(`${closed} streams did not stay open`);
  for (const { socket } of streams) socket.destroy();
  return { baseMb: base / 1024 ** 2, kbPerStream: (open - base) / 1024 / STREAMS };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  printHeading(
    "memory",
    `Resident memory per stream at ${STREAMS} open streams that are silent after a first chunk, both sockets and the request.\n` +
      `${LOOPBACKS.length} upstream addresses, since a node keeps a bounded number of connections to one. ${rounds} rounds, each in fresh processes, medians (least-most).`,
  );
  const script = fileURLToPath(new URL("sse_upstream.ts", import.meta.url));
  const upstream = start(
    "the mock upstream",
    process.execPath,
    [script, JSON.stringify({ chunks: 1, everyMs: 20, addresses: LOOPBACKS.length })],
    { core: LOAD_CORE, ipc: true },
  );
  const port = await message(upstream, (value) => value?.port as number | undefined);
  const controlPlane = await startControlPlane(LOAD_CORE);
  const models = LOOPBACKS.map((host) => `at ${host}`);
  const key = await configure(
    controlPlane,
    Object.fromEntries(LOOPBACKS.map((host, i) => [models[i]!, `http://${host}:${port}/v1`])),
  );
  const target = (to: number, secret: string, model: string): StreamTarget => ({
    port: to,
    path: "/v1/chat/completions",
    key: secret,
    body: chatRequest(1, model, true),
  });
  const ours: Sample[] = [];
  const theirs: Sample[] = [];
  for (let round = 0; round < rounds; round++) {
    const { dataPlane, port: at } = await addDataPlane(controlPlane, key, models);
    ours.push(
      await measure(
        dataPlane,
        models.map((model) => target(at, key, model)),
      ),
    );
    await stop(dataPlane);
    const nginx = await startNginxProxy(PROXY_CORE, port, { buffering: false });
    theirs.push(await measure(nginx.process, [target(nginx.port, "none", "bench")]));
    await stop(nginx.process);
  }
  const row = (name: string, samples: readonly Sample[]): string[] => [
    name,
    spread(samples.map((sample) => sample.baseMb)),
    spread(samples.map((sample) => sample.kbPerStream)),
  ];
  printTable(["system", "base RSS MB", "KB per idle stream"], [row("TokenBill", ours), row("nginx", theirs)]);
}

if (import.meta.main) await benchMain(run);
