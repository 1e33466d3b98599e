/** The request log as lines of text. */

import { type DescEnum, toJsonString } from "@bufbuild/protobuf";
import { type Meter, MeterSchema, UnitSource } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import {
  AttemptKind,
  AttemptKindSchema,
  AttemptResultSchema,
  EndpointSchema,
  OutcomeSchema,
  type RequestRecord,
  RequestRecordSchema,
} from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import { ExportFormat } from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import { csvLine, csvText } from "../domain/csv.ts";

/** The most bytes of one piece. */
export const PIECE_BYTES_MAX = 1_048_576;

/** `COMPLETED` for OUTCOME_COMPLETED; the number of a value that this release does not know. */
function enumName(schema: DescEnum, value: number): string {
  return schema.value[value]?.localName ?? String(value);
}

interface Column {
  readonly name: string;
  readonly value: (record: RequestRecord) => string;
}

const COLUMNS: readonly Column[] = [
  { name: "id", value: (record) => csvText(record.id) },
  { name: "arrive_time", value: (record) => arriveTime(record) },
  { name: "ve_id", value: (record) => csvText(record.veId) },
  { name: "access_key_id", value: (record) => csvText(record.accessKeyId) },
  { name: "logical_model_id", value: (record) => csvText(record.logicalModelId) },
  { name: "logical_model", value: (record) => csvText(record.logicalModel) },
  { name: "endpoint", value: (record) => enumName(EndpointSchema, record.endpoint) },
  { name: "stream", value: (record) => String(record.stream) },
  { name: "physical_model_id", value: (record) => csvText(record.physicalModelId) },
  { name: "price_id", value: (record) => csvText(record.priceId) },
  { name: "credits", value: (record) => record.credits },
  { name: "outcome", value: (record) => enumName(OutcomeSchema, record.outcome) },
  { name: "http_status", value: (record) => String(record.httpStatus) },
  { name: "error_code", value: (record) => csvText(record.errorCode) },
  ...MeterSchema.values
    .filter(({ number }) => number !== 0)
    .map(({ localName, number }) => ({
      name: localName.toLowerCase(),
      value: (record: RequestRecord) => quantity(record, number as Meter),
    })),
  { name: "estimated", value: (record) => String(record.units.some((unit) => unit.source === UnitSource.ESTIMATED)) },
  { name: "attempts", value: attempts },
  { name: "first_byte_us", value: (record) => String(record.firstByteUs) },
  { name: "first_content_us", value: (record) => String(record.firstContentUs) },
  { name: "duration_us", value: (record) => String(record.durationUs) },
  { name: "upstream_request_id", value: (record) => csvText(record.upstreamRequestId) },
  { name: "transfer_id", value: (record) => csvText(record.transferId) },
  { name: "node_id", value: (record) => csvText(record.nodeId) },
  { name: "hedge_of", value: (record) => csvText(record.hedgeOf) },
  { name: "image_sizes", value: imageSizes },
];

/** RFC 3339 in UTC with microseconds. */
function arriveTime({ arriveTime: time }: RequestRecord): string {
  if (time === undefined) return "";
  const seconds = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(Math.floor(time.nanos / 1000)).padStart(6, "0")}Z`;
}

/** Empty when nothing was said about the meter; a reported zero is 0. */
function quantity(record: RequestRecord, meter: Meter): string {
  const units = record.units.filter((unit) => unit.meter === meter);
  return units.length === 0 ? "" : String(units.reduce((sum, unit) => sum + unit.quantity, 0n));
}

/** `1024x1024:high:2;1024x1536::1`: size, quality and number of images, where either of the two is known. */
function imageSizes(record: RequestRecord): string {
  const sized = record.units.filter(({ size, quality }) => size !== "" || quality !== "");
  return csvText(sized.map((unit) => `${unit.size}:${unit.quality}:${unit.quantity}`).join(";"));
}

/**
 * `pm_…:STATUS:503:FIRST;pm_…:SERVED:200:FALLBACK:0.05`, in order: the kind where it is known, and what was billed, if
 * anything. NDJSON has the rest.
 */
function attempts(record: RequestRecord): string {
  const text = record.attempts
    .map(({ physicalModelId, result, httpStatus, kind, credits }) => {
      const parts = [physicalModelId, enumName(AttemptResultSchema, result), String(httpStatus)];
      if (kind !== AttemptKind.UNSPECIFIED) parts.push(enumName(AttemptKindSchema, kind));
      if (credits !== "") parts.push(credits);
      return parts.join(":");
    })
    .join(";");
  return csvText(text);
}

/** What an export begins with. */
export function exportHeader(format: ExportFormat): string {
  return format === ExportFormat.CSV ? csvLine(COLUMNS.map((column) => column.name)) : "";
}

/** One record as a line with its end. */
export function exportLine(format: ExportFormat, record: RequestRecord): string {
  if (format === ExportFormat.CSV) return csvLine(COLUMNS.map((column) => column.value(record)));
  return `${toJsonString(RequestRecordSchema, record, { alwaysEmitImplicit: true })}\n`;
}

/** Joins lines to pieces of whole lines, each at most `bytesMax` unless a single line is longer. */
export class Pieces {
  readonly #bytesMax: number;
  #lines: Buffer[] = [];
  #bytes = 0;

  constructor(bytesMax: number = PIECE_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** Adds a line; returns the piece that was full before it, or null. */
  add(line: string): Uint8Array | null {
    const bytes = Buffer.from(line, "utf8");
    const full = this.#bytes + bytes.length > this.#bytesMax ? this.take() : null;
    this.#lines.push(bytes);
    this.#bytes += bytes.length;
    return full;
  }

  /** What is left, or null. */
  take(): Uint8Array | null {
    if (this.#bytes === 0) return null;
    const piece = new Uint8Array(Buffer.concat(this.#lines, this.#bytes));
    this.#lines = [];
    this.#bytes = 0;
    return piece;
  }
}
