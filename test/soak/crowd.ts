/** The clients of the soak: official SDKs that try nothing twice, so that every error is seen. */

import { setTimeout as delay } from "node:timers/promises";
import OpenAI from "openai";
import { Agent, fetch as undiciFetch } from "undici";
import type { Random } from "../simulator/random.ts";
import type { DataPlaneNode } from "../support/system.ts";
import { type Choice, CHOICES, type SoakShop } from "./shops.ts";

const REST_MS_MAX = 150;
const PROMPT_WORDS_MAX = 30;
const USERS = 20;
/** Of the requests, those whose client does not wait for the end. */
const LEAVING = 0.06;
const LEAVE_MS_MAX = 400;
const LEAVE_CHUNKS_MAX = 8;
/** No request may go on for longer after the load. */
const END_MS_MAX = 60_000;
/** So many problems are kept; beyond it the soak ends early. */
export const PROBLEMS_MAX = 20;

/** What clients were given. */
export class Tally {
  requests = 0;
  streams = 0;
  left = 0;
  /** Tokens of whole answers, by request id. */
  readonly whole = new Map<string, number>();
  /** Words of answers that broke off, by request id. */
  readonly cut = new Map<string, number>();
  /** What no client may see. */
  readonly problems: string[] = [];
  /** Milliseconds from asking to the first content of a stream: of all, and since they were last looked at. */
  readonly firstContents: number[] = [];
  #seen = 0;

  takeFirstContents(): number[] {
    const news = this.firstContents.slice(this.#seen);
    this.#seen = this.firstContents.length;
    return news;
  }
}

interface Ask {
  readonly client: OpenAI;
  readonly choice: Choice;
  readonly params: Omit<OpenAI.ChatCompletionCreateParamsNonStreaming, "stream">;
  /** When to leave, if at all: after so many chunks of content, or milliseconds. */
  readonly leave: { readonly chunks: number; readonly ms: number } | null;
}

async function askJson({ client, params, leave }: Ask, tally: Tally): Promise<void> {
  const controller = new AbortController();
  const timer = leave === null ? undefined : setTimeout(() => controller.abort(), leave.ms);
  try {
    const { signal } = controller;
    const { data, response } = await client.chat.completions.create(params, { signal }).withResponse();
    tally.whole.set(response.headers.get("x-request-id")!, data.usage!.total_tokens);
  } catch (error) {
    if (!controller.signal.aborted) throw error;
    tally.left++;
  } finally {
    clearTimeout(timer);
  }
}

async function askStream({ client, choice, params, leave }: Ask, tally: Tally): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const timer = leave === null ? undefined : setTimeout(() => controller.abort(), leave.ms);
  const beganMs = performance.now();
  tally.streams++;
  let [id, words, tokens] = ["", 0, 0];
  try {
    const { data, response } = await client.chat.completions
      .create({ ...params, stream: true, stream_options: { include_usage: true } }, { signal })
      .withResponse();
    id = response.headers.get("x-request-id")!;
    for await (const chunk of data) {
      if (chunk.choices[0]?.delta.content && ++words === 1) tally.firstContents.push(performance.now() - beganMs);
      tokens += chunk.usage?.total_tokens ?? 0;
      if (leave !== null && words >= leave.chunks) controller.abort();
    }
  } catch (error) {
    if (signal.aborted) {
      tally.left++;
      return;
    }
    // What was cut after content must be an error that the SDK understands, and only where that may be.
    if (!choice.cuts || words === 0 || !(error instanceof OpenAI.APIError)) throw error;
    tally.cut.set(id, words);
    return;
  } finally {
    clearTimeout(timer);
  }
  if (signal.aborted) tally.left++;
  else if (tokens === 0) throw new Error(`a stream ended after ${words} words without its usage or an error`);
  else tally.whole.set(id, tokens);
}

function drawChoice(random: Random): Choice {
  let left = random.between(
    0,
    CHOICES.reduce((sum, { weight }) => sum + weight, 0),
  );
  return CHOICES.find(({ weight }) => (left -= weight) < 0) ?? CHOICES[0]!;
}

function drawAsk(client: OpenAI, random: Random): Ask {
  const choice = drawChoice(random);
  const content = Array.from({ length: random.int(1, PROMPT_WORDS_MAX) }, () => "word").join(" ");
  const params = {
    model: choice.model,
    messages: [{ role: "user" as const, content }],
    user: `user-${random.int(1, USERS)}`,
  };
  const leaves = random.chance(LEAVING);
  const leave = leaves ? { chunks: random.int(1, LEAVE_CHUNKS_MAX), ms: random.between(0, LEAVE_MS_MAX) } : null;
  return { client, choice, params, leave };
}

export interface Crowd {
  readonly tally: Tally;
  /** Waits for the answers that are under way, and closes the connections. */
  stop(): Promise<void>;
}

/** Clients of all shops at all nodes, each asking one thing after the other. */
export function startCrowd(
  nodes: readonly DataPlaneNode[],
  shops: readonly SoakShop[],
  count: number,
  random: Random,
): Crowd {
  const tally = new Tally();
  const dispatcher = new Agent();
  // A pool of their own, which can be closed: whatever the nodes then still have open is theirs.
  const fetch = ((url: string, init: object) =>
    undiciFetch(url, { ...init, dispatcher })) as unknown as typeof globalThis.fetch;
  let stopped = false;
  const run = async (i: number): Promise<void> => {
    const node = nodes[i % nodes.length]!;
    const shop = shops[Math.floor(i / nodes.length) % shops.length]!;
    const client = node.openai(shop.key, { maxRetries: 0, fetch });
    while (!stopped && tally.problems.length < PROBLEMS_MAX) {
      const ask = drawAsk(client, random);
      tally.requests++;
      const isStream = ask.choice.cuts || random.chance(0.5);
      await (isStream ? askStream : askJson)(ask, tally).catch((error: unknown) => {
        const { status, code, headers } = error as { status?: number; code?: string; headers?: Headers };
        const id = headers?.get("x-request-id") ?? "";
        const kind = isStream ? "stream" : "JSON";
        tally.problems.push(`${ask.choice.model} ${kind}: ${status ?? ""} ${code ?? ""} ${error} ${id}`);
      });
      await delay(random.between(0, REST_MS_MAX));
    }
  };
  const clients = Promise.all(Array.from({ length: count }, (_, i) => run(i)));
  return {
    tally,
    async stop() {
      stopped = true;
      const late = setTimeout(() => {
        tally.problems.push(`requests had not ended ${END_MS_MAX} ms after the load`);
        void dispatcher.destroy();
      }, END_MS_MAX);
      await clients;
      clearTimeout(late);
      await dispatcher.destroy();
    },
  };
}
