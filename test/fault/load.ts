/** Many clients at once: bursts, and load that goes on until it is told to stop. */

import type { Credits } from "../../core/credits.ts";
import type { DataPlaneNode } from "../support/system.ts";
import { ask, bodyOf, type Fate } from "./client.ts";
import { type FaultShop, PICO_PER_TOKEN, type World } from "./world.ts";

/** Answers of different lengths and speeds: the targets of a shop's Logical Model, drawn at random. */
export const MIXED_MODELS = ["short~words=8", "medium~words=60", "long~words=300", "slow~words=25~chunkDelayMs=15"];
/** The longest answer that a model of these gives without being asked for fewer, so that STRICT need not hold thousands. */
export const MIXED_OUTPUT_MAX = 400;
const MAX_TOKENS = [0, 0, 0, 20, 120];
/** After a refusal or a broken connection a client waits this long. */
const AFTER_FAILURE_MS = 100;

/** One request of the mix. */
export function askMixed(node: DataPlaneNode, shop: FaultShop, random: () => number): Promise<Fate> {
  return ask({
    url: node.url,
    key: shop.key,
    veId: shop.veId,
    model: shop.model,
    stream: random() < 0.5,
    words: 1 + Math.floor(random() * 40),
    maxTokens: MAX_TOKENS[Math.floor(random() * MAX_TOKENS.length)]!,
  });
}

/** The smallest request there is, for finding out whether a wallet still serves. */
export function askSmall(node: DataPlaneNode, shop: FaultShop): Promise<Fate> {
  const { key, veId, model } = shop;
  return ask({ url: node.url, key, veId, model, stream: false, words: 1, maxTokens: 1 });
}

/** The least that this must hold to begin: one token for each byte of it, and in STRICT one of output. */
export function leastNeed({ model, strict }: FaultShop): Credits {
  const small = bodyOf({ model, stream: false, words: 1, maxTokens: 1 });
  return BigInt(Buffer.byteLength(small) + (strict ? 1 : 0)) * PICO_PER_TOKEN;
}

export interface LoadOptions {
  readonly world: World;
  readonly shops: readonly FaultShop[];
  readonly clients: number;
  readonly random: () => number;
  /** Numbers of the nodes that are asked; default: all. */
  readonly nodes?: readonly number[];
  /** Each client begins a request this often at most; default: one after another. */
  readonly everyMs?: number;
}

/** Load that is under way from when it is made until `stop`. Clients try all nodes in turn, also those that are down. */
export class Load {
  readonly fates: Fate[] = [];
  readonly #options: LoadOptions;
  readonly #clients: Promise<void>[];
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.#clients = Array.from({ length: options.clients }, (_, i) => this.#client(i));
  }

  get whole(): number {
    return this.fates.reduce((sum, fate) => sum + (fate.whole ? 1 : 0), 0);
  }

  /** Waits for the answers that are under way. */
  async stop(): Promise<readonly Fate[]> {
    this.#stopping = true;
    await Promise.all(this.#clients);
    return this.fates;
  }

  async #client(i: number): Promise<void> {
    const { world, shops, random, nodes, everyMs = 0 } = this.#options;
    await wait(random() * everyMs);
    for (let n = i; !this.#stopping && !world.closed && !world.run.signal.aborted; n++) {
      const beganMs = performance.now();
      const node = world.nodes[nodes === undefined ? n % world.nodes.length : nodes[n % nodes.length]!]!;
      const fate = await askMixed(node, shops[Math.floor(random() * shops.length)]!, random);
      this.fates.push(fate);
      const leastMs = Math.max(everyMs, fate.whole ? 0 : AFTER_FAILURE_MS);
      await wait(leastMs - (performance.now() - beganMs));
    }
  }
}

async function wait(ms: number): Promise<void> {
  if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
}

/** How many fates there are of each kind. */
export function countFates(fates: readonly Fate[]): Record<string, number> {
  const counts: Record<string, number> = { requests: fates.length, whole: 0 };
  for (const { whole, status, code } of fates) {
    const kind = whole ? "whole" : status === 0 ? "no answer" : code === "" ? "cut" : code;
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}
