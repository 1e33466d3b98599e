/** Reports of nodes: wire <-> report/. */

import type { ServiceImpl } from "@connectrpc/connect";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import type {
  ReportUsageRequest,
  UsageReportService,
} from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import { notFound } from "../domain/errors.ts";
import { sortRecords } from "../domain/report.ts";
import { remaining, walletState } from "../domain/wallet.ts";
import { type Applied, type Report } from "../report/ingest.ts";
import { ReportGroups } from "../report/groups.ts";
import { KnownCache } from "../report/known.ts";
import { priceMismatchTotal, recordsTotal, reportSeconds, reportsTotal } from "../report/metrics.ts";
import type { CreditHints } from "../credit_recall.ts";
import { awaitLimitRecalls, awaitRecalls } from "../report/recall.ts";
import { readVeTerms } from "../store/usage.ts";
import { readWallet } from "../store/wallet.ts";
import { type Deps, requireNode } from "./context.ts";
import { toLimitState, withAnswers } from "./limit_wire.ts";
import { STATUS, toLeaseState, toReport } from "./report_wire.ts";

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
  groups: ReportGroups,
  hints: CreditHints,
  request: ReportUsageRequest,
): Promise<Applied> {
  const given = toReport(request);
  const stop = reportSeconds.startTimer();
  const sorted = sortRecords(given.firstRecordNo, given.records, await known.load(deps.db, deps.log, given.records));
  const answer = await groups.apply({ report: given, sorted });
  stop();
  reportsTotal.inc({ status: answer.status });
  if (answer.status === "applied") logFaults(deps, given, sorted);
  if (answer.recalls.length === 0 && answer.limitRecalls.length === 0) return answer;
  const [leases, limits] = await Promise.all([
    awaitRecalls(deps, hints, given, answer.recalls),
    awaitLimitRecalls(deps, hints, given, answer.limitRecalls),
  ]);
  const again = new Map(leases.map((lease) => [lease.veId, lease]));
  return {
    ...answer,
    leases: answer.leases.map((lease) => again.get(lease.veId) ?? lease),
    limits: withAnswers(answer.limits, limits),
  };
}

/** `feed` hears of Credits that come back while a request waits for them. */
export function usageReportService(deps: Deps, feed: CreditHints): ServiceImpl<typeof UsageReportService> {
  const known = new KnownCache();
  const groups = new ReportGroups(deps);
  return {
    async reportUsage(request, ctx) {
      requireNode(ctx);
      const answer = await report(deps, known, groups, feed, request);
      return {
        status: STATUS[answer.status],
        lastSeq: answer.lastSeq,
        lastRecordNo: answer.lastRecordNo,
        leases: answer.leases.map(toLeaseState),
        limits: answer.limits.map(toLimitState),
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
