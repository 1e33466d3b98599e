/**
 * Configuration revisions -> watchers. Changes are read once and shared by all nodes of this replica. Notifications are
 * hints: the feed subscribes before it reads, and reads again after every subscription and on a slow timer.
 */

import { setImmediate as turn } from "node:timers/promises";
import type { Deps } from "../api/context.ts";
import { DomainError } from "../domain/errors.ts";
import { type Changes, readChanges, readResourcePage, RESOURCE_KINDS } from "../store/feed.ts";
import { limitKey } from "../domain/limits.ts";
import type { BoardNote } from "../health/board.ts";
import { HealthExchange } from "../health/exchange.ts";
import { CONFIG_CHANNEL, readFeedState, WALLET_CHANNEL, type WalletHint } from "../store/feed_state.ts";
import { CHUNK_BYTES_MAX, cutDelta, deltaMessages, type FeedMessage, Packer } from "./chunks.ts";
import { revisionGauge, slowWatchersTotal, snapshotsTotal, watchersGauge } from "./metrics.ts";
import { toResource } from "./resources.ts";
import { type SharedDelta, Watcher, type WatcherEvent } from "./watcher.ts";

/** How often nodes hear that the feed is alive, and how often the database is read in case a hint was lost. */
export const CHECKPOINT_EVERY_MS = 10_000;
/** How soon the feed reads again after the database failed. */
const RETRY_MS = 500;
/** Rows of one page of a snapshot, unless `FeedOptions` says otherwise. */
export const PAGE_ROWS = 500;
/** Pages that are read at the same time, so that many nodes starting at once leave connections for others. */
const PAGE_READS_MAX = 3;
/** More changes than this are sent as a new snapshot. A merchant with 100,000 VEs can still be disabled by a delta. */
export const DELTA_ROWS_MAX = 120_000;
/** More changes than this while a snapshot was sent end the stream. */
const CATCH_UP_ROWS_MAX = 400_000;

/** Of one message. */
const HEALTH_NOTES_MAX = 1000;

/** For tests, which reach the limits with little data. */
export interface FeedOptions {
  readonly pageRows?: number;
  readonly deltaRowsMax?: number;
}

export interface FeedCursor {
  readonly epoch: string;
  readonly revision: bigint;
}

