/** What translations between formats cost beside passing through: each chunk of a stream, whole answers, requests. */

import type { Admitted } from "../../data-plane/admitted.ts";
import { scanBody } from "../../data-plane/body.ts";
import { CHAT, MESSAGES, RESPONSES } from "../../data-plane/endpoints.ts";
import type { Bridge, EndpointSpec } from "../../data-plane/formats/format.ts";
import { bridgeOf, bridgesOf } from "../../data-plane/formats/index.ts";
import { relayFor, type RelayHost } from "../../data-plane/relay.ts";
import {
  BedrockApi,
  ModelApi,
  ProviderFormat,
  type RoutePm,
  type RouteProvider,
} from "../../data-plane/route_types.ts";
import { AnswerHead } from "../../data-plane/upstream_head.ts";
import { type Cost, cpuOf } from "./cost.ts";
import {
  ANSWERS,
  chatStream,
  type Content,
  converseStream,
  messagesStream,
  REQUESTS,
  responsesStream,
} from "./formats_samples.ts";
import { benchMain, type BenchOptions } from "./options.ts";
import { digits, median, printHeading, printTable, spread } from "./stats.ts";

const ROUNDS = 9;
const WARM_UP_ROUNDS = 2;
const PIECES = 200;
const STREAMS = 60;
const ANSWER_COUNT = 1_000;
const REQUEST_COUNT = 500;
const BODY_BYTES = 20 * 1024;
const CONTENTS = ["text", "tool"] as const;

type Speech = "chat" | "messages" | "responses" | "converse";

interface Pair {
  readonly name: string;
  readonly endpoint: EndpointSpec;
  readonly client: keyof typeof REQUESTS;
  readonly upstream: Speech;
  readonly pm: RoutePm;
  readonly bridge: Bridge;
}

const STREAM_OF = {
  chat: chatStream,
  messages: messagesStream,
  responses: responsesStream,
  converse: converseStream,
} as const;
const ENDPOINT_OF = { chat: CHAT, messages: MESSAGES, responses: RESPONSES } as const;
const FORMAT_OF: Readonly<Record<Speech, number>> = {
  chat: ProviderFormat.OPENAI,
  responses: ProviderFormat.OPENAI,
  messages: ProviderFormat.ANTHROPIC,
  converse: ProviderFormat.AWS_BEDROCK,
};

function targetOf(upstream: Speech): RoutePm {
  const provider = {
    id: "prv_bench",
    format: FORMAT_OF[upstream],
    origin: "https://upstream.example",
    basePath: upstream === "converse" ? "" : "/v1",
    baseQuery: "",
    apiKey: "key",
    account: { dialect: 0, apiVersion: "", region: "", bedrockApi: BedrockApi.CONVERSE, aws: null, entra: null },
    headers: [],
  } as Partial<RouteProvider> as RouteProvider;
  const apis = upstream === "chat" ? [ModelApi.CHAT_COMPLETIONS] : upstream === "responses" ? [ModelApi.RESPONSES] : [];
  provider.bridges = bridgesOf(provider, apis);
  const upstreamName = upstream === "messages" || upstream === "converse" ? "claude-sonnet-4-5" : "bench-upstream";
  return {
    id: "pm_bench",
    provider,
    upstreamName,
    family: "",
    maxOutputTokens: 0,
    apis,
  } as Partial<RoutePm> as RoutePm;
}

function pairOf(client: keyof typeof REQUESTS, upstream: Speech): Pair {
  const endpoint = ENDPOINT_OF[client];
  const pm = targetOf(upstream);
  const bridge = bridgeOf(endpoint, pm)!;
  return { name: client === upstream ? client : `${client} from ${upstream}`, endpoint, client, upstream, pm, bridge };
}

/** What passes through first. */
const PAIRS: readonly Pair[] = [
  pairOf("chat", "chat"),
  pairOf("responses", "responses"),
  pairOf("messages", "messages"),
  pairOf("chat", "messages"),
  pairOf("chat", "converse"),
  pairOf("chat", "responses"),
  pairOf("messages", "chat"),
  pairOf("messages", "converse"),
  pairOf("messages", "responses"),
  pairOf("responses", "chat"),
  pairOf("responses", "messages"),
  pairOf("responses", "converse"),
];

/** As much of an admitted request as bridges and relays look at. */
function askedOf({ endpoint, client }: Pair, stream: boolean): Admitted {
  const body = scanBody(Buffer.from(JSON.stringify({ ...REQUESTS[client](BODY_BYTES), ...(stream && { stream }) })));
  const asked = {
    id: "usg_bench",
    arriveMs: 0,
    endpoint,
    body,
    stream,
    clampTo: null,
    pinSecret: "",
    previousId: null,
    form: null,
    mediaSeconds: null,
  };
  return asked as Partial<Admitted> as Admitted;
}

