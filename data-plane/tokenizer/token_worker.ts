/** Runs in a worker thread: counts the tokens of samples, one job at a time. */

import { parentPort } from "node:worker_threads";
import type { EncodingName } from "./encodings.ts";
import { partsOf, textsOf } from "./text.ts";

export interface WorkerJob {
  readonly id: number;
  readonly encoding: EncodingName;
  readonly input: Uint8Array;
  readonly output: Uint8Array;
}

export interface WorkerAnswer {
  readonly id: number;
  readonly input: number;
  readonly output: number;
}

/** Words whose tokens the library remembers: the frequent ones, not everything that ever was said. */
const CACHED_WORDS = 4096;

type Count = (text: string) => number;

const LOADERS: Readonly<Record<EncodingName, () => Promise<{ countTokens: unknown; setMergeCacheSize: unknown }>>> = {
  o200k_base: () => import("gpt-tokenizer/encoding/o200k_base"),
  cl100k_base: () => import("gpt-tokenizer/encoding/cl100k_base"),
};
const loaded = new Map<EncodingName, Promise<Count>>();

async function load(name: EncodingName): Promise<Count> {
  const encoding = await LOADERS[name]();
  (encoding.setMergeCacheSize as (words: number) => void)(CACHED_WORDS);
  const countTokens = encoding.countTokens as (text: string, options: { disallowedSpecial: Set<string> }) => number;
  // Marks such as <|endoftext|> are text like any other when users write them.
  const options = { disallowedSpecial: new Set<string>() };
  return (text) => countTokens(text, options);
}

function tokensOf(sample: Uint8Array, count: Count): number {
  let tokens = 0;
  for (const text of textsOf(sample)) for (const part of partsOf(text)) tokens += count(part);
  return tokens;
}

parentPort?.on("message", ({ id, encoding, input, output }: WorkerJob) => {
  let counting = loaded.get(encoding);
  if (counting === undefined) loaded.set(encoding, (counting = load(encoding)));
  void counting.then((count) => {
    const answer: WorkerAnswer = { id, input: tokensOf(input, count), output: tokensOf(output, count) };
    parentPort!.postMessage(answer);
  });
});
