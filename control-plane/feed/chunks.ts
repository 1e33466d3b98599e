/** PURE: cuts lists of resources into messages of bounded size. */

import { type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { WatchConfigResponseSchema } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";

export type FeedMessage = MessageInitShape<typeof WatchConfigResponseSchema>;

/** The most bytes of a snapshot chunk. A single resource is far smaller. */
export const CHUNK_BYTES_MAX = 1_048_576;
/** A larger delta is sent in parts. Few are: names that change hands must do so within one message. */
export const DELTA_BYTES_MAX = 4 * CHUNK_BYTES_MAX;
/** Tag and length of an element in its message, and of the message in its event. */
const FRAME_BYTES = 8;

/** Gathers resources and gives them back in lists of at most `bytesMax`. */
export class Packer {
  readonly #bytesMax: number;
  #resources: Resource[] = [];
  #bytes = FRAME_BYTES;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Adds a resource; returns the list that was full before it, or null. */
  add(resource: Resource): Resource[] | null {
    const size = toBinary(ResourceSchema, resource).byteLength + FRAME_BYTES;
    const full = this.#bytes + size > this.#bytesMax ? this.take() : null;
    this.#resources.push(resource);
    this.#bytes += size;
    return full;
  }

  /** What is left, or null. */
  take(): Resource[] | null {
    if (this.#resources.length === 0) return null;
    const taken = this.#resources;
    this.#resources = [];
    this.#bytes = FRAME_BYTES;
    return taken;
  }
}

/** One message of a change set. */
export interface DeltaPart {
  readonly upserts: readonly Resource[];
  readonly removedIds: readonly string[];
}

const REMOVED_IDS_MAX = Math.floor(DELTA_BYTES_MAX / 80);

/** Removals first, as nodes apply them; at least one part. */
export function cutDelta(
  upserts: readonly Resource[],
  removedIds: readonly string[],
  bytesMax: number = DELTA_BYTES_MAX,
): DeltaPart[] {
  const parts: { upserts: Resource[]; removedIds: string[] }[] = [];
  for (let at = 0; at < removedIds.length; at += REMOVED_IDS_MAX) {
    parts.push({ upserts: [], removedIds: removedIds.slice(at, at + REMOVED_IDS_MAX) });
  }
  const packer = new Packer(bytesMax);
  const lists: Resource[][] = [];
  for (const resource of upserts) {
    const full = packer.add(resource);
    if (full !== null) lists.push(full);
  }
  const rest = packer.take();
  if (rest !== null) lists.push(rest);
  const last = parts.at(-1);
  // The common case is one message with everything.
  if (last !== undefined && lists[0] !== undefined && last.removedIds.length < 1000) last.upserts = lists.shift()!;
  for (const list of lists) parts.push({ upserts: list, removedIds: [] });
  return parts.length === 0 ? [{ upserts: [], removedIds: [] }] : parts;
}

/**
 * The messages that bring a table from `from` to `revision`. Parts before the last do not advance the table: a node that
 * loses the stream in between starts from `from` again, and applying a part twice changes nothing.
 */
export function deltaMessages(parts: readonly DeltaPart[], from: bigint, revision: bigint): FeedMessage[] {
  return parts.map(({ upserts, removedIds }, index) => ({
    event: {
      case: "delta",
      value: {
        fromRevision: from,
        revision: index === parts.length - 1 ? revision : from,
        upserts: [...upserts],
        removedIds: [...removedIds],
      },
    },
  }));
}
