/** The configuration feed on the wire. */

import type { ServiceImpl } from "@connectrpc/connect";
import type { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { badPageToken } from "../domain/errors.ts";
import type { Feed } from "../feed/feed.ts";
import { rejectedTotal } from "../feed/metrics.ts";
import { toResource } from "../feed/resources.ts";
import { readResourcePage, RESOURCE_KINDS, type ResourceRow, writeNodeStatus } from "../store/feed.ts";
import { readFeedState } from "../store/feed_state.ts";
import { type Deps, requireNode } from "./context.ts";
import { decodePageToken, encodePageToken, pageSize } from "./paging.ts";

/** How many rejected resources of one report are named in the log. */
const REJECTED_LOGGED_MAX = 20;
const LIST = "config";

interface Position {
  /** Index in RESOURCE_KINDS. */
  readonly kind: number;
  /** The last id of that kind that was given out. */
  readonly after: string;
}

function parsePosition(token: string): Position {
  const text = decodePageToken(LIST, "", token);
  if (text === null) return { kind: 0, after: "" };
  const match = /^([0-4]):([\x21-\x7e]{0,64})$/.exec(text);
  if (match === null) throw badPageToken();
  return { kind: Number(match[1]), after: match[2]! };
}

/** Up to `limit` rows from a position on, over the kinds. */
async function readRows(deps: Deps, from: Position, limit: number): Promise<ResourceRow[]> {
  const rows: ResourceRow[] = [];
  for (let kind = from.kind; kind < RESOURCE_KINDS.length && rows.length < limit; kind += 1) {
    const after = kind === from.kind ? from.after : "";
    rows.push(...(await readResourcePage(deps.db, RESOURCE_KINDS[kind]!, after, limit - rows.length)));
  }
  return rows;
}

export function configFeedService(deps: Deps, feed: Feed): ServiceImpl<typeof ConfigFeedService> {
  return {
    async *watchConfig(request, ctx) {
      requireNode(ctx);
      const cursor = request.cursor === undefined || request.cursor.epoch === "" ? null : request.cursor;
      deps.log.info(
        { nodeId: request.nodeId, bootId: request.bootId, from: cursor === null ? "start" : String(cursor.revision) },
        "a node watches the configuration",
      );
      yield* feed.watch(request.bootId, cursor, ctx.signal);
    },

    async getConfig(request, ctx) {
      requireNode(ctx);
      const size = pageSize(request.pageSize);
      const { epoch, revision } = await readFeedState(deps.db);
      const rows = await readRows(deps, parsePosition(request.pageToken), size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        cursor: { epoch, revision },
        resources: page.map((row) => toResource(deps, row, false)),
        nextPageToken: more ? encodePageToken(LIST, "", `${RESOURCE_KINDS.indexOf(last.kind)}:${last.id}`) : "",
      };
    },

    async reportConfigStatus({ nodeId, bootId, applied, rejected }, ctx) {
      requireNode(ctx);
      await writeNodeStatus(deps.db, deps.now(), {
        nodeId,
        bootId,
        epoch: applied?.epoch ?? "",
        revision: applied?.revision ?? 0n,
        rejected: rejected.map(({ id, reason }) => ({ id, reason })),
      });
      if (rejected.length > 0) {
        rejectedTotal.inc(rejected.length);
        deps.log.warn(
          { nodeId, bootId, resources: rejected.length, first: rejected.slice(0, REJECTED_LOGGED_MAX) },
          "a node cannot use resources",
        );
      }
      return {};
    },
  };
}
