/**
 * The configuration of the soak. Every Logical Model but the cutting one has one target that is always well, among others
 * that refuse, reset, hang, speak nonsense, die and come back, or are moody.
 */

import { BudgetMode, ProviderFormat, StickySource, type TokenBill, UnitKind } from "../../clients/ts/src/index.ts";
import { CUTTING_MODEL, MOODY_MODELS } from "./misbehaviours.ts";

/** 0.05 Credits for 1000 tokens. */
export const PICO_PER_TOKEN = 50_000_000n;
const PRICE = { creditPerUnit: "0.05", perUnits: 1000n, unit: UnitKind.TOKENS };
const BUDGET = "1000000";
/** Small, so that what hangs is given up soon; no deadline may be what a well target is late for on a busy machine. */
const DEADLINES = { connectMs: 1_000, firstByteMs: 1_500, firstContentMs: 2_000, idleMs: 2_000, totalMs: 120_000 };
const PATIENT = { connectMs: 20_000, firstByteMs: 60_000, firstContentMs: 60_000, idleMs: 60_000 };
const HEDGE_AFTER_MS = 250;

/** Base URLs. */
export interface Upstreams {
  readonly well: string;
  readonly mortal: string;
  readonly moody: string;
  readonly closed: string;
  readonly silent: string;
  readonly resetting: string;
  readonly strange: string;
}

export interface SoakShop {
  readonly veId: string;
  readonly key: string;
}

export interface Choice {
  /** The Logical Model. */
  readonly model: string;
  readonly weight: number;
  /** Answers may break off after content; always streams. */
  readonly cuts: boolean;
}

export const CHOICES: readonly Choice[] = [
  { model: "tiers", weight: 3, cuts: false },
  { model: "mixed", weight: 3, cuts: false },
  { model: "hedged", weight: 3, cuts: false },
  { model: "sticky", weight: 2, cuts: false },
  { model: "cutting", weight: 1, cuts: true },
];

/** Target, tier, weight. */
type Line = readonly [name: string, tier: number, weight: number];

const TARGETS: Readonly<Record<string, readonly Line[]>> = {
  tiers: [
    ["moody-1", 0, 2],
    ["moody-2", 0, 1],
    ["closed", 1, 1],
    ["silent", 1, 1],
    ["mortal", 2, 1],
    ["well", 3, 1],
  ],
  mixed: [
    ["well", 0, 1],
    ["moody-3", 0, 1],
    ["mortal", 0, 1],
    ["resetting", 0, 1],
    ["strange", 0, 1],
  ],
  hedged: [
    ["moody-1", 0, 1],
    ["moody-4", 0, 1],
    ["silent", 0, 1],
    ["mortal", 1, 1],
    ["steady", 2, 1],
  ],
  sticky: [
    ["moody-2", 0, 1],
    ["moody-4", 0, 1],
    ["steady", 0, 1],
    ["mortal", 0, 1],
  ],
  cutting: [["cutting", 0, 1]],
};

const STICKY = { sources: [StickySource.USER], header: "" };

function routingOf(name: string) {
  if (name === "hedged") return { hedgeAfterMs: HEDGE_AFTER_MS };
  if (name === "sticky") return { hedgeAfterMs: 0, sticky: STICKY };
  return undefined;
}

/** Physical Models by the names of `TARGETS`, each at a Provider of its own, so that none is blamed for another. */
async function makeModels(tb: TokenBill, upstreams: Upstreams): Promise<Map<string, string>> {
  const at = (url: string, names: readonly string[]) => names.map((name) => ({ name, url, upstreamName: name }));
  const wanted = [
    ...at(upstreams.moody, [...MOODY_MODELS, CUTTING_MODEL]),
    ...at(upstreams.well, ["well"]),
    { name: "steady", url: upstreams.well, upstreamName: "steady~chunkDelayMs=10" },
    ...(["mortal", "closed", "silent", "resetting", "strange"] as const).flatMap((name) => at(upstreams[name], [name])),
  ];
  const ids = new Map<string, string>();
  for (const { name, url: baseUrl, upstreamName } of wanted) {
    const credentials = { apiKey: "simulated-key" };
    const format = ProviderFormat.OPENAI;
    const { provider } = await tb.providers.createProvider({ name, format, baseUrl, credentials });
    const price = { case: "simplePrice" as const, value: PRICE };
    const { id: providerId } = provider!;
    const { physicalModel } = await tb.providers.createPhysicalModel({ providerId, name, upstreamName, price });
    ids.set(name, physicalModel!.id);
  }
  return ids;
}

/** One shop for each budget mode. */
export async function openSoakShops(tb: TokenBill, upstreams: Upstreams): Promise<SoakShop[]> {
  const models = await makeModels(tb, upstreams);
  const shops: SoakShop[] = [];
  for (const budgetMode of [BudgetMode.BALANCED, BudgetMode.STRICT]) {
    const name = `soak-${budgetMode}`;
    const made = await tb.virtualEndpoints.createVirtualEndpoint({ name, creditBudget: BUDGET, budgetMode });
    const veId = made.virtualEndpoint!.id;
    for (const [model, lines] of Object.entries(TARGETS)) {
      const targets = lines.map(([target, tier, weight]) => ({
        physicalModelId: models.get(target)!,
        tier,
        weight,
        ...(target === "well" || target === "steady" ? { deadlines: PATIENT } : {}),
      }));
      const routing = routingOf(model);
      await tb.logicalModels.createLogicalModel({
        veId,
        name: model,
        targets,
        deadlines: DEADLINES,
        ...(routing && { routing }),
      });
    }
    const { secret } = await tb.virtualEndpoints.createAccessKey({ veId });
    shops.push({ veId, key: secret });
  }
  return shops;
}
