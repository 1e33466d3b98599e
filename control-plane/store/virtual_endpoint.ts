/** Virtual Endpoints. Every function that takes a merchant sees that merchant's rows alone. */

import type { Tx } from "../db/database.ts";
import { isUniqueViolation } from "../db/errors.ts";
import { inUse, notFound } from "../domain/errors.ts";
import { jsonOrNull, type StoredRateLimits } from "./routing_columns.ts";

/** What a merchant can change. `low_balance`, `offline_grace` and `budget_reset_credits` are decimal strings. */
export interface VirtualEndpointFields {
  name: string;
  disabled: boolean;
  budget_mode: number;
  exhausted_status: number;
  low_balance: string;
  offline_grace: string;
  labels: Record<string, string>;
  /** Null: the wallet is never filled up. */
  budget_reset_credits: string | null;
  /** `tokenbill.v1.Period`; null when the credits are. */
  budget_reset_period: number | null;
  /** Null for templates too. */
  next_budget_reset_at: Date | null;
  /** Null: none. */
  rate_limits: StoredRateLimits | null;
  explain_headers: boolean;
  /** Null: none. */
  passthrough_provider_id: string | null;
  /** As if it was disabled, while a payment for it is disputed. Never of templates, and not copied from one VE to another. */
  frozen: boolean;
}

