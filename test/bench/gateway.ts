/** A whole TokenBill for a bench: control plane on PostgreSQL, one data-plane worker, one VE that leads to the upstreams. */

import { randomBytes } from "node:crypto";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import postgres from "postgres";
import type { DescService } from "@bufbuild/protobuf";
import { LogicalModelService } from "../../proto/gen/tokenbill/v1/logical_model_service_pb.ts";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { VirtualEndpointService } from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { postgresUrl } from "../support/postgres.ts";
import { atEnd, benchFolder, LOAD_CORE, message, PROXY_CORE, start, type Started } from "./processes.ts";

const CREDIT_BUDGET = "1000000000";
const SERVE_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

export interface ControlPlane {
  readonly process: Started;
  readonly url: string;
  readonly home: string;
  readonly databaseUrl: string;
  readonly nodeToken: string;
  /** A client with the default merchant's token. */
  client<T extends DescService>(service: T): Client<T>;
  /** A transport with the node's token, over HTTP/2. */
  nodeTransport(): Transport;
}

export interface Gateway {
  readonly controlPlane: ControlPlane;
  readonly dataPlane: Started;
  /** The data plane without a path. */
  readonly url: string;
  readonly port: number;
  /** The access key. */
  readonly key: string;
}

function nodeArgs(variable: string): string[] {
  return (process.env[variable] ?? "").split(" ").filter((arg) => arg !== "");
}

function script(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

async function startPlane(
  name: string,
  path: string,
  variable: string,
  core: number | undefined,
  env: Record<string, string>,
): Promise<{ process: Started; url: string }> {
  const started = start(name, process.execPath, [...nodeArgs(variable), script(path)], { core, env, ipc: true });
  const address = await message(started, (value) => (value?.type === "ready" ? (value.address as string) : undefined));
  return { process: started, url: `http://${address}` };
}

/**
 * On two cores the control plane and the database share the load generator's, which stands for other machines: they step
 * back whenever the load wants to run, or their work would be measured as latency.
 */
async function stepBack(process: Started, databaseUrl: string): Promise<void> {
  setPriority(process.pid, constants.priority.PRIORITY_LOW);
  const sql = postgres(databaseUrl, { max: 1 });
  const [row] = await sql`show data_directory`;
  await sql.end();
  const postmaster = Number(
    readFileSync(join(String(row!["data_directory"]), "postmaster.pid"), "utf8").split("\n")[0],
  );
  const children = execFileSync("pgrep", ["-P", String(postmaster)], { encoding: "utf8" })
    .trim()
    .split("\n");
  for (const pid of [postmaster, ...children.map(Number)]) setPriority(pid, constants.priority.PRIORITY_LOW);
}

/** A control plane on a PostgreSQL database of its own, or again on the home and database of one that was stopped. */
export async function startControlPlane(core: number | undefined, again?: ControlPlane): Promise<ControlPlane> {
  const home = again?.home ?? benchFolder();
  const database = again?.databaseUrl ?? (await postgresUrl());
  const env = { TOKENBILL_HOME: home, CONTROL_PLANE_ADDR: "127.0.0.1:0", DATABASE_URL: database, LOG_LEVEL: "warn" };
  const { process: started, url } = await startPlane(
    "the control plane",
    "control-plane/main.ts",
    "BENCH_CONTROL_PLANE_ARGS",
    core,
    env,
  );
  if (core !== undefined) await stepBack(started, database);
  const token = (file: string): string => readFileSync(join(home, file), "utf8").trim();
  const merchant = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    interceptors: [bearer(token("merchant.token"))],
  });
  const nodeToken = token("node.token");
  return {
    process: started,
    url,
    home,
    databaseUrl: database,
    nodeToken,
    client: (service) => createClient(service, merchant),
    nodeTransport() {
      const sessionManager = new Http2SessionManager(url);
      atEnd(() => sessionManager.abort());
      return createConnectTransport({
        baseUrl: url,
        httpVersion: "2",
        sessionManager,
        interceptors: [bearer(nodeToken)],
        // As nodes do.
        acceptCompression: [],
      });
    },
  };
}

/** Makes one VE with a Logical Model for each upstream base URL. Returns its access key. */
export async function configure(
  controlPlane: ControlPlane,
  upstreams: Readonly<Record<string, string>>,
): Promise<string> {
  const providers = controlPlane.client(ProviderService);
  const endpoints = controlPlane.client(VirtualEndpointService);
  const models = controlPlane.client(LogicalModelService);
  const id = (): string => randomBytes(8).toString("hex");
  const ve = await endpoints.createVirtualEndpoint({ requestId: id(), name: "bench", creditBudget: CREDIT_BUDGET });
  for (const [name, baseUrl] of Object.entries(upstreams)) {
    const provider = await providers.createProvider({
      requestId: id(),
      name,
      format: ProviderFormat.OPENAI,
      baseUrl,
      credentials: { apiKey: "sk-bench" },
    });
    const model = await providers.createPhysicalModel({
      requestId: id(),
      providerId: provider.provider!.id,
      name,
      upstreamName: "bench-upstream",
      price: { case: "simplePrice", value: { creditPerUnit: "0.001", unit: UnitKind.TOKENS, perUnits: 1000n } },
    });
    const targets = [{ physicalModelId: model.physicalModel!.id, tier: 0, weight: 1 }];
    await models.createLogicalModel({ requestId: id(), veId: ve.virtualEndpoint!.id, name, targets });
  }
  const key = await endpoints.createAccessKey({ requestId: id(), veId: ve.virtualEndpoint!.id, name: "bench" });
  return key.secret;
}

export async function startDataPlane(
  controlPlane: ControlPlane,
  core: number | undefined,
): Promise<{ process: Started; url: string }> {
  return startPlane("the data plane", "data-plane/main.ts", "BENCH_DATA_PLANE_ARGS", core, {
    TOKENBILL_HOME: benchFolder(),
    DATA_PLANE_ADDR: "127.0.0.1:0",
    // One process, whatever the environment says.
    DATA_PLANE_WORKERS: "",
    CONTROL_PLANE_URL: controlPlane.url,
    NODE_TOKEN: controlPlane.nodeToken,
    LOG_LEVEL: "warn",
  });
}

async function waitUntilServing(url: string, key: string, models: readonly string[]): Promise<void> {
  const deadline = Date.now() + SERVE_TIMEOUT_MS;
  let last = "";
  while (Date.now() < deadline) {
    const response = await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
    last = await response.text();
    if (response.status === 200 && models.every((model) => last.includes(`"${model}"`))) return;
    await delay(POLL_MS);
  }
  throw new Error(`The data plane does not serve: ${last}`);
}

/** Everything on: the data plane alone on its core, the control plane and its database on the core of the load. */
export async function startGateway(upstreams: Readonly<Record<string, string>>): Promise<Gateway> {
  const controlPlane = await startControlPlane(LOAD_CORE);
  const key = await configure(controlPlane, upstreams);
  return { controlPlane, key, ...(await addDataPlane(controlPlane, key, Object.keys(upstreams))) };
}

/** A data plane that serves these models. */
export async function addDataPlane(
  controlPlane: ControlPlane,
  key: string,
  models: readonly string[],
): Promise<{ dataPlane: Started; url: string; port: number }> {
  const { process: dataPlane, url } = await startDataPlane(controlPlane, PROXY_CORE);
  await waitUntilServing(url, key, models);
  return { dataPlane, url, port: Number(new URL(url).port) };
}
