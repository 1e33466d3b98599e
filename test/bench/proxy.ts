/** Requests per second and CPU per request of one worker on one core, beside nginx on the same core and a direct call. */

import { chatRequest } from "./bodies.ts";
import { startGateway } from "./gateway.ts";
import { startMockUpstream, startNginxProxy } from "./nginx.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { cpuUs, LOAD_CORE, pinSelfToLoadCore, PROXY_CORE } from "./processes.ts";
import { digits, median, printAim, printHeading, printTable, spread } from "./stats.ts";
import { runWrk } from "./wrk.ts";

const ROUNDS = 5;
const SECONDS = 2;
/** A server that compiles its code as it goes takes tens of thousands of requests to be at its speed. */
const WARM_UP_S = 5;
const CONNECTIONS = 64;
const RATIO_AIM = 0.15;

/** Sizes of request and answer in KB. */
const SHAPES = [
  { request: 1, answer: 1 },
  { request: 20, answer: 1 },
  { request: 1, answer: 20 },
] as const;

interface System {
  readonly name: "TokenBill" | "nginx" | "direct";
  url(answerKb: number): string;
  /** Whose CPU counts. */
  readonly pid: number;
  readonly key: string;
}

interface Sample {
  readonly perSecond: number;
  readonly cpuUs: number;
  /** Share of its core that it used: below 0.9 something else was the limit. */
  readonly busy: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

async function measure(system: System, shape: (typeof SHAPES)[number], seconds: number): Promise<Sample> {
  const target = {
    url: system.url(shape.answer),
    body: chatRequest(shape.request, `${shape.answer}k`),
    headers: { authorization: `Bearer ${system.key}` },
  };
  const before = cpuUs(system.pid);
  const result = await runWrk(LOAD_CORE, target, CONNECTIONS, seconds);
  const used = cpuUs(system.pid) - before;
  return {
    perSecond: result.requests / result.seconds,
    cpuUs: used / result.requests,
    busy: used / 1e6 / result.seconds,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
  };
}

function report(
  shape: (typeof SHAPES)[number],
  systems: readonly System[],
  samples: ReadonlyMap<string, Sample[]>,
): void {
  const nginx = samples.get("nginx")!;
  console.log(`\nRequest ${shape.request} KB, answer ${shape.answer} KB\n`);
  const of = (name: string, pick: (sample: Sample) => number): number[] => samples.get(name)!.map(pick);
  const ratio = (name: string): number[] =>
    samples.get(name)!.map((sample, round) => sample.perSecond / nginx[round]!.perSecond);
  const rows = systems.map(({ name }) => [
    name,
    spread(of(name, (sample) => sample.perSecond)),
    spread(ratio(name)),
    spread(of(name, (sample) => sample.cpuUs)),
    digits(median(samples.get(name)!.map((sample, round) => nginx[round]!.cpuUs / sample.cpuUs))),
    digits(median(of(name, (sample) => sample.busy))),
    digits(median(of(name, (sample) => sample.p50Us)) / 1000),
    digits(median(of(name, (sample) => sample.p99Us)) / 1000),
  ]);
  printTable(
    ["system", "requests/s", "of nginx", "CPU µs/request", "nginx CPU / its CPU", "core used", "p50 ms", "p99 ms"],
    rows,
  );
  if (shape.request === 1 && shape.answer === 1) {
    printAim({
      what: "requests/s of nginx at 1 KB",
      value: median(ratio("TokenBill")),
      bound: RATIO_AIM,
      kind: "at least",
      unit: "",
    });
  }
}

async function run({ rounds = ROUNDS, seconds = SECONDS }: BenchOptions): Promise<void> {
  pinSelfToLoadCore();
  printHeading(
    "proxy",
    `One worker on one core; load, upstream, control plane and PostgreSQL on the other. ${CONNECTIONS} connections,\n` +
      `${rounds} interleaved rounds of ${seconds} s, medians (least-most), ratios within a round. CPU of "direct" is the upstream's own.\n` +
      `Where a proxy does not use its whole core, requests/s are not its limit but the load's or a busy machine's: then look at the CPU.`,
  );
  const sizes = [...new Set(SHAPES.map(({ answer }) => answer))];
  const mock = await startMockUpstream(LOAD_CORE, sizes);
  const nginx = await startNginxProxy(PROXY_CORE, mock.port, { buffering: true });
  const base = (port: number) => (kb: number) => `http://127.0.0.1:${port}/${kb}k/v1/chat/completions`;
  const gateway = await startGateway(
    Object.fromEntries(sizes.map((kb) => [`${kb}k`, `http://127.0.0.1:${mock.port}/${kb}k/v1`])),
  );
  const systems: System[] = [
    {
      name: "TokenBill",
      url: () => `${gateway.url}/v1/chat/completions`,
      pid: gateway.dataPlane.pid,
      key: gateway.key,
    },
    { name: "nginx", url: base(nginx.port), pid: nginx.process.pid, key: "none" },
    { name: "direct", url: base(mock.port), pid: mock.process.pid, key: "none" },
  ];
  await measure(systems[0]!, SHAPES[0], WARM_UP_S);
  for (const shape of SHAPES) {
    const samples = new Map(systems.map(({ name }) => [name, [] as Sample[]]));
    for (const system of systems) await measure(system, shape, 1);
    for (let round = 0; round < rounds; round++) {
      for (const system of systems) samples.get(system.name)!.push(await measure(system, shape, seconds));
    }
    report(shape, systems, samples);
  }
}

if (import.meta.main) await benchMain(run);
