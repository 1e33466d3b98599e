/** The world of the failover bench: one control plane, nodes on one core, and a Logical Model with three equal targets. */

import { fileURLToPath } from "node:url";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { VirtualEndpointService } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import type { Mode, Order, Reply } from "./failover_upstream.ts";
import { addDataPlane, type ControlPlane, startControlPlane } from "./gateway.ts";
import type { OpenLoopTarget } from "./open_loop.ts";
import { LOAD_CORE, message, start, type Started } from "./processes.ts";

export const TARGETS = 3;
/** Of a target that hangs, and so the price of each request that still meets one. */
export const FIRST_BYTE_MS = 1_000;
export const HEDGE_AFTER_MS = 50;
const DEADLINES = { connectMs: 1_000, firstByteMs: FIRST_BYTE_MS, firstContentMs: FIRST_BYTE_MS };

export interface BenchNode {
  readonly process: Started;
  readonly url: string;
  /** What asks for the Logical Model `plain` or `hedged` here. */
  target(model: string): OpenLoopTarget;
}

export interface FailoverWorld {
  readonly nodes: readonly BenchNode[];
  setMode(n: number, mode: Mode): Promise<void>;
  /** Calls that each target has had so far. */
  calls(): Promise<readonly number[]>;
}

async function configure(controlPlane: ControlPlane, ports: readonly number[]): Promise<string> {
  const providers = controlPlane.client(ProviderService);
  const endpoints = controlPlane.client(VirtualEndpointService);
  const models = controlPlane.client(LogicalModelService);
  const targets: { physicalModelId: string; tier: number; weight: number }[] = [];
  for (const [n, port] of ports.entries()) {
    const name = `target-${n}`;
    const baseUrl = `http://127.0.0.1:${port}/v1`;
    const credentials = { apiKey: "sk-bench" };
    const { provider } = await providers.createProvider({ name, format: ProviderFormat.OPENAI, baseUrl, credentials });
    const { physicalModel } = await providers.createPhysicalModel({
      providerId: provider!.id,
      name,
      upstreamName: "bench-upstream",
      price: { case: "simplePrice", value: { creditPerUnit: "0.001", unit: UnitKind.TOKENS, perUnits: 1000n } },
    });
    targets.push({ physicalModelId: physicalModel!.id, tier: 0, weight: 1 });
  }
  const { virtualEndpoint } = await endpoints.createVirtualEndpoint({ name: "bench", creditBudget: "1000000000" });
  const veId = virtualEndpoint!.id;
  for (const [name, hedgeAfterMs] of [
    ["plain", 0],
    ["hedged", HEDGE_AFTER_MS],
  ] as const) {
    const routing = hedgeAfterMs === 0 ? {} : { routing: { hedgeAfterMs } };
    await models.createLogicalModel({ veId, name, targets, deadlines: DEADLINES, ...routing });
  }
  return (await endpoints.createAccessKey({ veId, name: "bench" })).secret;
}

export async function startFailoverWorld(nodeCount: number): Promise<FailoverWorld> {
  const script = fileURLToPath(new URL("failover_upstream.ts", import.meta.url));
  const upstream = start("the upstreams", process.execPath, [script, String(TARGETS)], { core: LOAD_CORE, ipc: true });
  const ports = await message(upstream, (reply: Reply) => (reply.type === "ready" ? reply.ports : undefined));
  const controlPlane = await startControlPlane(LOAD_CORE);
  const key = await configure(controlPlane, ports);
  const nodes: BenchNode[] = [];
  for (let n = 0; n < nodeCount; n++) {
    const { dataPlane, url, port } = await addDataPlane(controlPlane, key, ["plain", "hedged"]);
    const target = (model: string): OpenLoopTarget => {
      const body = JSON.stringify({ model, messages: [{ role: "user", content: "word ".repeat(20) }] });
      return { port, path: "/v1/chat/completions", key, body };
    };
    nodes.push({ process: dataPlane, url, target });
  }
  const order = <T>(given: Order, accept: (reply: Reply) => T | undefined): Promise<T> => {
    const reply = message(upstream, accept);
    upstream.child.send(given);
    return reply;
  };
  return {
    nodes,
    async setMode(n, mode) {
      await order({ type: "mode", n, mode }, ({ type }) => (type === "done" ? true : undefined));
    },
    calls: () => order({ type: "calls" }, (reply) => (reply.type === "calls" ? reply.calls : undefined)),
  };
}
