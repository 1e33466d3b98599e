/** What is for sale in the simulated world: the same in every run, so that it is compiled once. */

import { hash } from "node:crypto";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Credits, parseCredits } from "../../core/credits.ts";
import { UnitKind } from "../../core/meters.ts";
import { compileSimplePrice } from "../../core/pricing.ts";
import { SLICE_TOKENS } from "../../data-plane/budget/estimate.ts";
import {
  type WatchConfigResponse,
  WatchConfigResponseSchema,
} from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import { UnitKind as WireUnit } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { OnDisconnect, ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { BudgetMode } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";

export const MERCHANT = "mer_sim";

export interface Ve {
  readonly id: string;
  readonly secret: string;
  readonly strict: boolean;
  readonly size: "tiny" | "small" | "ample";
}

function ve(name: string, strict: boolean, size: Ve["size"]): Ve {
  return { id: `ve_${name}${"a".repeat(26 - name.length)}`, secret: `tbk_${name}`, strict, size };
}

export const VES: readonly Ve[] = [
  ve("stricttiny", true, "tiny"),
  ve("strictsmall", true, "small"),
  ve("balancedtiny", false, "tiny"),
  ve("balancedsmall", false, "small"),
  ve("strictample", true, "ample"),
  ve("balancedample", false, "ample"),
];

export const VE_BY_ID: ReadonlyMap<string, Ve> = new Map(VES.map((each) => [each.id, each]));

interface Pm {
  readonly id: string;
  readonly onDisconnect: OnDisconnect;
  /** Credits for 1000 tokens, of input and output. */
  readonly perThousand: string;
}

/** One for each way to treat a client that leaves. */
const PMS: readonly Pm[] = [
  { id: "pm_drain", onDisconnect: OnDisconnect.DRAIN, perThousand: "0.002" },
  { id: "pm_cancel", onDisconnect: OnDisconnect.CANCEL_ESTIMATE, perThousand: "0.003" },
  { id: "pm_free", onDisconnect: OnDisconnect.FREE, perThousand: "0.001" },
];

interface Model {
  readonly name: string;
  readonly targets: readonly string[];
  /** 0: not hedged. */
  readonly hedgeAfterMs: number;
}

/** Model names that clients send, with the targets behind each. Upstreams take up to 620 ms for the head of an answer. */
export const MODELS: readonly Model[] = [
  { name: "drain", targets: ["pm_drain"], hedgeAfterMs: 0 },
  { name: "cancel", targets: ["pm_cancel", "pm_drain"], hedgeAfterMs: 300 },
  { name: "free", targets: ["pm_free"], hedgeAfterMs: 0 },
];

const ratePico = (text: string): Credits => parseCredits(text) / 1000n;

/** Picocredits for a token, by price id: computed apart from the real pricing. */
export const TOKEN_CREDITS: ReadonlyMap<string, Credits> = new Map(
  PMS.map((pm) => [`price_${pm.id}`, ratePico(pm.perThousand)]),
);

/** The most that a slice can cost. */
export const SLICE_CREDITS: Credits = BigInt(SLICE_TOKENS) * ratePico("0.003");

export const PRICES = PMS.map((pm) =>
  compileSimplePrice(`price_${pm.id}`, { unit: UnitKind.TOKENS, creditPerUnit: pm.perThousand, perUnits: 1000n }),
);

export const FIRST_BYTE_MS = 8_000;
export const IDLE_MS = 6_000;
export const TOTAL_MS = 40_000;

type Resource = MessageInitShape<typeof ResourceSchema>;

function pmResources({ id, onDisconnect, perThousand }: Pm): Resource[] {
  const providerId = `prov_${id}`;
  const price = { creditPerUnit: perThousand, unit: WireUnit.TOKENS, perUnits: 1000n };
  return [
    {
      kind: {
        case: "provider",
        value: {
          id: providerId,
          format: ProviderFormat.OPENAI,
          baseUrl: `https://${id.replace("_", "-")}.example/v1`,
          credentials: { apiKey: "sk-sim" },
          onDisconnect,
        },
      },
    },
    {
      kind: {
        case: "physicalModel",
        value: {
          id,
          providerId,
          upstreamName: id,
          price: { id: `price_${id}`, physicalModelId: id, kind: { case: "simple", value: price } },
          maxOutputTokens: 2048n,
        },
      },
    },
  ];
}

function veResources({ id, secret, strict }: Ve): Resource[] {
  const lms = MODELS.map(({ name, targets, hedgeAfterMs }, n): Resource => ({
    kind: {
      case: "logicalModel",
      value: {
        id: `lm_${id}_${n}`,
        veId: id,
        name,
        targets: targets.map((physicalModelId, tier) => ({ physicalModelId, tier, weight: 1 })),
        createUnixS: 1_764_000_000n,
        routing: { hedgeAfterMs },
        deadlines: { connectMs: 2_000, firstByteMs: FIRST_BYTE_MS, idleMs: IDLE_MS, totalMs: TOTAL_MS },
      },
    },
  }));
  return [
    {
      kind: {
        case: "virtualEndpoint",
        value: {
          id,
          name: id,
          budgetMode: strict ? BudgetMode.STRICT : BudgetMode.BALANCED,
          exhaustedStatus: 429,
          lowBalanceCredits: "0",
          offlineGraceCredits: "0",
          checkoutUrl: `https://pay.example/?ve_id=${id}`,
        },
      },
    },
    { kind: { case: "accessKey", value: { id: `key_${id}`, veId: id, digest: hash("sha256", secret, "buffer") } } },
    ...lms,
  ];
}

function event(init: MessageInitShape<typeof WatchConfigResponseSchema>["event"]): WatchConfigResponse {
  const bytes = toBinary(WatchConfigResponseSchema, create(WatchConfigResponseSchema, { event: init }));
  return fromBinary(WatchConfigResponseSchema, bytes);
}

/** The snapshot that a node gets from the feed. */
export const SNAPSHOT: readonly WatchConfigResponse[] = [
  event({ case: "snapshotBegin", value: { epoch: "ep_sim", revision: 1n } }),
  event({
    case: "snapshotChunk",
    value: { resources: [...PMS.flatMap(pmResources), ...VES.flatMap(veResources)] },
  }),
  event({ case: "snapshotEnd", value: { revision: 1n } }),
];
