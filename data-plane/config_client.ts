/** Follows the configuration feed: brings events to the route table and the wallets, and tells how far the node has come. */

import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import { type Credits, parseCredits } from "../core/credits.ts";
import type { WatchConfigResponse } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { Resource } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { HealthNote } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { limitAccount, LimitKind } from "./budget/accounts.ts";
import type { Wallets } from "./budget/wallets.ts";
import type { TableFile } from "./config_table_file.ts";
import type { FeedClient } from "./control_plane.ts";
import type { RouteTable } from "./route_table.ts";

/** Without any event for this long the feed is taken for dead; the control plane sends a checkpoint every ten seconds. */
export const SILENCE_MS = 35_000;
export const RECONNECT_MIN_MS = 50;
export const RECONNECT_MAX_MS = 5_000;
/** What was applied is told this long after it was, together with what followed. */
export const STATUS_MS = 200;
const STATUS_TIMEOUT_MS = 5_000;
const REJECTED_MAX = 1_000;
const REASON_CHARS_MAX = 512;

export interface ConfigClientOptions {
  readonly client: FeedClient;
  readonly table: RouteTable;
  readonly wallets: Wallets;
  readonly file: TableFile;
  readonly nodeId: string;
  readonly bootId: string;
  readonly log: Logger;
  /** Milliseconds of a clock that only goes forward. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  readonly silenceMs?: number;
  /** Runs when the node has a whole table for the first time. */
  onTable(): void;
  /** What nodes saw of upstreams. */
  onHealth?(notes: readonly HealthNote[]): void;
}

export class ConfigClient {
  readonly #options: ConfigClientOptions;
  readonly #stopped = new AbortController();
  readonly #rejected = new Map<string, string>();
  /** Grace amounts of a snapshot that is not whole yet. */
  #graces: Map<string, Credits> | null = null;
  #statusTimer: NodeJS.Timeout | null = null;
  #telling = false;
  #running: Promise<void> = Promise.resolve();
  #hasTable = false;
  readonly #heard = Promise.withResolvers<void>();
  /** When the last event came; 0: none yet. */
  heardAt = 0;
  connected = false;

  constructor(options: ConfigClientOptions) {
    this.#options = options;
  }

