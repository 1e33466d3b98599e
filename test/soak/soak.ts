/**
 * The soak: real nodes between official SDKs and upstreams that misbehave at random, for as long as it is told.
 *
 *     SDKs -> node 1..n -> a healthy upstream, a moody one, one that is killed and started again, and ports that
 *                          refuse, reset, say nothing or speak something else
 *
 * No client may see an error while one healthy target exists; what is cut after content must arrive as an error and be
 * billed; memory stays flat, nothing is leaked, and the books agree.
 */

import { setTimeout as delay } from "node:timers/promises";
import { Outcome, type RequestRecord, type TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { percentile } from "../bench/stats.ts";
import { type Figures, ms, type Run } from "../fault/scenario.ts";
import { Random } from "../simulator/random.ts";
import { closedPort, resettingPort, silentPort, strangePort } from "../support/bad_ports.ts";
import { auditDeep, readRequests, sumOf } from "../support/books.ts";
import type { Part } from "../support/part.ts";
import { untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { type Crowd, PROBLEMS_MAX, startCrowd, type Tally } from "./crowd.ts";
import { MemorySeries, openFiles } from "./gauges.ts";
import type { SoakOptions } from "./options.ts";
import { attemptCounts, explain } from "./explain.ts";
import { CHOICES, openSoakShops, PICO_PER_TOKEN, type SoakShop } from "./shops.ts";

const PROGRESS_MS = 10_000;
const SAMPLE_MS = 1_000;
/** A shorter run says nothing about memory: code is still being compiled, and pools filled. */
const MEMORY_MINUTES_MIN = 3;
const LIFE_MS_MIN = 2_000;
const LIFE_MS_MAX = 12_000;
const DEATH_MS_MAX = 3_000;
/** When nothing runs and all upstreams are gone, a node has at most so many more files open than before the load. */
const FILES_SLACK = 12;
const FILES_TIMEOUT_MS = 30_000;
const WORDS_TO_TOKENS_MAX = 4;

interface World {
  readonly system: System;
  readonly tb: TokenBill;
  readonly shops: readonly SoakShop[];
  /** Upstreams that are processes. */
  readonly children: { well: Part; moody: Part; mortal: Part };
  close(): Promise<void>;
}

async function startUpstreamPart(system: System, title: string, env: Record<string, string> = {}): Promise<Part> {
  return system.spawn(title, "test/soak/upstream_child.ts", { PATH: process.env["PATH"], ...env }).ready();
}

async function openWorld(options: SoakOptions): Promise<World> {
  const system = await System.start({ nodes: options.nodes });
  const ports = await Promise.all([silentPort(), resettingPort("data"), strangePort()]);
  const close = async (): Promise<void> => {
    await system.killAll();
    for (const port of ports) await port.close();
  };
  try {
    const children = {
      well: await startUpstreamPart(system, "well upstream"),
      moody: await startUpstreamPart(system, "moody upstream", { SOAK_SEED: String(options.seed) }),
      mortal: await startUpstreamPart(system, "mortal upstream"),
    };
    const url = (part: Part): string => `http://${part.address}/v1`;
    const tb = await system.api();
    const [silent, resetting, strange] = ports;
    const shops = await openSoakShops(tb, {
      well: url(children.well),
      moody: url(children.moody),
      mortal: url(children.mortal),
      closed: (await closedPort()).url,
      silent: silent.url,
      resetting: resetting.url,
      strange: strange.url,
    });
    for (const node of system.nodes)
      for (const { key } of shops) for (const { model } of CHOICES) await untilServed(node, { key, model });
    return { system, tb, shops, children, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Kills the mortal upstream and starts it again on its port, until `signal`. */
async function bother({ system, children }: World, random: Random, signal: AbortSignal): Promise<number> {
  const env = { SOAK_ADDRESS: children.mortal.address };
  const pause = (most: number, least = 0): Promise<unknown> =>
    delay(random.between(least, most), undefined, { signal }).catch(() => undefined);
  let deaths = 0;
  for (;;) {
    await pause(LIFE_MS_MAX, LIFE_MS_MIN);
    if (signal.aborted) return deaths;
    await children.mortal.kill();
    deaths++;
    await pause(DEATH_MS_MAX);
    if (signal.aborted) return deaths;
    children.mortal = await startUpstreamPart(system, "mortal upstream", env);
  }
}

function progressLine(tally: Tally, memory: MemorySeries): string {
  const news = tally.takeFirstContents();
  const { requests, whole, cut, left, problems } = tally;
  return (
    `${requests} requests, ${whole.size} whole, ${cut.size} cut, ${left} left, ${problems.length} problems; ` +
    `first content p50 ${ms(percentile(news, 0.5))}, p99 ${ms(percentile(news, 0.99))}; nodes ${memory.latest}`
  );
}

/** Lets the load run for its time, and says how it goes. */
async function watch(run: Run, world: World, crowd: Crowd, minutes: number): Promise<MemorySeries> {
  const memory = new MemorySeries();
  const endMs = performance.now() + minutes * 60_000;
  let nextMs = performance.now() + PROGRESS_MS;
  while (performance.now() < endMs && !run.signal.aborted && crowd.tally.problems.length < PROBLEMS_MAX) {
    memory.sample(world.system.nodes);
    if (performance.now() >= nextMs) {
      run.progress(progressLine(crowd.tally, memory));
      nextMs += PROGRESS_MS;
    }
    await delay(SAMPLE_MS, undefined, { signal: run.signal }).catch(() => undefined);
  }
  return memory;
}

/** After the load, and with every upstream gone: what the nodes still have open is leaked. */
async function findLeaks(world: World, before: readonly number[]): Promise<string[]> {
  for (const part of Object.values(world.children)) if (part.running) await part.kill();
  const deadline = performance.now() + FILES_TIMEOUT_MS;
  for (;;) {
    const leaks = world.system.nodes.flatMap((node, n) => {
      const [now, then] = [openFiles(node), before[n]!];
      return now > then + FILES_SLACK ? [`node ${n + 1} has ${now} files open, ${then} before the load`] : [];
    });
    if (leaks.length === 0 || performance.now() > deadline) return leaks;
    await delay(SAMPLE_MS);
  }
}

/** What clients were given, against the log. */
function compare(log: readonly RequestRecord[], { whole, cut }: Tally): string[] {
  const byId = new Map(log.map((request) => [request.id, request]));
  const wrong: string[] = [];
  if (byId.size !== log.length) wrong.push("a request is in the log twice");
  for (const [id, tokens] of whole) {
    const request = byId.get(id);
    const credits = formatCredits(BigInt(tokens) * PICO_PER_TOKEN);
    if (request?.outcome !== Outcome.COMPLETED || request.credits !== credits)
      wrong.push(`${id}, whole: ${credits} expected, ${request && explain(request)}`);
  }
  for (const [id, words] of cut) {
    const request = byId.get(id);
    const most = BigInt(words + 60) * BigInt(WORDS_TO_TOKENS_MAX) * PICO_PER_TOKEN;
    const isCut = request?.outcome === Outcome.UPSTREAM_CUT || request?.outcome === Outcome.TIMEOUT;
    const credits = request === undefined ? 0n : parseCredits(request.credits);
    if (!isCut || credits < BigInt(words) * (PICO_PER_TOKEN / 2n) || credits > most)
      wrong.push(`${id}, cut after ${words} words: ${request && explain(request)}`);
  }
  return wrong;
}

async function closeBooks(world: World, tally: Tally): Promise<{ log: RequestRecord[]; wrong: string[] }> {
  const { system, tb, shops } = world;
  await Promise.all(system.nodes.map(({ part }) => part.stop()));
  const log: RequestRecord[] = [];
  const wrong: string[] = [];
  for (const { veId } of shops) {
    const mine = await readRequests(tb, veId);
    log.push(...mine);
    const { wallet } = await tb.virtualEndpoints.getBalance({ veId });
    const { settled, escrowed, debt } = wallet!;
    if (settled !== sumOf(mine) || escrowed !== "0" || debt !== "0")
      wrong.push(`${veId}: settled ${settled} of ${sumOf(mine)}, escrowed ${escrowed}, debt ${debt}`);
  }
  wrong.push(...compare(log, tally));
  await auditDeep(await system.api("operator")).catch((error: unknown) => wrong.push(String(error)));
  return { log, wrong };
}

function figures(run: Run, tally: Tally, log: readonly RequestRecord[], deaths: number): void {
  const { requests, streams, whole, cut, left, problems, firstContents } = tally;
  const rows: Figures[] = [
    {
      requests,
      streams,
      whole: whole.size,
      cut: cut.size,
      left,
      problems: problems.length,
      upstream_deaths: deaths,
      first_content_p50: ms(percentile(firstContents, 0.5)),
      first_content_p99: ms(percentile(firstContents, 0.99)),
    },
  ];
  run.figures("clients", rows);
  const counts = attemptCounts(log);
  run.figures("attempts by result", [counts.results]);
  run.figures("requests that needed more than one attempt, and attempts by kind", [counts.kinds]);
}

/** @throws Error what was violated, if anything was */
export async function soak(options: SoakOptions, run: Run): Promise<void> {
  const world = await openWorld(options);
  try {
    const { nodes } = world.system;
    const filesBefore = nodes.map(openFiles);
    const random = new Random(options.seed);
    const botherer = new AbortController();
    const deaths = bother(world, new Random(options.seed + 1), botherer.signal);
    const crowd = startCrowd(nodes, world.shops, options.clients, random);
    const memory = await watch(run, world, crowd, options.minutes);
    await crowd.stop();
    botherer.abort();
    const died = await deaths;
    run.progress(progressLine(crowd.tally, memory));
    const violations = [...crowd.tally.problems, ...(await findLeaks(world, filesBefore))];
    const { log, wrong } = await closeBooks(world, crowd.tally);
    violations.push(...wrong);
    figures(run, crowd.tally, log, died);
    const rows = memory.rows();
    const shown = rows.map(({ second, last, allowed, ...row }) => ({
      node: row.node,
      second_quarter: `${Math.round(second)} MB`,
      last_quarter: `${Math.round(last)} MB`,
      allowed: `${Math.round(allowed)} MB`,
      "series, MB": row.series,
    }));
    run.figures("memory of the nodes, medians", shown);
    if (options.minutes >= MEMORY_MINUTES_MIN)
      violations.push(...rows.filter(({ grew }) => grew).map(({ node }) => `the memory of node ${node} grew`));
    const count = violations.length;
    if (count > 0) throw new Error(`${count} violations:\n  ${violations.slice(0, PROBLEMS_MAX).join("\n  ")}`);
  } finally {
    await world.close();
  }
}
