/**
 * Reads configuration for nodes. Pages run by id, not by revision: a row that changes while pages are read stays where it
 * is, and is read again as a change.
 */

import type { Tx } from "../db/database.ts";

/** In the order of a snapshot: what is referred to comes first. */
export const RESOURCE_KINDS = [
  "provider",
  "physical_model",
  "virtual_endpoint",
  "access_key",
  "logical_model",
] as const;
export type ResourceKind = (typeof RESOURCE_KINDS)[number];

/** A row as the database writes it: bytes are base64, int8 and numeric are strings. */
export interface ResourceRow {
  readonly kind: ResourceKind;
  readonly id: string;
  readonly doc: Readonly<Record<string, unknown>>;
}

interface Source {
  readonly from: string;
  /** Which rows nodes ever hear of. */
  readonly where: string;
  /** Which of those are to be removed from a node's table. */
  readonly gone: string;
  readonly doc: string;
}

const NEVER = "false";

const SOURCES: Readonly<Record<ResourceKind, Source>> = {
  provider: {
    from: "provider r",
    where: "true",
    gone: NEVER,
    doc: `'format', r.format, 'base_url', r.base_url, 'credentials', encode(r.credentials, 'base64'),
      'on_disconnect', r.on_disconnect, 'headers', r.headers, 'region', r.region, 'api_version', r.api_version, 'disabled', r.disabled,
      'dialect', r.dialect, 'bedrock_api', r.bedrock_api`,
  },
  physical_model: {
    from: "physical_model r left join price p on p.id = r.price_id",
    where: "true",
    gone: NEVER,
    doc: `'provider_id', r.provider_id, 'upstream_name', r.upstream_name, 'price', encode(p.body, 'base64'),
      'max_output_tokens', r.max_output_tokens::text, 'disabled', r.disabled, 'rate_limits', r.rate_limits,
      'family', r.family, 'apis', r.apis,
      'unit_limit_unit', (select a.unit from limit_account a where a.physical_model_id = r.id and a.kind = 1),
      'credit_limited', exists (select from limit_account a where a.physical_model_id = r.id and a.kind = 2)`,
  },
  virtual_endpoint: {
    from: "virtual_endpoint r join merchant m on m.id = r.merchant_id",
    where: "not r.template",
    gone: NEVER,
    doc: `'name', r.name, 'disabled', r.disabled or r.frozen or m.disabled, 'budget_mode', r.budget_mode, 'exhausted_status', r.exhausted_status,
      'low_balance', r.low_balance::text, 'offline_grace', r.offline_grace::text, 'rate_limits', r.rate_limits,
      'explain_headers', r.explain_headers, 'passthrough_provider_id', r.passthrough_provider_id`,
  },
  access_key: {
    from: "access_key r",
    where: "true",
    gone: "r.revoked_at is not null",
    doc: `'ve_id', r.ve_id, 'digest', encode(r.digest, 'base64'), 'rate_limits', r.rate_limits`,
  },
  logical_model: {
    from: "logical_model r join virtual_endpoint v on v.id = r.ve_id",
    where: "not v.template",
    gone: NEVER,
    doc: `'ve_id', r.ve_id, 'name', r.name, 'targets', r.targets, 'deadlines', r.deadlines, 'routing', r.routing,
      'created_s', extract(epoch from r.created_at)::bigint`,
  },
};

/** One page of one kind: the rows after the id `after` ("" from the start), by id. */
export async function readResourcePage(
  tx: Tx,
  kind: ResourceKind,
  after: string,
  limit: number,
): Promise<ResourceRow[]> {
  const { from, where, gone, doc } = SOURCES[kind];
  const rows = await tx.query<{ id: string; doc: Record<string, unknown> }>(
    `select r.id, json_build_object(${doc}) as doc from ${from}
     where r.id > $1 and ${where} and not (${gone}) order by r.id limit $2`,
    [after, limit],
  );
  return rows.map((row) => ({ kind, id: row.id, doc: row.doc }));
}

export interface Changes {
  readonly epoch: string;
  /** What the changes lead to. */
  readonly revision: bigint;
  /** Tombstones up to here may be missing: changes since an earlier revision are not whole. */
  readonly tombstoneFloor: bigint;
  /** In the order of a snapshot. */
  readonly upserts: readonly ResourceRow[];
  readonly removedIds: readonly string[];
  /** True: there are more changes than asked for, and `upserts` and `removedIds` are not whole. */
  readonly tooMany: boolean;
}

function changesQuery(): string {
  const parts = RESOURCE_KINDS.map((kind, index) => {
    const { from, where, gone, doc } = SOURCES[kind];
    return `(select ${index} as kind, r.id, case when ${gone} then null else json_build_object(${doc}) end as doc
      from ${from} where r.revision > $1 and ${where} limit $2)`;
  });
  const state =
    "(select -2 as kind, epoch as id, json_build_object('revision', revision::text, 'floor', tombstone_floor::text) as doc from feed_state)";
  const removed = "(select -1 as kind, id, null::json as doc from tombstone where revision > $1 limit $2)";
  return [state, removed, ...parts].join("\nunion all\n");
}

const CHANGES_QUERY = changesQuery();

interface ChangeColumns {
  kind: number;
  id: string;
  doc: Record<string, unknown> | null;
}

/**
 * Everything that changed after `since`, as of one moment: a single statement, so that no transaction is held open.
 */
export async function readChanges(tx: Tx, since: bigint, limit: number): Promise<Changes> {
  const rows = await tx.query<ChangeColumns>(CHANGES_QUERY, [since, limit + 1]);
  const state = rows.find((row) => row.kind === -2)!;
  const changes = rows.filter((row) => row.kind !== -2).toSorted((a, b) => a.kind - b.kind);
  const upserts: ResourceRow[] = [];
  const removedIds: string[] = [];
  for (const { kind, id, doc } of changes) {
    if (doc === null) removedIds.push(id);
    else upserts.push({ kind: RESOURCE_KINDS[kind]!, id, doc });
  }
  return {
    epoch: state.id,
    revision: BigInt(state.doc!["revision"] as string),
    tombstoneFloor: BigInt(state.doc!["floor"] as string),
    upserts,
    removedIds,
    tooMany: changes.length > limit,
  };
}

export interface NodeStatus {
  readonly nodeId: string;
  readonly bootId: string;
  readonly epoch: string;
  readonly revision: bigint;
  readonly rejected: readonly { readonly id: string; readonly reason: string }[];
}

/** Keeps what a node last said about its configuration. */
export async function writeNodeStatus(tx: Tx, now: number, status: NodeStatus): Promise<void> {
  await tx.query(
    `insert into node_status (node_id, boot_id, epoch, revision, rejected, reported_at) values ($1, $2, $3, $4, $5::jsonb, $6)
     on conflict (node_id) do update set boot_id = excluded.boot_id, epoch = excluded.epoch, revision = excluded.revision,
       rejected = excluded.rejected, reported_at = excluded.reported_at`,
    [status.nodeId, status.bootId, status.epoch, status.revision, JSON.stringify(status.rejected), new Date(now)],
  );
}
