/** Snapshot events of a large configuration as a node receives them: decoded from bytes, chunk by chunk. */

import { hash } from "node:crypto";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import {
  type WatchConfigResponse,
  WatchConfigResponseSchema,
} from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { BudgetMode } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import { base32 } from "../../data-plane/ids.ts";

const MERCHANTS = 100;
const MODELS_PER_MERCHANT = 5;
const CHUNK_RESOURCES = 2000;

type Resource = MessageInitShape<typeof ResourceSchema>;
type EventInit = MessageInitShape<typeof WatchConfigResponseSchema>["event"];

export interface FeedWorld {
  readonly ves: number;
  readonly lmsPerVe: number;
  /** False: VEs of a merchant come from one template. True: no two VEs have a model name in common. */
  readonly allDifferent: boolean;
}

function id(prefix: string, text: string): string {
  return prefix + base32(Buffer.from(hash("md5", text, "hex"), "hex"));
}

export function secretOf(ve: number): string {
  return `tbk_${hash("sha256", `bench ${ve}`, "hex").slice(0, 52)}`;
}

export function modelNameOf(world: FeedWorld, ve: number, lm: number): string {
  return world.allDifferent ? `model-${ve}-${lm}` : `model-${lm}`;
}

export function veIdOf(ve: number): string {
  return id("ve_", `ve ${ve}`);
}

function pmId(merchant: number, n: number): string {
  return id("pm_", `pm ${merchant} ${n % MODELS_PER_MERCHANT}`);
}

function* merchantResources(merchant: number): Generator<Resource> {
  const providerId = id("prov_", `provider ${merchant}`);
  yield {
    kind: {
      case: "provider",
      value: {
        id: providerId,
        format: ProviderFormat.OPENAI,
        baseUrl: `https://upstream-${merchant}.example/v1`,
        credentials: { apiKey: `sk-${merchant}` },
      },
    },
  };
  for (let n = 0; n < MODELS_PER_MERCHANT; n++) {
    const price = { creditPerUnit: "0.05", unit: UnitKind.TOKENS, perUnits: 1000n };
    yield {
      kind: {
        case: "physicalModel",
        value: {
          id: pmId(merchant, n),
          providerId,
          upstreamName: `upstream-${n}`,
          price: {
            id: id("price_", `price ${merchant} ${n}`),
            physicalModelId: pmId(merchant, n),
            kind: { case: "simple", value: price },
          },
          maxOutputTokens: 4096n,
        },
      },
    };
  }
}

function* veResources(world: FeedWorld, ve: number): Generator<Resource> {
  const veId = veIdOf(ve);
  const merchant = ve % MERCHANTS;
  yield {
    kind: {
      case: "virtualEndpoint",
      value: {
        id: veId,
        name: `user ${ve}`,
        budgetMode: BudgetMode.BALANCED,
        exhaustedStatus: 429,
        lowBalanceCredits: "1",
        offlineGraceCredits: "0",
        checkoutUrl: `https://pay.example/checkout?ve_id=${veId}`,
      },
    },
  };
  yield {
    kind: {
      case: "accessKey",
      value: { id: id("key_", `key ${ve}`), veId, digest: hash("sha256", secretOf(ve), "buffer") },
    },
  };
  for (let lm = 0; lm < world.lmsPerVe; lm++) {
    const targets = [
      { physicalModelId: pmId(merchant, lm), tier: 0, weight: 3 },
      { physicalModelId: pmId(merchant, lm + 1), tier: 0, weight: 1 },
      { physicalModelId: pmId(merchant, lm + 2), tier: 1, weight: 1 },
    ];
    const name = modelNameOf(world, ve, lm);
    yield {
      kind: {
        case: "logicalModel",
        value: { id: id("lm_", `lm ${ve} ${lm}`), veId, name, targets, createUnixS: 1_764_000_000n },
      },
    };
  }
}

function event(init: EventInit): WatchConfigResponse {
  const bytes = toBinary(WatchConfigResponseSchema, create(WatchConfigResponseSchema, { event: init }));
  return fromBinary(WatchConfigResponseSchema, bytes);
}

export function* snapshotOf(world: FeedWorld): Generator<WatchConfigResponse> {
  yield event({ case: "snapshotBegin", value: { epoch: "ep_bench", revision: 1n } });
  let resources: Resource[] = [];
  for (let merchant = 0; merchant < MERCHANTS; merchant++) resources.push(...merchantResources(merchant));
  for (let ve = 0; ve < world.ves; ve++) {
    resources.push(...veResources(world, ve));
    if (resources.length < CHUNK_RESOURCES) continue;
    yield event({ case: "snapshotChunk", value: { resources } });
    resources = [];
  }
  yield event({ case: "snapshotChunk", value: { resources } });
  yield event({ case: "snapshotEnd", value: { revision: 1n } });
}
