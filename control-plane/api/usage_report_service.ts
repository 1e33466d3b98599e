/** Reports of nodes: wire <-> report/. */

import type { ServiceImpl } from "@connectrpc/connect";
import { type Credits, formatCredits, maxCredits, parseCredits } from "../../core/credits.ts";
import {
  type LeaseRequest,
  ReportStatus,
  type ReportUsageRequest,
  type UsageReportService,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { invalidField, notFound } from "../domain/errors.ts";
import { sortRecords } from "../domain/report.ts";
import { remaining, walletState } from "../domain/wallet.ts";
import { decodeRecord } from "../report/decode.ts";
import { applyReport, type LeaseAnswer, type LeaseAsk, type Report, type ReportAnswer } from "../report/ingest.ts";
import { KnownCache } from "../report/known.ts";
import { priceMismatchTotal, recordsTotal, reportSeconds, reportsTotal } from "../report/metrics.ts";
import { awaitRecalls, type WalletHints } from "../report/recall.ts";
import { readVeTerms } from "../store/usage.ts";
import { readWallet } from "../store/wallet.ts";
import { type Deps, requireNode } from "./context.ts";

const STATUS = {
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
    };
    const before = asks.get(ask.veId);
    if (before === undefined) asks.set(ask.veId, ask);
    else {
      asks.set(ask.veId, {
        veId: ask.veId,
        want: maxCredits(before.want, ask.want),
        need: maxCredits(before.need, ask.need),
        release: before.release + ask.release,
      });
    }
  }
  return [...asks.values()];
}

function toReport(request: ReportUsageRequest): Report {
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
    final: request.final,
  };
}

function toLeaseState(answer: LeaseAnswer) {
  return {
    veId: answer.veId,
    granted: formatCredits(answer.granted),
    ttlMs: BigInt(answer.ttlMs),
    state: answer.state,
    creditRemaining: formatCredits(answer.remaining),
  };
}

/** What could not be billed as the node reported it: loud, since it must never happen. */
function logFaults(deps: Deps, report: Report, sorted: ReturnType<typeof sortRecords>): void {
  const facts = { nodeId: report.nodeId, bootId: report.bootId, seq: String(report.seq) };
  const { mismatches, quarantined } = sorted;
  if (mismatches.length > 0) {
    priceMismatchTotal.inc(mismatches.length);
    deps.log.error(
      { ...facts, records: mismatches.length, first: mismatches[0] },
      "the node computed other costs; ours count",
    );
  }
  if (quarantined.length > 0) {
    const first = { recordNo: String(quarantined[0]!.recordNo), reason: quarantined[0]!.reason };
    deps.log.error(
      { ...facts, records: quarantined.length, first },
      "usage records could not be billed and were set aside",
    );
  }
  recordsTotal.inc({ result: "billed" }, sorted.priced.length);
  recordsTotal.inc({ result: "set_aside" }, quarantined.length);
}

async function report(
  deps: Deps,
  known: KnownCache,
  hints: WalletHints,
  request: ReportUsageRequest,
): Promise<ReportAnswer> {
  const given = toReport(request);
  const stop = reportSeconds.startTimer();
  const sorted = sortRecords(given.firstRecordNo, given.records, await known.load(deps.db, deps.log, given.records));
  const answer = await applyReport(deps, given, sorted);
  stop();
  reportsTotal.inc({ status: answer.status });
  if (answer.status === "applied") logFaults(deps, given, sorted);
  if (answer.recalls.length === 0) return answer;
  const again = new Map((await awaitRecalls(deps, hints, given, answer.recalls)).map((lease) => [lease.veId, lease]));
  return { ...answer, leases: answer.leases.map((lease) => again.get(lease.veId) ?? lease) };
}

/** `feed` hears of Credits that come back while a request waits for them. */
export function usageReportService(deps: Deps, feed: WalletHints): ServiceImpl<typeof UsageReportService> {
  const known = new KnownCache();
  return {
    async reportUsage(request, ctx) {
      requireNode(ctx);
      const answer = await report(deps, known, feed, request);
      return {
        status: STATUS[answer.status],
        lastSeq: answer.lastSeq,
        lastRecordNo: answer.lastRecordNo,
        leases: answer.leases.map(toLeaseState),
      };
    },

    async getWallet({ veId }, ctx) {
      requireNode(ctx);
      const wallet = await readWallet(deps.db, veId);
      if (wallet === null) throw notFound("VE");
      const terms = (await readVeTerms(deps.db, [veId])).get(veId);
      return {
        wallet: {
          creditBudget: formatCredits(wallet.purchased),
          creditRemaining: formatCredits(remaining(wallet)),
          settled: formatCredits(wallet.settled),
          escrowed: formatCredits(wallet.escrowed),
          debt: formatCredits(wallet.debt),
          state: walletState(wallet, parseCredits(terms?.lowBalance ?? "0")),
        },
      };
    },
  };
}
