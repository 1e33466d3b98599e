/**
 * The real thing, small: nodes, two replicas of the control plane on a PostgreSQL of their own, and a proxy in every
 * connection between them that can cut, delay and swallow.
 *
 *     clients -> node n -> node proxy n -> replica 1 | 2 -> database proxy -> PostgreSQL
 */

import { setTimeout as delay } from "node:timers/promises";
import { createTokenBill, type TokenBill } from "../../clients/ts/src/index.ts";
import type { Database } from "../../control-plane/db/database.ts";
import { openDatabase } from "../../control-plane/db/open.ts";
import { formatCredits } from "../../core/credits.ts";
import { CutProxy } from "../support/cut_proxy.ts";
import { OwnPostgres } from "../support/own_postgres.ts";
import { until } from "../support/part.ts";
import { openShop, type Shop, type ShopOptions, untilServed } from "../support/shop.ts";
import { type DataPlaneNode, type NodeOptions, System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";
import type { Run } from "./scenario.ts";

/** Every shop of the scenarios has this price, so that a token count is an amount: 0.05 Credits for 1000 tokens. */
export const PICO_PER_TOKEN = 50_000_000n;
const REPLICAS = 2;
const SERVED_TIMEOUT_MS = 60_000;

export interface WorldOptions {
  readonly nodes: number;
  readonly node?: NodeOptions;
  /** For every part. */
  readonly env?: Readonly<Record<string, string>>;
  readonly preloads?: readonly string[];
  /** Where nodes find the control plane, in place of a proxy each; is given the replicas' addresses. */
  readonly controlPlaneUrl?: (replicas: readonly string[]) => Promise<string>;
}

export interface FaultShop extends Shop {
  readonly strict: boolean;
}

export class World {
  readonly system: System;
  readonly postgres: OwnPostgres;
  readonly databaseProxy: CutProxy;
  readonly upstream: Upstream;
  readonly run: Run;
  readonly shops: FaultShop[] = [];
  /** One for each node, by its number. */
  readonly nodeProxies: CutProxy[] = [];
  /** Straight to PostgreSQL, for looking into the books. Connects when used. */
  database!: Database;
  /** Through a proxy that finds a replica that lives. */
  tb!: TokenBill;
  /** The same for the operator. */
  operator!: TokenBill;
  /** True once it is being ended: whoever still asks stops. */
  closed = false;
  #apiProxy: CutProxy | undefined;

  private constructor(run: Run, system: System, postgres: OwnPostgres, databaseProxy: CutProxy, upstream: Upstream) {
    this.run = run;
    this.system = system;
    this.postgres = postgres;
    this.databaseProxy = databaseProxy;
    this.upstream = upstream;
  }

  /** Runs `body` in a new world, and ends it whatever happens. */
  static async with(run: Run, options: WorldOptions, body: (world: World) => Promise<void>): Promise<void> {
    run.signal.throwIfAborted();
    const postgres = await OwnPostgres.start();
    const databaseProxy = await CutProxy.start([`127.0.0.1:${postgres.port}`]);
    const upstream = await startUpstream({ address: "127.0.0.1:0", record: false });
    const system = new System({
      databaseUrl: `postgres://postgres@${databaseProxy.address}/postgres`,
      env: options.env ?? {},
      preloads: options.preloads ?? [],
    });
    const world = new World(run, system, postgres, databaseProxy, upstream);
    try {
      await world.#open(options);
      await body(world);
    } finally {
      await world.#close();
    }
  }

  async #open(options: WorldOptions): Promise<void> {
    const { system } = this;
    for (let i = 0; i < REPLICAS; i++) await system.startControlPlane({}, i);
    const replicas = this.replicaAddresses;
    this.#apiProxy = await CutProxy.start(replicas);
    const baseUrl = `http://${this.#apiProxy.address}`;
    this.tb = createTokenBill({ baseUrl, apiToken: await system.token("merchant") });
    this.operator = createTokenBill({ baseUrl, apiToken: await system.token("operator") });
    const { url: databaseUrl } = this.postgres;
    this.database = await openDatabase({
      home: system.home,
      databaseUrl,
      databasePoolMax: 2,
      onNotice: () => {},
    });
    const shared = await options.controlPlaneUrl?.(replicas);
    for (let i = 0; i < options.nodes; i++) {
      this.run.signal.throwIfAborted();
      let controlPlaneUrl = shared;
      if (controlPlaneUrl === undefined) {
        const proxy = await CutProxy.start(replicas, i);
        this.nodeProxies.push(proxy);
        controlPlaneUrl = `http://${proxy.address}`;
      }
      await system.startNode({ ...options.node, controlPlaneUrl });
    }
  }

  get replicaAddresses(): string[] {
    return this.system.replicas.map((replica) => replica.address);
  }

  get nodes(): readonly DataPlaneNode[] {
    return this.system.nodes;
  }

  /** A shop that all nodes serve. Whole Credits of `tokens`, at the price that all have. */
  async openShop(options: Omit<ShopOptions, "upstreamUrl" | "creditBudget"> & { tokens: bigint; strict?: boolean }) {
    const { tokens, strict = false, ...rest } = options;
    const shop = await openShop(this.tb, {
      upstreamUrl: this.upstream.url,
      creditBudget: creditsOf(tokens),
      price: "0.05",
      ...rest,
    });
    const mine = { ...shop, strict };
    this.shops.push(mine);
    await Promise.all(this.nodes.map((node) => untilServed(node, shop, SERVED_TIMEOUT_MS)));
    return mine;
  }

  /** Waits, or throws when the run is stopped. */
  async pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.run.signal });
  }

  /** As `until`, but ends when the run is stopped. */
  until<T>(what: string, check: () => Promise<T | undefined | null | false>, timeoutMs?: number): Promise<T> {
    const guarded = (): Promise<T | undefined | null | false> =>
      this.run.signal.aborted ? Promise.resolve("stopped" as T) : check();
    return until(what, guarded, timeoutMs).then((value) => {
      this.run.signal.throwIfAborted();
      return value;
    });
  }

  /** Lets all nodes finish in order: they report everything and give their leases back. @throws if one does not */
  async stopNodes(): Promise<void> {
    await Promise.all(this.nodes.filter(({ part }) => part.running).map(({ part }) => part.stop()));
  }

  async #close(): Promise<void> {
    this.closed = true;
    await this.database?.close().catch(() => {});
    await this.system.killAll();
    for (const proxy of [...this.nodeProxies, this.databaseProxy, this.#apiProxy]) await proxy?.close();
    await this.upstream.close();
    await this.postgres.close();
  }
}

/** What so many tokens cost, as a decimal. */
export function creditsOf(tokens: bigint): string {
  return formatCredits(tokens * PICO_PER_TOKEN);
}
