/** A node's table, built from feed messages the way a node must: nothing is forgiven. */

import type { FeedCursor } from "./feed.ts";
import type { FeedMessage } from "./chunks.ts";

export class FeedTable {
  /** Resource by id, as JSON text. */
  resources = new Map<string, string>();
  cursor: FeedCursor | null = null;
  snapshots = 0;
  deltas = 0;
  #building: Map<string, string> | null = null;
  #epoch = "";

  apply({ event }: FeedMessage): void {
    switch (event?.case) {
      case "snapshotBegin":
        this.#building = new Map();
        this.#epoch = event.value.epoch!;
        this.snapshots += 1;
        return;
      case "snapshotChunk":
        for (const resource of event.value.resources!) put(this.#building!, resource as Loose);
        return;
      case "snapshotEnd":
        this.resources = this.#building!;
        this.#building = null;
        this.cursor = { epoch: this.#epoch, revision: event.value.revision! };
        return;
      case "delta": {
        const { fromRevision, revision, removedIds, upserts } = event.value;
        if (this.#building !== null || this.cursor === null || fromRevision !== this.cursor.revision)
          throw new Error("a gap");
        for (const id of removedIds!) this.resources.delete(id);
        for (const resource of upserts!) put(this.resources, resource as Loose);
        this.cursor = { epoch: this.cursor.epoch, revision: revision! };
        this.deltas += 1;
        return;
      }
      case "checkpoint":
        if (event.value.revision !== this.cursor?.revision || event.value.epoch !== this.cursor?.epoch)
          throw new Error("a checkpoint of another place");
        return;
      default:
        return;
    }
  }
}

interface Loose {
  kind: { value: { id: string } };
}

function put(table: Map<string, string>, resource: Loose): void {
  const json = JSON.stringify(resource.kind, (_, value: unknown) => (typeof value === "bigint" ? `${value}n` : value));
  table.set(resource.kind.value.id, json);
}

/** Follows a stream until `done`; ends the stream then. */
export async function follow(
  table: FeedTable,
  stream: AsyncGenerator<FeedMessage>,
  done: (table: FeedTable) => boolean,
): Promise<void> {
  for await (const message of stream) {
    table.apply(message);
    if (done(table)) return;
  }
}
