/** A shop for tests: a merchant's Provider, models, VE and access key, made through the public SDK. */

import { type BudgetMode, ProviderFormat, type TokenBill, UnitKind } from "../../clients/ts/src/index.ts";
import { until } from "./part.ts";
import type { DataPlaneNode } from "./system.ts";

export interface ShopOptions {
  readonly upstreamUrl: string;
  /** Upstream names of the Logical Model's targets, all of weight 1 in tier 0. Default: one healthy model. */
  readonly upstreamModels?: readonly string[];
  readonly creditBudget?: string;
  /** Credits for 1000 tokens. */
  readonly price?: string;
  readonly budgetMode?: BudgetMode;
  readonly maxOutputTokens?: number;
}

/** Everything that a first answer needs. */
export interface Shop {
  readonly veId: string;
  readonly key: string;
  readonly keyId: string;
  /** The name clients send. */
  readonly model: string;
  readonly providerId: string;
  readonly physicalModelIds: readonly string[];
}

let shops = 0;

/** Provider, Physical Models, VE, Logical Model and access key in one call; names are unique within a test file. */
export async function openShop(tb: TokenBill, options: ShopOptions): Promise<Shop> {
  const name = `shop-${process.pid}-${++shops}`;
  const { provider } = await tb.providers.createProvider({
    name,
    format: ProviderFormat.OPENAI,
    baseUrl: options.upstreamUrl,
    credentials: { apiKey: "simulated-key" },
  });
  const physicalModelIds: string[] = [];
  for (const [i, upstreamName] of (options.upstreamModels ?? ["simulated-model"]).entries()) {
    const { physicalModel } = await tb.providers.createPhysicalModel({
      providerId: provider!.id,
      name: `${name}-${i}`,
      upstreamName,
      maxOutputTokens: BigInt(options.maxOutputTokens ?? 0),
      price: {
        case: "simplePrice",
        value: { creditPerUnit: options.price ?? "0.05", perUnits: 1000n, unit: UnitKind.TOKENS },
      },
    });
    physicalModelIds.push(physicalModel!.id);
  }
  const { virtualEndpoint } = await tb.virtualEndpoints.createVirtualEndpoint({
    name,
    creditBudget: options.creditBudget ?? "10",
    budgetMode: options.budgetMode,
  });
  const veId = virtualEndpoint!.id;
  const targets = physicalModelIds.map((physicalModelId) => ({ physicalModelId, weight: 1 }));
  await tb.logicalModels.createLogicalModel({ veId, name: "chat", targets });
  const { accessKey, secret } = await tb.virtualEndpoints.createAccessKey({ veId });
  return { veId, key: secret, keyId: accessKey!.id, model: "chat", providerId: provider!.id, physicalModelIds };
}

/** Waits until a node knows the shop: configuration travels by the feed, not with the call. */
export async function untilServed(
  node: DataPlaneNode,
  shop: Pick<Shop, "key" | "model">,
  timeoutMs?: number,
): Promise<void> {
  const known = async (): Promise<boolean> => {
    const response = await fetch(`${node.url}/models/${shop.model}`, {
      headers: { authorization: `Bearer ${shop.key}` },
    });
    await response.arrayBuffer();
    return response.status === 200;
  };
  await until(`a node knows the key and ${shop.model}`, known, timeoutMs);
}
