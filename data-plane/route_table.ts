/**
 * PURE. The node's route table (L1). Applies events of the configuration feed and answers look-ups. A snapshot is built
 * beside the present table and swapped in whole; a delta is applied within one turn. References may come before or after
 * what they name: whatever is named gets a place at once and is filled in when it arrives.
 */

import type { Resource } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { Delta, WatchConfigResponse } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { Tables } from "./route_tables.ts";
import type { Health } from "./health.ts";
import type { RouteKey, RouteLm, RoutePm, RouteProvider, RouteVe } from "./route_types.ts";

/** At most this many rejections are told of one event. */
export const REJECTED_MAX = 1000;

export interface Rejection {
  readonly id: string;
  readonly reason: string;
}

export interface ApplyResult {
  /** The event was taken in. */
  readonly applied: boolean;
  /** Resources that cannot be used, or not yet; everything else of the event applies. */
  readonly rejected: readonly Rejection[];
  /** Something is missing before this event: reconnect without a cursor. The present table goes on serving. */
  readonly gap?: boolean;
}

const APPLIED: ApplyResult = { applied: true, rejected: [] };
const GAP: ApplyResult = { applied: false, rejected: [], gap: true };

export interface TableCursor {
  readonly epoch: string;
  readonly revision: bigint;
}

export class RouteTable {
  /** Where the present table stands; null before the first whole snapshot. */
  cursor: TableCursor | null = null;
  private tables = new Tables(() => undefined);
  private building: { tables: Tables; epoch: string } | null = null;

  /** Applies one event of the feed. Wallet events belong to the budget and change nothing here. */
  apply(message: WatchConfigResponse): ApplyResult {
    const event = message.event;
    switch (event.case) {
      case "snapshotBegin":
        this.building = { tables: new Tables((id) => this.healthOf(id)), epoch: event.value.epoch };
        return APPLIED;
      case "snapshotChunk":
        return this.building === null ? GAP : result(this.upsertAll(this.building.tables, event.value.resources));
      case "snapshotEnd":
        return this.finishSnapshot(event.value.revision);
      case "delta":
        return this.applyDelta(event.value);
      case "checkpoint": {
        const { epoch, revision } = event.value;
        if (this.building !== null) return APPLIED;
        if (this.cursor === null || this.cursor.epoch !== epoch || revision > this.cursor.revision) return GAP;
        return APPLIED;
      }
      default:
        return APPLIED;
    }
  }

  /** The key with this digest (standard base64 of SHA-256), if it is known and its VE is known. */
  key(digest: string): RouteKey | undefined {
    const key = this.tables.digests.get(digest);
    return key !== undefined && key.ve.present ? key : undefined;
  }

  /** The VE with this id. */
  ve(id: string): RouteVe | undefined {
    const ve = this.tables.ves.get(id);
    return ve !== undefined && ve.present ? ve : undefined;
  }

  /** The Provider with this id, disabled or not. */
  provider(id: string): RouteProvider | undefined {
    const provider = this.tables.providers.get(id);
    return provider !== undefined && provider.present ? provider : undefined;
  }

  /** The Physical Model with this id. */
  physicalModel(id: string): RoutePm | undefined {
    const pm = this.tables.pms.get(id);
    return pm !== undefined && pm.present ? pm : undefined;
  }

  /** The Logical Model of a VE by the name that clients send. */
  logicalModel(ve: RouteVe, name: string): RouteLm | undefined {
    const lms = ve.lms;
    if (!Array.isArray(lms)) return lms.get(name);
    const { specs } = ve;
    for (let i = 0; i < specs.length; i++) {
      if (specs[i]!.name === name) return lms[i];
    }
    return undefined;
  }

  /** All Logical Models of a VE, in no order. */
  logicalModels(ve: RouteVe): Iterable<RouteLm> {
    return ve.lms.values();
  }

  /** How many there are, for metrics. */
  size(): {
    providers: number;
    physicalModels: number;
    ves: number;
    keys: number;
    logicalModels: number;
    groups: number;
  } {
    const { providers, pms, ves, keys, lms, groups } = this.tables;
    return {
      providers: providers.size,
      physicalModels: pms.size,
      ves: ves.size,
      keys: keys.size,
      logicalModels: lms.size,
      groups: groups.size,
    };
  }