export interface VirtualEndpointRow extends VirtualEndpointFields {
  id: string;
  n: bigint;
  merchant_id: string;
  template: boolean;
  ve_template_id: string | null;
  version: bigint;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS =
  "id, n, merchant_id, name, template, ve_template_id, disabled, budget_mode, exhausted_status, low_balance, offline_grace, labels, budget_reset_credits, budget_reset_period, next_budget_reset_at, rate_limits, explain_headers, passthrough_provider_id, frozen, version, created_at, updated_at";

/** Which VE it is can only be told for a clash that was there before; see `findPassthroughVe`. */
function onConflict(error: unknown): never {
  if (!isUniqueViolation(error, "virtual_endpoint_passthrough_key")) throw error;
  throw inUse("Provider", "", "another VE as its passthrough_provider_id: clear that first, or use another Provider");
}

/** It is not frozen. */
export interface NewVirtualEndpoint extends Omit<VirtualEndpointFields, "frozen"> {
  id: string;
  merchant_id: string;
  template: boolean;
  ve_template_id: string | null;
}

/** @throws DomainError in_use if another VE passes through to the Provider */
export async function insertVirtualEndpoint(
  tx: Tx,
  row: NewVirtualEndpoint,
  revision: bigint,
  now: Date,
): Promise<VirtualEndpointRow> {
  const [stored] = await tx
    .query<VirtualEndpointRow>(
      `insert into virtual_endpoint (id, merchant_id, name, template, ve_template_id, disabled, budget_mode, exhausted_status,
       low_balance, offline_grace, labels, revision, created_at, updated_at, budget_reset_credits, budget_reset_period,
       next_budget_reset_at, rate_limits, explain_headers, passthrough_provider_id)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, $12, $13, $13, $14, $15, $16, $17::jsonb, $18, $19)
     returning ${COLUMNS}`,
      [
        row.id,
        row.merchant_id,
        row.name,
        row.template,
        row.ve_template_id,
        row.disabled,
        row.budget_mode,
        row.exhausted_status,
        row.low_balance,
        row.offline_grace,
        JSON.stringify(row.labels),
        revision,
        now,
        row.budget_reset_credits,
        row.budget_reset_period,
        row.next_budget_reset_at,
        jsonOrNull(row.rate_limits),
        row.explain_headers,
        row.passthrough_provider_id,
      ],
    )
    .catch(onConflict);
  return stored!;
}

async function readOne(tx: Tx, merchantId: string, id: string, lock: string): Promise<VirtualEndpointRow> {
  const [row] = await tx.query<VirtualEndpointRow>(
    `select ${COLUMNS} from virtual_endpoint where id = $1 and merchant_id = $2 ${lock}`,
    [id, merchantId],
  );
  if (row === undefined) throw notFound("VE");
  return row;
}

/** @throws DomainError not_found */
export function readVirtualEndpoint(tx: Tx, merchantId: string, id: string): Promise<VirtualEndpointRow> {
  return readOne(tx, merchantId, id, "");
}

/** Locks the row against changes and deletion until the end of the transaction. @throws DomainError not_found */
export function lockVirtualEndpoint(tx: Tx, merchantId: string, id: string): Promise<VirtualEndpointRow> {
  return readOne(tx, merchantId, id, "for update");
}

/** Locks the row against deletion until the end of the transaction. @throws DomainError not_found */
export function keepVirtualEndpoint(tx: Tx, merchantId: string, id: string): Promise<VirtualEndpointRow> {
  return readOne(tx, merchantId, id, "for key share");
}

export interface VirtualEndpointFilter {
  /** Undefined: templates and others. */
  readonly template?: boolean;
  /** Empty: whatever they were made from. */
  readonly templateId: string;
}

/** Oldest first. The statement's text depends on the filter, so that each has its own plan and index. */
export async function listVirtualEndpoints(
  tx: Tx,
  merchantId: string,
  filter: VirtualEndpointFilter,
  after: bigint,
  limit: number,
): Promise<VirtualEndpointRow[]> {
  const kind = filter.template === undefined ? "" : filter.template ? "and template" : "and not template";
  const from = filter.templateId === "" ? "" : "and ve_template_id = $4";
  const params = [merchantId, after, limit];
  return tx.query<VirtualEndpointRow>(
    `select ${COLUMNS} from virtual_endpoint where merchant_id = $1 and n > $2 ${kind} ${from} order by n limit $3`,
    filter.templateId === "" ? params : [...params, filter.templateId],
  );
}

/** Writes a locked row as a new version. @throws DomainError in_use if another VE passes through to the Provider */
export async function updateVirtualEndpoint(
  tx: Tx,
  id: string,
  fields: VirtualEndpointFields,
  revision: bigint,
  now: Date,
): Promise<VirtualEndpointRow> {
  const [row] = await tx
    .query<VirtualEndpointRow>(
      `update virtual_endpoint set name = $2, disabled = $3, budget_mode = $4, exhausted_status = $5, low_balance = $6,
       offline_grace = $7, labels = $8::jsonb, revision = $9, updated_at = $10, version = version + 1,
       budget_reset_credits = $11, budget_reset_period = $12, next_budget_reset_at = $13,
       rate_limits = $14::jsonb, explain_headers = $15, passthrough_provider_id = $16, frozen = $17
     where id = $1 returning ${COLUMNS}`,
      [
        id,
        fields.name,
        fields.disabled,
        fields.budget_mode,
        fields.exhausted_status,
        fields.low_balance,
        fields.offline_grace,
        JSON.stringify(fields.labels),
        revision,
        now,
        fields.budget_reset_credits,
        fields.budget_reset_period,
        fields.next_budget_reset_at,
        jsonOrNull(fields.rate_limits),
        fields.explain_headers,
        fields.passthrough_provider_id,
        fields.frozen,
      ],
    )
    .catch(onConflict);
  return row!;
}

/**
 * Freezes a VE, or ends that, as a new version that nodes hear of. False: it was so already, or it is deleted or a template.
 * The caller holds what comes before the VE in the order of locks, and takes the revision with `nextRevision`, last of all.
 */
export async function setFrozen(tx: Tx, veId: string, frozen: boolean, revision: bigint, now: Date): Promise<boolean> {
  const rows = await tx.query(
    `update virtual_endpoint set frozen = $2, revision = $3, updated_at = $4, version = version + 1
     where id = $1 and not template and frozen <> $2 returning 1 as one`,
    [veId, frozen, revision, now],
  );
  return rows.length > 0;
}

/** Deletes a locked row with its keys and Logical Models; the ids of everything that went. */
export async function deleteVirtualEndpoint(tx: Tx, id: string): Promise<string[]> {
  const models = await tx.query<{ id: string }>("delete from logical_model where ve_id = $1 returning id", [id]);
  const keys = await tx.query<{ id: string }>("delete from access_key where ve_id = $1 returning id", [id]);
  await tx.query("delete from virtual_endpoint where id = $1", [id]);
  return [...models.map((row) => row.id), ...keys.map((row) => row.id), id];
}
