/** ProviderService.ImportPrices: a catalogue of prices for the Physical Models that a merchant has. */

import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type ImportPricesRequest,
  ImportPricesRequestSchema,
  type ImportPricesResponse,
  ImportPricesResponseSchema,
  type PriceChangeKind,
} from "../../proto/gen/tokenbill/v1/price_import_pb.ts";
import type { ProviderService } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Tx } from "../db/database.ts";
import { DomainError, limitReached } from "../domain/errors.ts";
import { checkDistinct, type ImportChange, type ImportEntry, planImport } from "../domain/price_import.ts";
import { nextRevision } from "../store/feed_state.ts";
import { listPhysicalModels, type PhysicalModelRow } from "../store/physical_model.ts";
import { insertPrices, lockAllPhysicalModels, readProviderIds, updatePrices } from "../store/price_import.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { once, requestBytes } from "./idempotency.ts";
import { checkPrice, type CheckedPrice, compileStoredPrice, readPrice } from "./prices.ts";

/** More Physical Models are priced one by one: the answer names each. */
export const IMPORT_MODELS_MAX = 10_000;

/** @throws DomainError invalid_field, price_not_exact, naming the entry */
function checkEntries(request: ImportPricesRequest, now: Date): ImportEntry[] {
  checkDistinct(request.entries);
  return request.entries.map(({ providerId, upstreamName, price, maxOutputTokens }, index) => ({
    providerId,
    upstreamName,
    // The schema demands one.
    price: checkPrice(price, "", "", now, `entries[${index}].`)!.compiled,
    maxOutputTokens,
  }));
}

/** A Provider of somebody else is like one that never was. @throws DomainError not_found, naming the entry */
async function checkProviders(tx: Tx, merchantId: string, entries: readonly ImportEntry[]): Promise<void> {
  const ids = new Set(entries.map(({ providerId }) => providerId));
  ids.delete("");
  const known = await readProviderIds(tx, merchantId, [...ids]);
  const index = entries.findIndex(({ providerId }) => providerId !== "" && !known.has(providerId));
  if (index === -1) return;
  const field = `entries[${index}].provider_id`;
  throw new DomainError("not_found", `${field}: there is no Provider with this id`, { field });
}

/** The price of a changed model as it is, or would be, stored. */
function newPrice(deps: Deps, request: ImportPricesRequest, row: PhysicalModelRow, entry: number): CheckedPrice {
  const id = request.preview ? "" : deps.newId("price_");
  return checkPrice(request.entries[entry]!.price, id, row.id, new Date(deps.now()))!;
}

interface Planned {
  readonly row: PhysicalModelRow;
  readonly change: ImportChange;
  /** Null: it keeps the one it has, or none. */
  readonly price: CheckedPrice | null;
}

async function plan(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: ImportPricesRequest,
): Promise<{ models: Planned[]; unused: readonly number[] }> {
  const entries = checkEntries(request, new Date(deps.now()));
  await checkProviders(tx, merchantId, entries);
  const limit = IMPORT_MODELS_MAX + 1;
  const rows = request.preview
    ? await listPhysicalModels(tx, merchantId, "", 0n, limit)
    : await lockAllPhysicalModels(tx, merchantId, limit);
  if (rows.length > IMPORT_MODELS_MAX)
    throw limitReached(
      "import_models_max",
      IMPORT_MODELS_MAX,
      `there are more than ${IMPORT_MODELS_MAX} Physical Models: set prices with UpdatePhysicalModel`,
    );
  const { changes, unused } = planImport(
    entries,
    rows.map((row) => ({
      providerId: row.provider_id,
      upstreamName: row.upstream_name,
      price: row.price_body === null ? null : compileStoredPrice(row.price_body),
      maxOutputTokens: row.max_output_tokens,
    })),
  );
  const models = rows.map((row, index): Planned => {
    const change = changes[index]!;
    return { row, change, price: change.newPrice ? newPrice(deps, request, row, change.entry) : null };
  });
  return { models, unused };
}

async function write(deps: Deps, tx: Tx, merchantId: string, models: readonly Planned[]): Promise<void> {
  const now = new Date(deps.now());
  const changed = models.filter(
    ({ row, change, price }) => price !== null || change.maxOutputTokens !== row.max_output_tokens,
  );
  if (changed.length === 0) return;
  await insertPrices(
    tx,
    changed.flatMap(({ row, price }) =>
      price === null ? [] : [{ id: price.message.id, merchantId, physicalModelId: row.id, body: price.body, now }],
    ),
  );
  const rows = changed.map(({ row, change, price }) => ({
    id: row.id,
    // A model that gets no new price has one: an entry fits it.
    priceId: price?.message.id ?? row.price_id!,
    maxOutputTokens: change.maxOutputTokens,
  }));
  await updatePrices(tx, rows, await nextRevision(tx), now);
}

function toResponse({ models, unused }: { models: readonly Planned[]; unused: readonly number[] }) {
  return create(ImportPricesResponseSchema, {
    changes: models.map(({ row, change, price }) => {
      const before: Price | undefined = row.price_body === null ? undefined : readPrice(row.price_body);
      return {
        physicalModelId: row.id,
        name: row.name,
        upstreamName: row.upstream_name,
        kind: change.kind as number as PriceChangeKind,
        entry: change.entry,
        before,
        after: price?.message ?? before,
        maxOutputTokensBefore: row.max_output_tokens,
        maxOutputTokensAfter: change.maxOutputTokens,
      };
    }),
    unusedEntries: [...unused],
  });
}

export function priceImportCalls(deps: Deps): Pick<ServiceImpl<typeof ProviderService>, "importPrices"> {
  const run = async (tx: Tx, merchantId: string, request: ImportPricesRequest): Promise<ImportPricesResponse> => {
    const planned = await plan(deps, tx, merchantId, request);
    if (!request.preview) await write(deps, tx, merchantId, planned.models);
    return toResponse(planned);
  };
  return {
    async importPrices(request, ctx) {
      const merchantId = requireMerchant(ctx);
      if (request.preview) return run(deps.db, merchantId, request);
      const bytes = requestBytes(ImportPricesRequestSchema, request);
      return deps.db.tx((tx) =>
        once(tx, deps, merchantId, "ImportPrices", request.requestId, bytes, ImportPricesResponseSchema, () =>
          run(tx, merchantId, request),
        ),
      );
    },
  };
}