/** Lets `max` run at once; the others wait in turn. */
class Turnstile {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  constructor(max: number) {
    this.#free = max;
  }
  async run<T>(fn: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await fn();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

export class Feed {
  readonly #deps: Deps;
  readonly #pageRows: number;
  readonly #deltaRowsMax: number;
  readonly #watchers = new Set<Watcher>();
  readonly #credits = new Map<string, Set<() => void>>();
  readonly #turnstile = new Turnstile(PAGE_READS_MAX);
  /** What nodes share of upstreams; the feed brings it to the others. */
  readonly health: HealthExchange;
  #unlisten: (() => Promise<void>)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #epoch = "";
  #revision = 0n;
  #started = false;
  #dirty = false;
  #reading: Promise<void> | null = null;
  #closed = false;

  private constructor(deps: Deps, options: FeedOptions) {
    this.#deps = deps;
    this.#pageRows = options.pageRows ?? PAGE_ROWS;
    this.#deltaRowsMax = options.deltaRowsMax ?? DELTA_ROWS_MAX;
    this.health = new HealthExchange(deps, (subjects, bootId) => {
      for (const watcher of this.#watchers) {
        if (watcher.bootId !== bootId) this.#push(watcher, { kind: "health", subjects });
      }
    });
  }

  /** Subscribes and reads where the database stands. */
  static async start(deps: Deps, options: FeedOptions = {}): Promise<Feed> {
    const feed = new Feed(deps, options);
    const onReady = () => feed.#poke();
    feed.#unlisten.push(await deps.db.listen(CONFIG_CHANNEL, () => feed.#poke(), onReady));
    feed.#unlisten.push(await deps.db.listen(WALLET_CHANNEL, (payload) => feed.#onWallet(payload), onReady));
    feed.#unlisten.push(await feed.health.listen());
    const { epoch, revision } = await readFeedState(deps.db);
    feed.#epoch = epoch;
    feed.#revision = revision;
    feed.#started = true;
    feed.#poke();
    feed.#timer = setInterval(() => feed.#tick(), CHECKPOINT_EVERY_MS);
    return feed;
  }

  /** Ends all streams; nodes connect again elsewhere. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    const error = new DomainError("unavailable", "the control plane is stopping: connect again");
    for (const watcher of this.#watchers) watcher.end(error);
    await this.#reading;
    for (const unlisten of this.#unlisten) await unlisten();
  }

  /**
   * Calls back when something of a wallet or a limit became available, on whichever replica; returns the way to stop.
   * `subject` is a VE's id, or a `limitKey`.
   */
  onCredits(subject: string, callback: () => void): () => void {
    const callbacks = this.#credits.get(subject) ?? new Set();
    this.#credits.set(subject, callbacks.add(callback));
    return () => {
      callbacks.delete(callback);
      if (callbacks.size === 0 && this.#credits.get(subject) === callbacks) this.#credits.delete(subject);
    };
  }

  #onWallet(payload: string): void {
    let hint: WalletHint;
    try {
      hint = JSON.parse(payload) as WalletHint;
    } catch {
      this.#deps.log.warn("a wallet notification is not ours");
      return;
    }
    const { veId, limit, kind, boots } = hint;
    const subject = limit === undefined ? veId : limitKey(limit.physicalModelId, limit.kind);
    if (kind !== "recall") for (const callback of this.#credits.get(subject) ?? []) callback();
    if (kind === "freed") return;
    const meant = boots === undefined ? null : new Set(boots);
    const event: WatcherEvent = {
      kind: "wallet",
      veId,
      recall: kind === "recall",
      toppedUp: kind === "topped_up",
      ...(limit === undefined ? {} : { physicalModelId: limit.physicalModelId, limitKind: limit.kind }),
    };
    for (const watcher of this.#watchers) if (meant === null || meant.has(watcher.bootId)) this.#push(watcher, event);
  }

  #push(watcher: Watcher, event: WatcherEvent): void {
    if (watcher.push(event)) return;
    slowWatchersTotal.inc();
    this.#deps.log.warn({ bootId: watcher.bootId }, "a node does not keep up with the feed and is disconnected");
    this.#drop(watcher);
  }

  #drop(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    watchersGauge.set(this.#watchers.size);
  }

  #tick(): void {
    this.#poke();
    this.health.prune();
    for (const watcher of this.#watchers) this.#push(watcher, { kind: "checkpoint" });
  }

  /** Reads what changed; a poke during a read makes one more read. Bursts coalesce without any delay. */
  #poke(): void {
    this.#dirty = true;
    if (!this.#started || this.#closed || this.#reading !== null) return;
    this.#reading = this.#readAll().finally(() => {
      this.#reading = null;
      if (this.#dirty && !this.#closed && this.#retry === undefined) this.#poke();
    });
  }

  async #readAll(): Promise<void> {
    try {
      while (this.#dirty && !this.#closed) {
        this.#dirty = false;
        this.#publish(await readChanges(this.#deps.db, this.#revision, this.#deltaRowsMax));
      }
    } catch (error) {
      this.#dirty = true;
      if (this.#closed) return;
      this.#deps.log.error({ reason: (error as Error).message }, "the feed cannot read changes; it tries again");
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        this.#poke();
      }, RETRY_MS);
    }
  }

  #publish(changes: Changes): void {
    const { epoch, revision } = changes;
    if (epoch !== this.#epoch || revision < this.#revision) {
      // Another database, or an older copy of it: nobody's table can be trusted.
      this.#deps.log.warn(
        { epoch, revision: String(revision) },
        "the database is not the one that was read before; nodes start over",
      );
      this.#epoch = epoch;
      this.#revision = revision;
      for (const watcher of this.#watchers)
        watcher.end(new DomainError("unavailable", "the feed starts over: connect again"));
      return;
    }
    if (revision === this.#revision) return;
    const delta: SharedDelta = { from: this.#revision, revision, parts: this.#partsOf(changes) };
    this.#revision = revision;
    revisionGauge.set(Number(revision));
    for (const watcher of this.#watchers) this.#push(watcher, { kind: "delta", delta });
  }

  #partsOf(changes: Changes): SharedDelta["parts"] {
    if (changes.tooMany) return null;
    if (this.#watchers.size === 0) return [];
    return this.#cut(changes);
  }

  #cut(changes: Changes) {
    return cutDelta(
      changes.upserts.map((row) => toResource(this.#deps, row, true)),
      changes.removedIds,
    );
  }

  /**
   * The events of one node, from `cursor` or from the start, until the signal aborts. The consumer pulls: nothing is read
   * ahead of it but a bounded queue. @throws DomainError unavailable when the node should connect again
   */
  async *watch(bootId: string, cursor: FeedCursor | null, signal: AbortSignal): AsyncGenerator<FeedMessage> {
    const watcher = new Watcher(bootId);
    const onAbort = () => watcher.close();
    signal.addEventListener("abort", onAbort);
    this.#watchers.add(watcher);
    watchersGauge.set(this.#watchers.size);
    try {
      if (signal.aborted) return;
      if (this.#closed) throw new DomainError("unavailable", "the control plane is stopping: connect again");
      // Sent once the table is there: notes about what a node does not know would be lost on it.
      watcher.push({ kind: "health", subjects: this.health.board.all() });
      yield* this.#follow(watcher, cursor);
    } finally {
      signal.removeEventListener("abort", onAbort);
      watcher.close();
      this.#drop(watcher);
    }
  }

  async *#follow(watcher: Watcher, cursor: FeedCursor | null): AsyncGenerator<FeedMessage> {
    let at = yield* this.#open(watcher, cursor);
    for (;;) {
      const event = await watcher.next();
      if (event === null) return;
      if (event.kind === "wallet") {
        const { kind: _, ...value } = event;
        yield { event: { case: "wallet", value } };
      } else if (event.kind === "health") {
        yield* healthMessages(this.health.notesFor(watcher.bootId, event.subjects));
      } else if (event.kind === "checkpoint") {
        yield checkpoint(at);
      } else if (event.delta.revision > at.revision) {
        if (event.delta.parts === null) {
          watcher.live = false;
          at = yield* this.#snapshot(watcher);
          continue;
        }
        // A delta that starts before this table holds all that the table lacks, and more that it has already.
        yield* deltaMessages(event.delta.parts, at.revision, event.delta.revision);
        at = { epoch: at.epoch, revision: event.delta.revision };
      }
    }
  }

  /** Brings the node to the present: by what changed since its cursor, if that can be known, else by a snapshot. */
  async *#open(watcher: Watcher, cursor: FeedCursor | null): AsyncGenerator<FeedMessage, FeedCursor> {
    if (cursor === null) return yield* this.#snapshot(watcher);
    watcher.live = true;
    const changes = await readChanges(this.#deps.db, cursor.revision, this.#deltaRowsMax);
    const usable =
      changes.epoch === cursor.epoch &&
      cursor.revision <= changes.revision &&
      cursor.revision >= changes.tombstoneFloor;
    if (!usable || changes.tooMany) {
      watcher.live = false;
      return yield* this.#snapshot(watcher);
    }
    const at = { epoch: changes.epoch, revision: changes.revision };
    if (changes.revision > cursor.revision) yield* deltaMessages(this.#cut(changes), cursor.revision, changes.revision);
    // The server speaks first, also when there is nothing new.
    else yield checkpoint(at);
    return at;
  }

  /**
   * Every resource, page by page, without a transaction around the pages: each page shows its own moment. What changed or
   * was deleted since the first page follows as a delta right behind the end, so the table is whole then. It is read
   * before the end is sent, so that both leave together.
   */
  async *#snapshot(watcher: Watcher): AsyncGenerator<FeedMessage, FeedCursor> {
    snapshotsTotal.inc();
    const { epoch, revision } = await readFeedState(this.#deps.db);
    yield { event: { case: "snapshotBegin", value: { epoch, revision } } };
    const packer = new Packer(CHUNK_BYTES_MAX);
    for (const kind of RESOURCE_KINDS) {
      let after = "";
      for (;;) {
        const rows = await this.#turnstile.run(() => readResourcePage(this.#deps.db, kind, after, this.#pageRows));
        for (const row of rows) {
          const full = packer.add(toResource(this.#deps, row, true));
          if (full !== null) yield { event: { case: "snapshotChunk", value: { resources: full } } };
        }
        if (watcher.closed) return { epoch, revision };
        // PGlite answers without leaving the turn: without this, nothing else would run until the snapshot is through.
        await turn();
        if (rows.length < this.#pageRows) break;
        after = rows.at(-1)!.id;
      }
    }
    const rest = packer.take();
    if (rest !== null) yield { event: { case: "snapshotChunk", value: { resources: rest } } };
    watcher.live = true;
    const changes = await readChanges(this.#deps.db, revision, CATCH_UP_ROWS_MAX);
    if (
      changes.epoch !== epoch ||
      changes.tooMany ||
      changes.revision < revision ||
      changes.tombstoneFloor > revision
    ) {
      throw new DomainError("unavailable", "the configuration changed too much during the snapshot: connect again");
    }
    yield { event: { case: "snapshotEnd", value: { revision } } };
    if (changes.revision > revision) yield* deltaMessages(this.#cut(changes), revision, changes.revision);
    return { epoch, revision: changes.revision };
  }
}

function* healthMessages(notes: readonly BoardNote[]): Generator<FeedMessage> {
  for (let at = 0; at < notes.length; at += HEALTH_NOTES_MAX) {
    yield { event: { case: "health", value: { notes: notes.slice(at, at + HEALTH_NOTES_MAX) } } };
  }
}

function checkpoint({ epoch, revision }: FeedCursor): FeedMessage {
  return { event: { case: "checkpoint", value: { epoch, revision } } };
}
