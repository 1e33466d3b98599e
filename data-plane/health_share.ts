/**
 * Tells the control plane what this node sees of upstreams, and takes in what the other nodes saw. A note that is lost does
 * no harm: who does not hear it learns it from the upstream. So nothing is kept, repeated or waited for.
 */

import { ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import type { HealthNote } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import type { HealthClient } from "./control_plane.ts";
import type { Health } from "./health.ts";
import type { RouteTable } from "./route_table.ts";
import type { HealthListener } from "./target_health.ts";

/** Cooldowns that change within this time travel together. */
export const SHARE_EVERY_MS = 100;
/** Averages have more time: they move all the time, and matter less. */
export const AVERAGES_EVERY_MS = 500;
/** After a call that failed. */
const PAUSE_MS = 1_000;
const CALL_TIMEOUT_MS = 2_000;
/** Of one call, and of what waits for it; the schema allows no more. */
export const NOTES_MAX = 1_000;
/** The schema allows no more. */
const COOL_MS_MAX = 3_600_000;

export interface HealthShareOptions {
  readonly client: HealthClient;
  readonly table: Pick<RouteTable, "healthOf">;
  readonly nodeId: string;
  readonly bootId: string;
  readonly log: Logger;
  /** The clock that health goes by, in milliseconds. */
  now(): number;
}

interface Change {
  readonly health: Health;
  /** It is about a cooldown, not only about averages. */
  cooldown: boolean;
}

type Note = Pick<HealthNote, "subjectId" | "coolMs" | "cause" | "failurePercent" | "firstContentMs">;

export class HealthShare implements HealthListener {
  readonly #options: HealthShareOptions;
  readonly #stopped = new AbortController();
  /** By id. */
  #changes = new Map<string, Change>();
  #timer: NodeJS.Timeout | null = null;
  /** One of the changes is of a cooldown. */
  #urgent = false;
  #calling = false;
  #notBefore = Number.NEGATIVE_INFINITY;

  constructor(options: HealthShareOptions) {
    this.#options = options;
  }

  changed(id: string, health: Health, cooldown: boolean): void {
    if (this.#stopped.signal.aborted) return;
    const change = this.#changes.get(id);
    if (change !== undefined) change.cooldown ||= cooldown;
    else if (this.#changes.size < NOTES_MAX) this.#changes.set(id, { health, cooldown });
    if (cooldown && !this.#urgent) {
      this.#urgent = true;
      this.#unplan();
    }
    this.#sendSoon();
  }

  /** Notes of the feed. */
  apply(notes: readonly HealthNote[]): void {
    const { table, bootId, now } = this.#options;
    for (const note of notes) if (note.bootId !== bootId) table.healthOf(note.subjectId)?.adopt(note, now());
  }

  stop(): void {
    this.#stopped.abort();
    this.#unplan();
  }

  #unplan(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #sendSoon(): void {
    if (this.#calling || this.#timer !== null || this.#changes.size === 0) return;
    const least = this.#urgent ? 0 : AVERAGES_EVERY_MS;
    const wait = Math.max(least, this.#notBefore - this.#options.now());
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#send();
    }, wait);
    this.#timer.unref();
  }

  async #send(): Promise<void> {
    const { client, nodeId, bootId, log, now } = this.#options;
    this.#calling = true;
    const notes = [...this.#changes].map(([id, change]) => noteOf(id, change, now()));
    this.#changes = new Map();
    this.#urgent = false;
    this.#notBefore = now() + SHARE_EVERY_MS;
    try {
      const { signal } = this.#stopped;
      await client.shareHealth({ nodeId, bootId, notes }, { timeoutMs: CALL_TIMEOUT_MS, signal });
    } catch (error) {
      this.#notBefore = now() + PAUSE_MS;
      log.debug({ reason: ConnectError.from(error).rawMessage }, "what was seen of upstreams could not be shared");
    }
    this.#calling = false;
    if (!this.#stopped.signal.aborted) this.#sendSoon();
  }
}

/**
 * A cause means that the note is about a cooldown: one that holds, or, with `coolMs` 0, one that is over because the target
 * is well again. Without a cause only the averages are told.
 */
function noteOf(id: string, { health, cooldown }: Change, now: number): Note {
  const coolMs = health.coolUntil === 0 ? 0 : Math.min(Math.max(1, Math.round(health.coolUntil - now)), COOL_MS_MAX);
  return {
    subjectId: id,
    coolMs: cooldown ? coolMs : 0,
    cause: cooldown ? health.cause : 0,
    failurePercent: Math.round(100 * health.failing(now)),
    firstContentMs: Math.round(health.latencyMs(true, now)),
  };
}