/** Counts what a client would get. */
class Client implements RelayHost {
  bytes = 0;
  ended = 0;
  commit(): void {}
  write(bytes: Uint8Array): void {
    this.bytes += bytes.length;
  }
  badAnswer(detail: string): void {
    throw new Error(`no answer: ${detail}`);
  }
  complete(final: Uint8Array | null): void {
    this.bytes += final?.length ?? 0;
    this.ended++;
  }
  broken(detail: string): void {
    throw new Error(`broken: ${detail}`);
  }
  metered(): void {}
}

const STREAM_HEAD = new AnswerHead(200, { "content-type": "text/event-stream" });

/** One chunk holds one frame, as they come when a model is generating. Costs are per frame. */
function streamCase(pair: Pair, content: Content): () => Promise<Cost> {
  const chunks = STREAM_OF[pair.upstream](content, PIECES);
  const asked = askedOf(pair, true);
  return async () => {
    const client = new Client();
    const cost = await cpuOf(STREAMS * chunks.length, async () => {
      for (let i = 0; i < STREAMS; i++) {
        const relay = relayFor(client, pair.bridge, asked, pair.pm, STREAM_HEAD);
        for (const chunk of chunks) relay.onChunk(chunk);
        relay.onEnd();
        if (relay.delivered().usage === null) throw new Error(`${pair.name}: there is no usage`);
      }
    });
    if (client.ended !== STREAMS || client.bytes === 0) throw new Error(`${pair.name}: the streams are not whole`);
    return cost;
  };
}

const JSON_HEAD = new AnswerHead(200, { "content-type": "application/json" });

function answerCase(pair: Pair): () => Promise<Cost> {
  const body = Buffer.from(JSON.stringify(ANSWERS[pair.upstream](BODY_BYTES)));
  const asked = askedOf(pair, false);
  return async () => {
    const client = new Client();
    const cost = await cpuOf(ANSWER_COUNT, async () => {
      for (let i = 0; i < ANSWER_COUNT; i++) {
        const relay = relayFor(client, pair.bridge, asked, pair.pm, JSON_HEAD);
        relay.onChunk(body);
        relay.onEnd();
      }
    });
    if (client.ended !== ANSWER_COUNT) throw new Error(`${pair.name}: the answers are not whole`);
    return cost;
  };
}

/** Bodies are scanned before, since that is done for every request; each is translated once, since it is parsed once. */
function requestCase(pair: Pair): () => Promise<Cost> {
  return async () => {
    const asked = Array.from({ length: REQUEST_COUNT }, () => askedOf(pair, false));
    return cpuOf(REQUEST_COUNT, async () => {
      for (const each of asked) {
        const { body } = pair.bridge.request(pair.pm, each, []);
        if (Buffer.byteLength(body as Buffer) < BODY_BYTES / 2) throw new Error(`${pair.name}: it is not whole`);
      }
    });
  };
}

interface Column {
  readonly name: string;
  readonly measure: (pair: Pair) => () => Promise<Cost>;
}

const COLUMNS: readonly Column[] = [
  ...CONTENTS.map((content): Column => ({ name: `${content} chunk`, measure: (pair) => streamCase(pair, content) })),
  { name: "answer", measure: answerCase },
  { name: "request", measure: requestCase },
];

async function run({ rounds = ROUNDS }: BenchOptions): Promise<void> {
  printHeading(
    "formats",
    `Relays and bridges alone, without sockets: µs of CPU (least-most) and bytes of the JavaScript heap, medians of ${rounds} interleaved rounds.\n` +
      `Chunks are the frames of streams with ${PIECES} deltas, one frame each, everything about the stream included. Answers and\n` +
      `requests have ${BODY_BYTES / 1024} KB; requests have 10 messages and 5 tools. The first three pass through.`,
  );
  const cases = COLUMNS.map(({ measure }) => PAIRS.map((pair) => ({ run: measure(pair), costs: [] as Cost[] })));
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    for (const each of cases.flat()) {
      const cost = await each.run();
      if (round >= 0) each.costs.push(cost);
    }
  }
  const cells = (column: number, pair: number): string[] => {
    const { costs } = cases[column]![pair]!;
    return [spread(costs.map(({ ns }) => ns / 1000)), digits(median(costs.map(({ bytes }) => bytes)))];
  };
  for (const part of [
    [0, 1],
    [2, 3],
  ]) {
    printTable(
      ["client and upstream", ...part.flatMap((column) => [`${COLUMNS[column]!.name} µs`, "bytes"])],
      PAIRS.map(({ name }, pair) => [name, ...part.flatMap((column) => cells(column, pair))]),
    );
    console.log("");
  }
}

if (import.meta.main) await benchMain(run);
