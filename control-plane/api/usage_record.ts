/** Stored usage -> RequestRecord. */

import { create, fromBinary } from "@bufbuild/protobuf";
import { formatCredits } from "../../core/credits.ts";
import { UsageRecordSchema } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { type RequestRecord, RequestRecordSchema } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import type { EventRow } from "../store/usage_query.ts";

const US_PER_S = 1_000_000n;

export function timestampOfUs(us: bigint): { seconds: bigint; nanos: number } {
  return { seconds: us / US_PER_S, nanos: Number(us % US_PER_S) * 1000 };
}

/** What the node journaled, with our figure of the cost and its place in the ledger. */
export function toRequestRecord(event: EventRow): RequestRecord {
  const record = fromBinary(UsageRecordSchema, event.body);
  return create(RequestRecordSchema, {
    id: event.id,
    veId: record.veId,
    accessKeyId: record.accessKeyId,
    logicalModelId: record.logicalModelId,
    logicalModel: record.logicalModel,
    endpoint: record.endpoint,
    stream: record.stream,
    physicalModelId: record.physicalModelId,
    priceId: record.priceId,
    units: record.units,
    credits: formatCredits(event.credits),
    outcome: record.outcome,
    httpStatus: record.httpStatus,
    attempts: record.attempts,
    arriveTime: timestampOfUs(event.arriveUs),
    firstByteUs: record.firstByteUs,
    firstContentUs: record.firstContentUs,
    durationUs: record.durationUs,
    upstreamRequestId: record.upstreamRequestId,
    transferId: event.transferId,
    nodeId: event.nodeId,
    errorCode: record.errorCode,
    hedgeOf: record.hedgeOf,
  });
}