  /** Serves from the stored table, if there is one, and follows the feed until `stop`. */
  start(): void {
    const { file, table, log } = this.#options;
    file.load((event) => this.#apply(event));
    if (table.cursor !== null) log.info({ revision: Number(table.cursor.revision) }, "serving the stored route table");
    this.#noteTable();
    this.#running = this.#run();
  }

  /** Resolves when the control plane has sent anything. */
  get heard(): Promise<void> {
    return this.#heard.promise;
  }

  get rejected(): number {
    return this.#rejected.size;
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    if (this.#statusTimer !== null) clearTimeout(this.#statusTimer);
    await this.#running;
    await this.#options.file.close();
  }

  async #run(): Promise<void> {
    const { table, random, log } = this.#options;
    let failures = 0;
    let fresh = false;
    while (!this.#stopped.signal.aborted) {
      const ended = await this.#watch(fresh);
      this.connected = false;
      if (this.#stopped.signal.aborted) return;
      fresh = ended.heard ? ended.fresh : fresh;
      failures = ended.heard ? 1 : failures + 1;
      if (ended.reason !== "" && (failures === 1 || failures % 100 === 0)) {
        log.warn({ reason: ended.reason, failures }, "the configuration feed is down; serving the last table");
      }
      const most = Math.min(RECONNECT_MAX_MS, RECONNECT_MIN_MS * 2 ** Math.min(failures - 1, 16));
      // A gap is healed at once, unless it comes again and again.
      await this.#pause(
        fresh && table.cursor !== null && ended.heard ? RECONNECT_MIN_MS * random() : most * (0.5 + random() / 2),
      );
    }
  }

  /** One connection. `fresh`: ask for a snapshot. Returns how it ended and whether the next must ask for one. */
  async #watch(fresh: boolean): Promise<{ heard: boolean; fresh: boolean; reason: string }> {
    const { client, table, file, nodeId, bootId, now } = this.#options;
    const connection = new AbortController();
    const signal = AbortSignal.any([this.#stopped.signal, connection.signal]);
    let silence: NodeJS.Timeout | undefined;
    const listen = (): void => {
      clearTimeout(silence);
      silence = setTimeout(
        () => connection.abort(new Error("nothing was heard for too long")),
        this.#options.silenceMs ?? SILENCE_MS,
      );
    };
    let heard = false;
    let snapshot = false;
    try {
      listen();
      const cursor =
        fresh || table.cursor === null ? undefined : { epoch: table.cursor.epoch, revision: table.cursor.revision };
      for await (const event of client.watchConfig({ nodeId, bootId, cursor }, { signal })) {
        listen();
        heard = true;
        this.connected = true;
        this.heardAt = now();
        this.#heard.resolve();
        snapshot = event.event.case === "snapshotBegin" || (snapshot && event.event.case !== "snapshotEnd");
        if (!this.#apply(event)) return { heard, fresh: true, reason: "an event is missing" };
        await file.keep(event);
        if (file.wantsSnapshot && !snapshot) return { heard, fresh: true, reason: "" };
      }
      return { heard, fresh: false, reason: "it ended" };
    } catch (error) {
      const { code, rawMessage } = ConnectError.from(connection.signal.aborted ? connection.signal.reason : error);
      return { heard, fresh: false, reason: `${Code[code]}: ${rawMessage}` };
    } finally {
      clearTimeout(silence);
      connection.abort();
    }
  }

  /** False: something is missing before this event. */
  #apply(event: WatchConfigResponse): boolean {
    const { table, wallets } = this.#options;
    const { event: what } = event;
    if (what.case === "wallet") {
      const { veId, physicalModelId, limitKind } = what.value;
      const account = physicalModelId === "" ? veId : limitAccount(physicalModelId, limitKind as number as LimitKind);
      wallets.push(account, what.value);
      return true;
    }
    if (what.case === "health") {
      this.#options.onHealth?.(what.value.notes);
      return true;
    }
    // What the table says until now is the kind of Unit that leases are counted in.
    if (what.case === "snapshotChunk") this.#noteUnits(what.value.resources);
    else if (what.case === "delta") this.#noteUnits(what.value.upserts);
    const { gap, rejected } = table.apply(event);
    if (gap === true) return false;
    switch (what.case) {
      case "snapshotBegin":
        this.#rejected.clear();
        this.#graces = new Map();
        break;
      case "snapshotChunk":
        this.#noteResources(what.value.resources);
        break;
      case "snapshotEnd":
        this.#swapGraces();
        break;
      case "delta":
        for (const id of what.value.removedIds) this.#forget(id);
        this.#noteResources(what.value.upserts);
        break;
      default:
        return true;
    }
    for (const { id, reason } of rejected) this.#rejected.set(id, reason.slice(0, REASON_CHARS_MAX));
    if (what.case !== "snapshotBegin" && what.case !== "snapshotChunk") {
      this.#noteTable();
      this.#tellSoon();
    }
    return true;
  }

  #noteTable(): void {
    if (this.#hasTable || this.#options.table.cursor === null) return;
    this.#hasTable = true;
    this.#options.onTable();
  }

  #noteResources(resources: readonly Resource[]): void {
    for (const { kind } of resources) {
      if (kind.case === undefined) continue;
      if (this.#rejected.size > 0) this.#rejected.delete(kind.value.id);
      if (kind.case !== "virtualEndpoint") continue;
      const grace = graceOf(kind.value.offlineGraceCredits);
      if (this.#graces === null) this.#options.wallets.setGrace(kind.value.id, grace);
      else if (grace > 0n) this.#graces.set(kind.value.id, grace);
    }
  }

  /** A Unit Limit that changes its kind of Unit makes the leases of it worthless. */
  #noteUnits(resources: readonly Resource[]): void {
    const { table, wallets } = this.#options;
    for (const { kind } of resources) {
      if (kind.case !== "physicalModel") continue;
      const { id, unitLimitUnit } = kind.value;
      const before = table.physicalModel(id)?.unitLimit ?? 0;
      if (before !== 0 && before !== Number(unitLimitUnit)) wallets.forfeit(limitAccount(id, LimitKind.UNITS));
    }
  }

  #forget(id: string): void {
    this.#rejected.delete(id);
    if (id.startsWith("ve_")) this.#options.wallets.setGrace(id, 0n);
  }

  /** Grace amounts come into force with the table they belong to. */
  #swapGraces(): void {
    const graces = this.#graces ?? new Map<string, Credits>();
    this.#graces = null;
    const { wallets } = this.#options;
    for (const veId of [...wallets.graced()]) if (!graces.has(veId)) wallets.setGrace(veId, 0n);
    for (const [veId, grace] of graces) wallets.setGrace(veId, grace);
  }

  #tellSoon(): void {
    if (this.heardAt === 0) return;
    this.#statusTimer ??= setTimeout(() => {
      this.#statusTimer = null;
      void this.#tell();
    }, STATUS_MS);
  }

  async #tell(): Promise<void> {
    const { client, table, nodeId, bootId, log } = this.#options;
    if (this.#telling || table.cursor === null) return;
    this.#telling = true;
    const { epoch, revision } = table.cursor;
    const rejected = [...this.#rejected].slice(0, REJECTED_MAX).map(([id, reason]) => ({ id, reason }));
    if (rejected.length > 0)
      log.warn({ rejected: rejected.length, first: rejected[0] }, "some of the configuration cannot be used");
    try {
      const signal = this.#stopped.signal;
      await client.reportConfigStatus(
        { nodeId, bootId, applied: { epoch, revision }, rejected },
        { timeoutMs: STATUS_TIMEOUT_MS, signal },
      );
    } catch (error) {
      log.debug({ reason: ConnectError.from(error).rawMessage }, "the state of the configuration could not be told");
    }
    this.#telling = false;
    // What was applied while this was told comes next.
    if (table.cursor.revision !== revision && !this.#stopped.signal.aborted) this.#tellSoon();
  }

  async #pause(ms: number): Promise<void> {
    // Ends early, by rejecting, when the client is stopped.
    await sleep(ms, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
  }
}

function graceOf(text: string): Credits {
  try {
    const grace = parseCredits(text === "" ? "0" : text);
    return grace > 0n ? grace : 0n;
  } catch {
    // A value that this node cannot read gives no grace.
    return 0n;
  }
}
