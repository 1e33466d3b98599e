// Sets up everything that a first answer needs and prints the access key.
// Reads TOKENBILL_URL, TOKENBILL_TOKEN, UPSTREAM_URL and UPSTREAM_KEY.
import { createTokenBill, ProviderFormat, UnitKind } from "@tokenbill/sdk";

const { TOKENBILL_URL, TOKENBILL_TOKEN, UPSTREAM_URL, UPSTREAM_KEY } = process.env as Record<string, string>;
const tb = createTokenBill({ baseUrl: TOKENBILL_URL!, apiToken: TOKENBILL_TOKEN! });
const { provider } = await tb.providers.createProvider({
  name: "ts-upstream",
  format: ProviderFormat.OPENAI,
  baseUrl: UPSTREAM_URL!,
  credentials: { apiKey: UPSTREAM_KEY! },
});
const simplePrice = { creditPerUnit: "0.05", perUnits: 1000n, unit: UnitKind.TOKENS };
const { physicalModel } = await tb.providers.createPhysicalModel({
  providerId: provider!.id,
  upstreamName: "gpt-5-mini",
  name: "ts-model",
  price: { case: "simplePrice", value: simplePrice },
});
const { virtualEndpoint } = await tb.virtualEndpoints.createVirtualEndpoint({ name: "TypeScript", creditBudget: "10" });
const veId = virtualEndpoint!.id;
await tb.logicalModels.createLogicalModel({
  veId,
  name: "chat",
  targets: [{ physicalModelId: physicalModel!.id, weight: 1 }],
});
const { secret } = await tb.virtualEndpoints.createAccessKey({ veId });
const { wallet } = await tb.virtualEndpoints.getBalance({ veId });
console.log(veId, secret, wallet!.creditRemaining);
