/**
 * TokenBill as it really runs: control plane and nodes as processes of their own, each with a temporary home and an
 * ephemeral port, driven through the public SDK. `stop()` ends whatever is left and removes the homes.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { createTokenBill, type TokenBill } from "../../clients/ts/src/index.ts";
import { Part, type PartOptions } from "./part.ts";

export interface SystemOptions {
  /** PostgreSQL; absent: the embedded store. */
  readonly databaseUrl?: string;
  /** For every part. */
  readonly env?: Readonly<Record<string, string>>;
  /** For every part. */
  readonly preloads?: readonly string[];
}

export interface NodeOptions extends Pick<PartOptions, "disk"> {
  /** A home of an earlier node, to start it again. */
  readonly home?: string;
  /** Where it finds the control plane; default: the first replica. */
  readonly controlPlaneUrl?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export class DataPlaneNode {
  readonly address: string;
  readonly part: Part;
  readonly home: string;
  readonly options: NodeOptions;

  constructor(address: string, part: Part, home: string, options: NodeOptions = {}) {
    this.address = address;
    this.part = part;
    this.home = home;
    this.options = options;
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
  /** Control planes on one database; all but the first need PostgreSQL. */
  readonly replicas: Part[] = [];
  readonly nodes: DataPlaneNode[] = [];
  readonly #homes: string[] = [];
  home = "";

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

  get node(): DataPlaneNode {
    return this.nodes[0]!;
  }

  get controlPlane(): Part {
    const first = this.replicas[0];
    if (first === undefined) throw new Error("no control plane was started");
    return first;
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

  spawn(title: string, script: string, env: NodeJS.ProcessEnv, options: PartOptions = {}): Part {
    const preloads = [...(this.options.preloads ?? []), ...(options.preloads ?? [])];
    const part = new Part(title, script, env, { ...options, preloads });
    this.parts.push(part);
    return part;
  }

  /** Starts a replica of the control plane, again on the same address and home if there was one before. */
  async startControlPlane(env: Readonly<Record<string, string>> = {}, replica = 0): Promise<Part> {
    // All share the home: the master key and the tokens are in it.
    if (this.home === "") this.home = await this.makeHome();
    const address = this.replicas[replica]?.address ?? "127.0.0.1:0";
    const part = this.spawn(
      replica === 0 ? "control plane" : `control plane ${replica + 1}`,
      "control-plane/main.ts",
      this.env(this.home, { CONTROL_PLANE_ADDR: address, ...env }),
    );
    this.replicas[replica] = await part.ready();
    return part;
  }

  async startNode(options: NodeOptions = {}): Promise<DataPlaneNode> {
    const node = await this.#spawnNode(`node ${this.nodes.length + 1}`, options);
    this.nodes.push(node);
    return node;
  }

  /** Starts a node that ended again, with its home, address and options, but for those given here. */
  async restartNode(node: DataPlaneNode, options: NodeOptions = {}): Promise<DataPlaneNode> {
    const env = { ...node.options.env, DATA_PLANE_ADDR: node.address, ...options.env };
    const again = await this.#spawnNode(node.part.title, { ...node.options, home: node.home, ...options, env });
    this.nodes[this.nodes.indexOf(node)] = again;
    return again;
  }

  async #spawnNode(title: string, options: NodeOptions): Promise<DataPlaneNode> {
    const home = options.home ?? (await this.makeHome());
    const { controlPlaneUrl = this.controlPlaneUrl, disk } = options;
    const env = this.env(home, {
      CONTROL_PLANE_URL: controlPlaneUrl,
      NODE_TOKEN: await this.token("node"),
      ...options.env,
    });
    const small = disk === undefined ? {} : { disk };
    const part = await this.spawn(title, "data-plane/main.ts", env, small).ready();
    return new DataPlaneNode(part.address, part, home, options);
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
    const last = (part: Part): number => (this.replicas.includes(part) ? 1 : 0);
    for (const part of this.parts.toSorted((a, b) => last(a) - last(b))) {
      if (part.running) await part.stop().catch((error: unknown) => failures.push(error));
    }
    for (const home of this.#homes) await rm(home, { recursive: true, force: true });
    if (failures.length > 0) throw failures[0];
  }

  /** Ends everything at once, as a power cut would, for when an orderly end proves nothing. */
  async killAll(): Promise<void> {
    await Promise.all(this.parts.filter((part) => part.running).map((part) => part.kill()));
    for (const home of this.#homes) await rm(home, { recursive: true, force: true });
  }
}
