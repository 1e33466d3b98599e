/** Usage and the ledger, for merchants. */

import { setImmediate as turn } from "node:timers/promises";
import type { ServiceImpl } from "@connectrpc/connect";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { formatCredits } from "../../core/credits.ts";
import { type Meter, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import {
  ExportFormat,
  UsageDimension,
  type UsageFilter as WireFilter,
  type UsageService,
} from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { badPageToken, invalidField, notFound } from "../domain/errors.ts";
import { listTransfers } from "../store/ledger.ts";
import {
  type EventRow,
  hasWallet,
  type LogPosition,
  readEvent,
  readEvents,
  SUMMARY_DIMENSIONS,
  summarize,
  type SummaryDimension,
  type SummaryRow,
  type UsageFilter,
} from "../store/usage_query.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { decodePageToken, decodeRowPosition, encodePageToken, pageSize, toPage } from "./paging.ts";
import { exportHeader, exportLine, Pieces } from "./usage_export.ts";
import { toRequestRecord } from "./usage_record.ts";

/** Rows that one statement of an export reads. */
const EXPORT_PAGE_ROWS = 500;
const INT64_MAX = 9_223_372_036_854_775_807n;

const DIMENSIONS: Readonly<Record<number, SummaryDimension>> = {
  [UsageDimension.VIRTUAL_ENDPOINT]: "ve_id",
  [UsageDimension.LOGICAL_MODEL]: "logical_model",
  [UsageDimension.PHYSICAL_MODEL]: "physical_model_id",
  [UsageDimension.ACCESS_KEY]: "access_key_id",
  [UsageDimension.DAY]: "day",
};

/** Arrivals are stored to the microsecond: a bound between two of them is the later one. */
function toUs(time: Timestamp | undefined): bigint | null {
  if (time === undefined) return null;
  return time.seconds * 1_000_000n + BigInt(Math.ceil(time.nanos / 1000));
}

function toFilter(merchantId: string, filter: WireFilter | undefined): UsageFilter {
  const startUs = toUs(filter?.startTime);
  const endUs = toUs(filter?.endTime);
  if (startUs !== null && endUs !== null && endUs < startUs)
    throw invalidField("filter.end_time", "must not be before start_time");
  return {
    merchantId,
    veId: filter?.veId ?? "",
    logicalModel: filter?.logicalModel ?? "",
    physicalModelId: filter?.physicalModelId ?? "",
    accessKeyId: filter?.accessKeyId ?? "",
    startUs,
    endUs,
  };
}

function filterKey(filter: UsageFilter, more: readonly string[] = []): string {
  const { merchantId, veId, logicalModel, physicalModelId, accessKeyId, startUs, endUs } = filter;
  return JSON.stringify([
    merchantId,
    veId,
    logicalModel,
    physicalModelId,
    accessKeyId,
    String(startUs),
    String(endUs),
    ...more,
  ]);
}

function toSummary({ key, requests, estimatedRequests, credits, units }: SummaryRow) {
  return {
    veId: key.ve_id ?? "",
    logicalModel: key.logical_model ?? "",
    physicalModelId: key.physical_model_id ?? "",
    accessKeyId: key.access_key_id ?? "",
    day: key.day ?? "",
    requests,
    estimatedRequests,
    credits: formatCredits(credits),
    units: units.flatMap((quantity, meter) =>
      quantity === 0n
        ? []
        : [
            {
              meter: meter as Meter,
              quantity: quantity > INT64_MAX ? INT64_MAX : quantity,
              source: UnitSource.UNSPECIFIED,
            },
          ],
    ),
  };
}

function parseKey(text: string | null, dimensions: readonly SummaryDimension[]): string[] | null {
  if (text === null) return null;
  const values: unknown = JSON.parse(text);
  if (!Array.isArray(values) || values.length !== dimensions.length) throw badPageToken();
  for (const [index, value] of values.entries()) {
    if (typeof value !== "string" || (dimensions[index] === "day" && !/^\d{4}-\d{2}-\d{2}$/.test(value)))
      throw badPageToken();
  }
  return values as string[];
}

function parsePosition(text: string | null): LogPosition | null {
  if (text === null) return null;
  const match = /^(\d{1,18}):(\d{1,18})$/.exec(text);
  if (match === null) throw badPageToken();
  return { arriveUs: BigInt(match[1]!), n: BigInt(match[2]!) };
}

async function* exportUsage(
  deps: Deps,
  filter: UsageFilter,
  format: ExportFormat,
  signal: AbortSignal,
): AsyncGenerator<{ data: Uint8Array }> {
  const pieces = new Pieces();
  pieces.add(exportHeader(format));
  let position: LogPosition | null = null;
  // Page by page rather than in one transaction: an export may take as long as its reader.
  while (!signal.aborted) {
    const rows: EventRow[] = await readEvents(deps.db, filter, "oldest first", position, EXPORT_PAGE_ROWS);
    for (const row of rows) {
      const full = pieces.add(exportLine(format, toRequestRecord(row)));
      if (full !== null) yield { data: full };
    }
    if (rows.length < EXPORT_PAGE_ROWS) break;
    position = rows.at(-1)!;
    // PGlite answers without leaving the turn: without this, nothing else would run until the export is through.
    await turn();
  }
  const rest = pieces.take();
  if (rest !== null && !signal.aborted) yield { data: rest };
}

export function usageService(deps: Deps): ServiceImpl<typeof UsageService> {
  return {
    async summarizeUsage(request, ctx) {
      const filter = toFilter(requireMerchant(ctx), request.filter);
      const asked = new Set(request.groupBy.map((dimension) => DIMENSIONS[dimension]));
      const dimensions = SUMMARY_DIMENSIONS.filter((dimension) => asked.has(dimension));
      const size = pageSize(request.pageSize);
      const scope = filterKey(filter, dimensions);
      const after = parseKey(decodePageToken("summary", scope, request.pageToken), dimensions);
      const rows = await summarize(deps.db, filter, dimensions, after, size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const position = JSON.stringify(dimensions.map((dimension) => last?.key[dimension] ?? ""));
      return {
        rows: page.map(toSummary),
        nextPageToken: rows.length > size ? encodePageToken("summary", scope, position) : "",
      };
    },

    async listRequests(request, ctx) {
      const filter = toFilter(requireMerchant(ctx), request.filter);
      const size = pageSize(request.pageSize);
      const scope = filterKey(filter);
      const position = parsePosition(decodePageToken("requests", scope, request.pageToken));
      const rows = await readEvents(deps.db, filter, "newest first", position, size + 1);
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        requests: page.map(toRequestRecord),
        nextPageToken: more ? encodePageToken("requests", scope, `${last.arriveUs}:${last.n}`) : "",
      };
    },

    async getRequest({ id }, ctx) {
      const event = await readEvent(deps.db, requireMerchant(ctx), id);
      if (event === null) throw notFound("request");
      return { request: toRequestRecord(event) };
    },

    async *exportUsage(request, ctx) {
      const filter = toFilter(requireMerchant(ctx), request.filter);
      const format = request.format === ExportFormat.UNSPECIFIED ? ExportFormat.NDJSON : request.format;
      yield* exportUsage(deps, filter, format, ctx.signal);
    },

    async listTransfers(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const { veId } = request;
      if (!(await hasWallet(deps.db, merchantId, veId))) throw notFound("VE");
      const size = pageSize(request.pageSize);
      const scope = JSON.stringify([merchantId, veId]);
      const before = decodeRowPosition("transfers", scope, request.pageToken);
      const rows = await listTransfers(deps.db, merchantId, veId, before, size + 1);
      const page = toPage(rows, size, "transfers", scope);
      return {
        transfers: page.items.map((row) => ({
          id: row.id,
          veId: row.veId,
          debitAccount: row.debit,
          creditAccount: row.credit,
          credits: formatCredits(row.credits),
          reference: row.reference,
          reason: row.reason,
          postTime: timestampFromDate(row.postedAt),
        })),
        nextPageToken: page.nextPageToken,
      };
    },
  };
}
