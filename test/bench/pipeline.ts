/** CPU and allocation of our own pipeline per request: real route table, budget and journal between two fake transports. */

import { getHeapStatistics } from "node:v8";
import type { Pipeline } from "../../data-plane/transport.ts";
import { chatAnswer, chatRequest } from "./bodies.ts";
import { modelNameOf, secretOf } from "./feed_world.ts";
import { type Answer, drive, type MemoryRequest, MemoryUpstream, passThrough } from "./memory_transport.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { startMemoryPipeline, WORLD } from "./pipeline_parts.ts";
import { digits, median, printAim, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 7;
/** Until then code is still being compiled, on other threads that count too. */
const WARM_UP_ROUNDS = 3;
const REQUESTS = 10_000;
const REQUESTS_PREPARED = 5_000;
/** As when 64 connections are busy, and as when few are. */
const PER_TURN = [32, 4] as const;
const STREAM_CHUNKS = 50;
const CPU_US_AIM = 15;

interface Case {
  readonly name: string;
  readonly requests: readonly MemoryRequest[];
  readonly answer: Answer;
  readonly perTurn: number;
  readonly count: number;
}

interface Sample {
  readonly cpuUs: number;
  readonly bytes: number;
}

function prepareRequests(kb: number, stream: boolean): MemoryRequest[] {
  return Array.from({ length: REQUESTS_PREPARED }, () => {
    const ve = Math.floor(Math.random() * WORLD.ves);
    const model = modelNameOf(WORLD, ve, Math.floor(Math.random() * WORLD.lmsPerVe));
    // As off a socket: nothing shares these strings.
    const authorization = Buffer.from(`Bearer ${secretOf(ve)}`, "latin1").toString("latin1");
    return {
      headers: {
        authorization,
        host: "127.0.0.1:8081",
        "content-type": "application/json",
        "user-agent": "OpenAI/JS 7.57.0",
      },
      body: Buffer.from(chatRequest(kb, model, stream)),
    };
  });
}

function jsonAnswer(kb: number): Answer {
  const body = Buffer.from(chatAnswer(kb));
  const headers = {
    "content-type": "application/json",
    "content-length": String(body.length),
    "x-request-id": "req_bench",
  };
  return { headers, chunks: [body] };
}

function streamAnswer(): Answer {
  const frame = (rest: string): Buffer =>
    Buffer.from(
      `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1764000000,"model":"bench-upstream",${rest}}\n\n`,
    );
  const content = frame(
    `"choices":[{"index":0,"delta":{"content":" and a word"},"logprobs":null,"finish_reason":null}]`,
  );
  const chunks = Array.from({ length: STREAM_CHUNKS }, () => content);
  chunks.push(frame(`"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]`));
  chunks.push(frame(`"choices":[],"usage":{"prompt_tokens":200,"completion_tokens":50,"total_tokens":250}`));
  chunks.push(Buffer.from("data: [DONE]\n\n"));
  return { headers: { "content-type": "text/event-stream", "x-request-id": "req_bench" }, chunks };
}

function makeCases(): Case[] {
  const small = prepareRequests(1, false);
  const json = PER_TURN.map((perTurn): Case => ({
    name: `JSON 1 KB, ${perTurn} a turn`,
    requests: small,
    answer: jsonAnswer(1),
    perTurn,
    count: REQUESTS,
  }));
  const [busy] = PER_TURN;
  return [
    ...json,
    {
      name: `JSON 20 KB, ${busy} a turn`,
      requests: prepareRequests(20, false),
      answer: jsonAnswer(20),
      perTurn: busy,
      count: REQUESTS,
    },
    {
      name: `stream of ${STREAM_CHUNKS} chunks`,
      requests: prepareRequests(1, true),
      answer: streamAnswer(),
      perTurn: busy,
      count: REQUESTS / 5,
    },
  ];
}

async function measure(
  pipeline: Pick<Pipeline, "handle">,
  upstream: MemoryUpstream,
  { requests, answer, perTurn, count }: Case,
): Promise<Sample> {
  globalThis.gc?.();
  const allocated = getHeapStatistics().total_allocated_bytes;
  const cpu = process.cpuUsage();
  await drive(pipeline, upstream, requests, answer, count, perTurn);
  const { user, system } = process.cpuUsage(cpu);
  return { cpuUs: (user + system) / count, bytes: (getHeapStatistics().total_allocated_bytes - allocated) / count };
}

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "pipeline",
    `CPU of the whole process (all threads, journal files and garbage collection included) per request, less what the driver itself costs.\n` +
      `${WORLD.ves.toLocaleString("en-US")} VEs with ${WORLD.lmsPerVe} Logical Models. ${rounds} rounds, interleaved with the driver alone, medians (least-most). Bytes are of the JavaScript heap.`,
  );
  const upstream = new MemoryUpstream();
  const parts = await startMemoryPipeline(upstream);
  const alone = passThrough(upstream);
  const cases = makeCases();
  const net = cases.map(() => ({ cpu: [] as number[], bytes: [] as number[] }));
  const driver = cases.map(() => [] as number[]);
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    for (const [index, each] of cases.entries()) {
      const base = await measure(alone, upstream, each);
      const sample = await measure(parts.pipeline, upstream, each);
      await parts.settle();
      if (round < 0) continue;
      driver[index]!.push(base.cpuUs);
      net[index]!.cpu.push(sample.cpuUs - base.cpuUs);
      net[index]!.bytes.push(sample.bytes - base.bytes);
    }
  }
  const rows = cases.map(({ name }, index) => [
    name,
    spread(net[index]!.cpu),
    digits(median(net[index]!.bytes)),
    digits(median(driver[index]!)),
  ]);
  printTable(["case", "CPU µs/request", "bytes/request", "driver µs"], rows);
  const [json, , , stream] = net;
  console.log(`\nA chunk of a stream: ${digits((median(stream!.cpu) - median(json!.cpu)) / STREAM_CHUNKS)} µs more.`);
  printAim({
    what: `CPU per 1 KB request, ${PER_TURN[0]} a turn,`,
    value: median(json!.cpu),
    bound: CPU_US_AIM,
    kind: "below",
    unit: " µs",
  });
  await parts.close();
}

if (import.meta.main) await benchMain(run);
