/** Wire <-> domain for reports of nodes. */

import { type Credits, formatCredits, maxCredits, parseCredits } from "../../core/credits.ts";
import {
  type LeaseRequest,
  ReportStatus,
  type ReportUsageRequest,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { invalidField } from "../domain/errors.ts";
import type { LeaseAnswer, LeaseAsk, Report } from "../domain/report_plan.ts";
import { decodeRecord } from "../report/decode.ts";
import { toLimitAsks } from "./limit_wire.ts";

export const STATUS = {
  applied: ReportStatus.APPLIED,
  duplicate: ReportStatus.DUPLICATE,
  gap: ReportStatus.GAP,
} as const;

function credits(text: string): Credits {
  return text === "" ? 0n : parseCredits(text);
}

/** One ask for each VE: what a node says twice is taken together. */
function toAsks(leases: readonly LeaseRequest[]): LeaseAsk[] {
  const asks = new Map<string, LeaseAsk>();
  for (const lease of leases) {
    const ask = {
      veId: lease.veId,
      want: credits(lease.want),
      need: credits(lease.need),
      release: credits(lease.release),
      burn: credits(lease.burn),
    };
    const before = asks.get(ask.veId);
    if (before === undefined) asks.set(ask.veId, ask);
    else {
      asks.set(ask.veId, {
        veId: ask.veId,
        want: maxCredits(before.want, ask.want),
        need: maxCredits(before.need, ask.need),
        release: before.release + ask.release,
        burn: maxCredits(before.burn ?? 0n, ask.burn),
      });
    }
  }
  return [...asks.values()];
}

export function toReport(request: ReportUsageRequest): Report {
  if (request.records.length > 0 && request.firstRecordNo === 0n) {
    throw invalidField("first_record_no", "records are numbered from 1");
  }
  return {
    nodeId: request.nodeId,
    bootId: request.bootId,
    seq: request.seq,
    firstRecordNo: request.firstRecordNo,
    records: request.records.map(decodeRecord),
    asks: toAsks(request.leases),
    limitAsks: toLimitAsks(request.limits),
    final: request.final,
  };
}

export function toLeaseState(answer: LeaseAnswer) {
  return {
    veId: answer.veId,
    granted: formatCredits(answer.granted),
    ttlMs: BigInt(answer.ttlMs),
    state: answer.state,
    creditRemaining: formatCredits(answer.remaining),
  };
}