  /** Of a Physical Model or Provider. It outlives a snapshot. */
  healthOf(id: string): Health | undefined {
    return (this.tables.pms.get(id) ?? this.tables.providers.get(id))?.health;
  }

  /** How many cool down or wait for a trial, for metrics. */
  cooling(): { providers: number; physicalModels: number } {
    const { providers, pms } = this.tables;
    return { providers: countCooling(providers.values()), physicalModels: countCooling(pms.values()) };
  }

  private finishSnapshot(revision: bigint): ApplyResult {
    if (this.building === null) return GAP;
    const { tables, epoch } = this.building;
    this.building = null;
    this.tables = tables;
    this.cursor = { epoch, revision };
    const rejected: Rejection[] = [];
    for (const pm of tables.pms.values()) {
      if (pm.present && !pm.provider.present) reject(rejected, pm.id, missing("Provider", pm.provider.id));
    }
    for (const lm of tables.lms.values()) {
      if (rejected.length >= REJECTED_MAX) break;
      reportMissing(lm, rejected);
    }
    for (const key of tables.keys.values()) {
      if (!key.ve.present) reject(rejected, key.id, missing("VE", key.ve.id));
    }
    return result(rejected);
  }

  private applyDelta(delta: Delta): ApplyResult {
    // A snapshot that the stream broke off is forgotten: the next stream may go on from the cursor.
    this.building = null;
    if (this.cursor === null || delta.fromRevision !== this.cursor.revision) return GAP;
    // Removals first, and changed Logical Models out of the way, so that a name or a digest can change hands in one delta.
    for (const id of delta.removedIds) this.tables.remove(id);
    for (const { kind } of delta.upserts) {
      if (kind.case === "logicalModel") this.tables.setAside(kind.value.id);
      else if (kind.case === "accessKey") this.tables.remove(kind.value.id);
    }
    const rejected = this.upsertAll(this.tables, delta.upserts);
    this.tables.dropAside();
    for (const { kind } of delta.upserts) this.checkReferences(kind, rejected);
    this.cursor = { epoch: this.cursor.epoch, revision: delta.revision };
    return result(rejected);
  }

  private upsertAll(tables: Tables, resources: readonly Resource[]): Rejection[] {
    const rejected: Rejection[] = [];
    for (const resource of resources) {
      const reason = tables.upsert(resource);
      if (reason !== null) reject(rejected, resource.kind.value?.id ?? "", reason);
    }
    return rejected;
  }

  private checkReferences(kind: Resource["kind"], rejected: Rejection[]): void {
    if (kind.case === "physicalModel") {
      const pm = this.tables.pms.get(kind.value.id);
      if (pm?.present === true && !pm.provider.present) reject(rejected, pm.id, missing("Provider", pm.provider.id));
    } else if (kind.case === "logicalModel") {
      const lm = this.tables.lms.get(kind.value.id);
      if (lm !== undefined) reportMissing(lm, rejected);
    } else if (kind.case === "accessKey") {
      const key = this.tables.keys.get(kind.value.id);
      if (key !== undefined && !key.ve.present) reject(rejected, key.id, missing("VE", key.ve.id));
    }
  }
}

function countCooling(targets: Iterable<{ readonly health: Health }>): number {
  let count = 0;
  for (const { health } of targets) if (health.coolUntil !== 0) count++;
  return count;
}

function missing(kind: string, id: string): string {
  return `${kind} ${id} is not known (yet)`;
}

function reportMissing(lm: RouteLm, rejected: Rejection[]): void {
  if (!lm.ve.present) reject(rejected, lm.id, missing("VE", lm.ve.id));
  for (const pm of lm.spec.group.pms) {
    if (!pm.present) reject(rejected, lm.id, missing("Physical Model", pm.id));
  }
}

function reject(rejected: Rejection[], id: string, reason: string): void {
  if (rejected.length < REJECTED_MAX) rejected.push({ id, reason });
}

function result(rejected: readonly Rejection[]): ApplyResult {
  return rejected.length === 0 ? APPLIED : { applied: true, rejected };
}
