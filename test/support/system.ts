/**
 * TokenBill as it really runs: control plane and nodes as processes of their own, each with a temporary home and an
 * ephemeral port, driven through the public SDK. `stop()` ends whatever is left and removes the homes.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import OpenAI from "openai";
import {
  type BudgetMode,
  createTokenBill,
  ProviderFormat,
  type TokenBill,
  UnitKind,
} from "../../clients/ts/src/index.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const READY_TIMEOUT_MS = 60_000;
const LOG_CHARS_MAX = 200_000;
const POLL_MS = 10;

/** Calls `check` until it gives something (not undefined, null or false). @throws after `timeoutMs`, with the last error */
export async function until<T>(
  what: string,
  check: () => Promise<T | undefined | null | false>,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await check();
      if (value !== undefined && value !== null && value !== false) return value;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: last });
    await delay(POLL_MS);
  }
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** One process of the system. */
export class Part {
  readonly title: string;
  readonly process: ChildProcess;
  readonly exited: Promise<Exit>;
  /** Everything it printed, the end of it if that is much. */
  log = "";
  #address: string | undefined;
  readonly #ready: Promise<string | null>;

  /** `readyIn` finds the address in what was printed; without it, the part sends it as an IPC message. */
  constructor(title: string, script: string, env: NodeJS.ProcessEnv, readyIn?: (log: string) => string | undefined) {
    this.title = title;
    const guard = pathToFileURL(join(ROOT, "scripts/stop_with_parent.mjs")).href;
    this.process = spawn(process.execPath, ["--import", guard, join(ROOT, script)], {
      cwd: ROOT,
      // A run that is killed must not leave parts behind.
      env: { ...env, TOKENBILL_PARENT: String(process.pid) },
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.#ready = promise;
    const keep = (data: Buffer): void => {
      this.log = (this.log + data.toString()).slice(-LOG_CHARS_MAX);
      const address = readyIn?.(this.log);
      if (address !== undefined) resolve(address);
    };
    this.process.stdout!.on("data", keep);
    this.process.stderr!.on("data", keep);
    this.process.on("message", (message: { type?: string; address?: string }) => {
      if (message.type === "ready" && message.address !== undefined) resolve(message.address);
    });
    this.exited = new Promise((done) => this.process.once("close", (code, signal) => done({ code, signal })));
    void this.exited.then(() => resolve(null));
  }

  /** host:port, once it is ready. */
  get address(): string {
    if (this.#address === undefined) throw new Error(`${this.title} is not ready`);
    return this.#address;
  }

  async ready(): Promise<this> {
    const address = await Promise.race([this.#ready, delay(READY_TIMEOUT_MS, undefined, { ref: false })]);
    if (address === undefined || address === null) {
      this.process.kill("SIGKILL");
      throw new Error(`${this.title} ${address === null ? "ended before it was" : "did not get"} ready:\n${this.log}`);
    }
    this.#address = address;
    return this;
  }

  /** Asks it to stop and waits. @throws if it does not end with 0 */
  async stop(): Promise<void> {
    this.process.kill("SIGTERM");
    const { code, signal } = await this.exited;
    if (code !== 0) throw new Error(`${this.title} ended with ${signal ?? code}:\n${this.log.slice(-4_000)}`);
  }

  /** Ends it as a power cut would. */
  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  get running(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null;
  }
}

export interface SystemOptions {
  /** PostgreSQL; absent: the embedded store. */
  readonly databaseUrl?: string;
  /** For every part. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface NodeOptions {
  /** A home of an earlier node, to start it again. */
  readonly home?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export class DataPlaneNode {
  readonly address: string;
  readonly part: Part;
  readonly home: string;

  constructor(address: string, part: Part, home: string) {
    this.address = address;
    this.part = part;
    this.home = home;
  }

  /** The base URL for OpenAI clients. */
  get url(): string {
    return `http://${this.address}/v1`;
  }

  openai(apiKey: string, options: ConstructorParameters<typeof OpenAI>[0] = {}): OpenAI {
    return new OpenAI({ baseURL: this.url, apiKey, ...options });
  }
}

export class System {
  readonly options: SystemOptions;
  readonly parts: Part[] = [];
  readonly #homes: string[] = [];
  home = "";
  #controlPlane: Part | undefined;

  constructor(options: SystemOptions = {}) {
    this.options = options;
  }

  /** A control plane and `nodes` data-plane nodes. */
  static async start(options: SystemOptions & { readonly nodes?: number } = {}): Promise<System> {
    const system = new System(options);
    try {
      await system.startControlPlane();
      for (let i = 0; i < (options.nodes ?? 1); i++) await system.startNode();
      return system;
    } catch (error) {
      await system.stop().catch(() => {});
      throw error;
    }
  }

  readonly nodes: DataPlaneNode[] = [];

  get node(): DataPlaneNode {
    return this.nodes[0]!;
  }

  get controlPlane(): Part {
    if (this.#controlPlane === undefined) throw new Error("no control plane was started");
    return this.#controlPlane;
  }

  get controlPlaneUrl(): string {
    return `http://${this.controlPlane.address}`;
  }

  async makeHome(): Promise<string> {
    const home = await mkdtemp(join(tmpdir(), "tokenbill-home-"));
    this.#homes.push(home);
    return home;
  }

  env(home: string, more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
    const { databaseUrl } = this.options;
    return {
      PATH: process.env["PATH"],
      TOKENBILL_HOME: home,
      CONTROL_PLANE_ADDR: "127.0.0.1:0",
      DATA_PLANE_ADDR: "127.0.0.1:0",
      LOG_LEVEL: "warn",
      ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl }),
      ...this.options.env,
      ...more,
    };
  }

  spawn(title: string, script: string, env: NodeJS.ProcessEnv): Part {
    const part = new Part(title, script, env);
    this.parts.push(part);
    return part;
  }

  /** Starts the control plane, again on the same address and home if there was one before. */
  async startControlPlane(env: Readonly<Record<string, string>> = {}): Promise<Part> {
    if (this.home === "") this.home = await this.makeHome();
    const address = this.#controlPlane === undefined ? "127.0.0.1:0" : this.#controlPlane.address;
    const part = this.spawn(
      "control plane",
      "control-plane/main.ts",
      this.env(this.home, { CONTROL_PLANE_ADDR: address, ...env }),
    );
    this.#controlPlane = await part.ready();
    return part;
  }

  async startNode(options: NodeOptions = {}): Promise<DataPlaneNode> {
    const home = options.home ?? (await this.makeHome());
    const token = (await readFile(join(this.home, "node.token"), "utf8")).trim();
    const env = this.env(home, { CONTROL_PLANE_URL: this.controlPlaneUrl, NODE_TOKEN: token, ...options.env });
    const part = await this.spawn(`node ${this.nodes.length + 1}`, "data-plane/main.ts", env).ready();
    const node = new DataPlaneNode(part.address, part, home);
    this.nodes.push(node);
    return node;
  }

  async token(name: "merchant" | "operator" | "node"): Promise<string> {
    return (await readFile(join(this.home, `${name}.token`), "utf8")).trim();
  }

  async api(name: "merchant" | "operator" = "merchant"): Promise<TokenBill> {
    return createTokenBill({ baseUrl: this.controlPlaneUrl, apiToken: await this.token(name) });
  }

  /** Stops what still runs, nodes first. @throws if a part does not stop cleanly, after everything is stopped */
  async stop(): Promise<void> {
    const failures: unknown[] = [];
    const last = (part: Part): number => (part === this.#controlPlane ? 1 : 0);
    for (const part of this.parts.toSorted((a, b) => last(a) - last(b))) {
      if (part.running) await part.stop().catch((error: unknown) => failures.push(error));
    }
    for (const home of this.#homes) await rm(home, { recursive: true, force: true });
    if (failures.length > 0) throw failures[0];
  }
}

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
export async function untilServed(node: DataPlaneNode, shop: Pick<Shop, "key" | "model">): Promise<void> {
  await until(`a node knows the key and ${shop.model}`, async () => {
    const response = await fetch(`${node.url}/models/${shop.model}`, {
      headers: { authorization: `Bearer ${shop.key}` },
    });
    await response.arrayBuffer();
    return response.status === 200;
  });
}
