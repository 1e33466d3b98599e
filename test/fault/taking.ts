/** Takes everything out of a wallet, one small request after the other: none may be refused while there is enough. */

import assert from "node:assert/strict";
import { type Credits, formatCredits, parseCredits } from "../../core/credits.ts";
import type { DataPlaneNode } from "../support/system.ts";
import { readWallet, untilReported } from "./books.ts";
import type { Fate } from "./client.ts";
import { askSmall, leastNeed } from "./load.ts";
import { type Figures, ms, spreadOf } from "./scenario.ts";
import type { FaultShop, World } from "./world.ts";

/** Held to the middle one: noisy machines are slow now and then. */
const ADMITTED_MEDIAN_MS = 1_000;
const REQUESTS_MAX = 5_000;
/** So many may find the control plane too slow to say (503, try again), which a machine that is busy elsewhere makes happen. */
const UNKNOWN_MAX = 5;

/** The code of that. */
export const UNKNOWN = "budget_unavailable";

export interface Taking {
  readonly world: World;
  readonly shop: FaultShop;
  readonly node: DataPlaneNode;
  /** Ids of nodes that died and are not back: what they hold may be spent already, so nobody else may have it. */
  readonly dead: readonly string[];
  readonly fates: Fate[];
  /** Records that died with a disk. */
  readonly lost?: ReadonlySet<string>;
}

/** What the leases of these nodes hold. */
export async function heldBy(world: World, shop: FaultShop, nodeIds: readonly string[]): Promise<Credits> {
  const [row] = await world.database.query<{ credits: string }>(
    `select coalesce(sum(l.credits), 0)::text as credits
     from lease l join node_boot b using (boot_id) where l.ve_id = $1 and b.node_id = any($2::text[])`,
    [shop.veId, nodeIds],
  );
  return parseCredits(row!.credits);
}

/** The node that served a request, by its id in the ledger. */
export async function nodeIdOf(world: World, fate: Fate): Promise<string> {
  await untilReported(world, [fate]);
  const [row] = await world.database.query<{ node_id: string }>("select node_id from usage_event where id = $1", [
    fate.id,
  ]);
  return row!.node_id;
}

/** Asks until it is refused, which must not happen while enough is there. Returns how long each waited for its answer. */
export async function takeAll({ world, shop, node, dead, fates, lost }: Taking): Promise<number[]> {
  const need = leastNeed(shop);
  const waits: number[] = [];
  let unknown = 0;
  for (let n = 0; n < REQUESTS_MAX; n++) {
    world.run.signal.throwIfAborted();
    const fate = await askSmall(node, shop);
    fates.push(fate);
    if (fate.status === 200) {
      waits.push(fate.headMs);
      continue;
    }
    if (fate.code === UNKNOWN && ++unknown <= UNKNOWN_MAX) continue;
    await untilReported(world, fates, undefined, lost);
    const { purchased, settled, debt } = await readWallet(world, shop);
    const free = purchased + debt - settled - (await heldBy(world, shop, dead));
    const told = `a request got ${fate.status} ${fate.code} after ${ms(fate.totalMs)} while ${formatCredits(free)} are there`;
    assert.ok(free < need, `${told} and ${formatCredits(need)} are enough`);
    return waits;
  }
  throw new Error(`${REQUESTS_MAX} requests did not empty the wallet`);
}

/** A row about how long requests waited. @throws when it was too long in the middle */
export function waitFigures(what: string, shop: FaultShop, waits: readonly number[]): Figures {
  const { median, worst } = spreadOf(waits);
  assert.ok(median < ADMITTED_MEDIAN_MS, `${what}: admitted after ${ms(median)} in the middle, ${ms(worst)} at worst`);
  return {
    what,
    mode: shop.strict ? "STRICT" : "BALANCED",
    served: waits.length,
    median: ms(median),
    worst: ms(worst),
  };
}
