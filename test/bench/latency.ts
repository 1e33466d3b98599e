/** What the proxy adds to the latency of a request at a modest rate. */

import { chatRequest } from "./bodies.ts";
import { startGateway } from "./gateway.ts";
import { startMockUpstream, startNginxProxy } from "./nginx.ts";
import { type OpenLoopTarget, runOpenLoop } from "./open_loop.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { coreWaitUs, LOAD_CORE, pinSelfToLoadCore, PROXY_CORE } from "./processes.ts";
import { digits, median, percentile, printAim, printHeading, printTable, spread } from "./stats.ts";
import { runWrk } from "./wrk.ts";

const ROUNDS = 5;
const SECONDS = 8;
const PER_SECOND = 1000;
/** Not measured: a stall of 40 ms while connections open again would be the p99 of four seconds. */
const LEAD_IN_S = 2;
/** At full speed: a server that compiles its code as it goes takes tens of thousands of requests to get there. */
const WARM_UP_S = 8;
const WARM_UP_CONNECTIONS = 32;
const ADDED_P99_MS_AIM = 2;
const PERCENTILES = [0.5, 0.9, 0.99, 0.999] as const;

interface System extends OpenLoopTarget {
  readonly pid: number;
}

type Sample = Record<(typeof PERCENTILES)[number] | "late" | "wait", number>;

async function measure(system: System, seconds: number): Promise<Sample> {
  // Idle since its last turn: connections have ended, and caches are somebody else's.
  await runOpenLoop(system, PER_SECOND, LEAD_IN_S);
  const waited = coreWaitUs(system.pid);
  const { latenciesUs, lateUs } = await runOpenLoop(system, PER_SECOND, seconds);
  const wait = (coreWaitUs(system.pid) - waited) / 1e4 / seconds;
  const sample = Object.fromEntries(PERCENTILES.map((p) => [p, percentile(latenciesUs, p) / 1000]));
  return { ...sample, late: percentile(lateUs, 0.99) / 1000, wait } as Sample;
}

async function run({ rounds = ROUNDS, seconds = SECONDS }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  printHeading(
    "latency",
    `Open loop at ${PER_SECOND} requests/s, 1 KB both ways, timed from the scheduled moment. ${rounds} interleaved rounds of ${seconds} s,\n` +
      `medians (least-most) in ms; "added" is to the direct call of the same round; "sent late" is the generator's own p99.\n` +
      `"waited" is the time that its threads were ready but had no core, in % of the time: above a few, the machine is busy and the figures are not ours.`,
  );
  const mock = await startMockUpstream(LOAD_CORE, [1]);
  const nginx = await startNginxProxy(PROXY_CORE, mock.port, { buffering: true });
  const gateway = await startGateway({ "1k": `http://127.0.0.1:${mock.port}/1k/v1` });
  const body = chatRequest(1, "1k");
  const targets: Record<string, System> = {
    direct: { pid: mock.process.pid, port: mock.port, path: "/1k/v1/chat/completions", key: "none", body },
    nginx: { pid: nginx.process.pid, port: nginx.port, path: "/1k/v1/chat/completions", key: "none", body },
    TokenBill: { pid: gateway.dataPlane.pid, port: gateway.port, path: "/v1/chat/completions", key: gateway.key, body },
  };
  const samples = new Map(Object.keys(targets).map((name) => [name, [] as Sample[]]));
  const { port, path } = targets["TokenBill"]!;
  const headers = { authorization: `Bearer ${gateway.key}` };
  await runWrk(LOAD_CORE, { url: `http://127.0.0.1:${port}${path}`, body, headers }, WARM_UP_CONNECTIONS, WARM_UP_S);
  for (const target of Object.values(targets)) await measure(target, 1);
  for (let round = 0; round < rounds; round++) {
    for (const [name, target] of Object.entries(targets)) samples.get(name)!.push(await measure(target, seconds));
  }
  const of = (name: string, pick: keyof Sample): number[] => samples.get(name)!.map((sample) => sample[pick]);
  const added = (name: string, pick: keyof Sample): number[] =>
    of(name, pick).map((value, round) => value - of("direct", pick)[round]!);
  const rows = Object.keys(targets).map((name) => [
    name,
    ...PERCENTILES.map((p) => spread(of(name, p))),
    name === "direct" ? "" : spread(added(name, 0.5)),
    name === "direct" ? "" : spread(added(name, 0.99)),
    digits(median(of(name, "late"))),
    digits(median(of(name, "wait"))),
  ]);
  printTable(["system", "p50", "p90", "p99", "p99.9", "added p50", "added p99", "sent late", "waited %"], rows);
  printAim({
    what: "added p99",
    value: median(added("TokenBill", 0.99)),
    bound: ADDED_P99_MS_AIM,
    kind: "below",
    unit: " ms",
  });
}

if (import.meta.main) await benchMain(run);
