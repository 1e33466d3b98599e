/** AuditService: audits, alarms and nodes, for the operator. */

import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  type Alarm,
  AlarmSchema,
  type AuditRun,
  AuditRunSchema,
  AuditState,
  type Node,
  NodeSchema,
} from "../../proto/gen/tokenbill/v1/audit_pb.ts";
import { AlarmFilter, type AuditService } from "../../proto/gen/tokenbill/v1/audit_service_pb.ts";
import { type Auditor, endedWithin } from "../audit/auditor.ts";
import { formatCredits } from "../../core/credits.ts";
import { notFound } from "../domain/errors.ts";
import { writeOffNode } from "../report/write_off.ts";
import { acknowledgeAlarm, type AlarmRow, listAlarms } from "../store/audit_alarm.ts";
import { listRuns, readLatest, readRun, type RunRow, type RunState } from "../store/audit_run.ts";
import { listNodes, type NodeRow } from "../store/node.ts";
import { type Deps, requireOperator } from "./context.ts";
import { canonicalCredits, optionalTime } from "./convert.ts";
import { OPERATOR } from "./idempotency.ts";
import { decodePageToken, decodeRowPosition, encodePageToken, pageSize, toPage } from "./paging.ts";

/** An audit that is through by then is in the answer of the call that began it. */
const RUN_WAIT_MS = 5_000;

const RUNS = "audit_runs";
const ALARMS = "alarms";
const NODES = "nodes";

const STATES: Readonly<Record<RunState, AuditState>> = {
  running: AuditState.RUNNING,
  clean: AuditState.CLEAN,
  broken: AuditState.BROKEN,
  stopped: AuditState.STOPPED,
  failed: AuditState.FAILED,
};

function toAuditRun(row: RunRow): AuditRun {
  return create(AuditRunSchema, {
    id: row.id,
    deep: row.deep,
    state: STATES[row.state],
    startTime: timestampFromDate(row.started_at),
    endTime: optionalTime(row.ended_at),
    durationMs: row.duration_ms,
    walletsTotal: row.wallets_total,
    walletsChecked: row.wallets,
    eventsChecked: row.events,
    breakCount: row.break_count,
    breaks: [...row.breaks],
    reason: row.reason,
  });
}

function toAlarm(row: AlarmRow): Alarm {
  return create(AlarmSchema, {
    id: String(row.n),
    kind: row.kind,
    subject: row.subject,
    detail: row.detail as JsonObject,
    raiseTime: timestampFromDate(row.raised_at),
    lastSeeTime: optionalTime(row.seen_at),
    acknowledgeTime: optionalTime(row.acknowledged_at),
    note: row.note,
    resolveTime: optionalTime(row.resolved_at),
  });
}

function toNode(row: NodeRow): Node {
  return create(NodeSchema, {
    id: row.nodeId,
    lastReportTime: timestampFromDate(row.reportedAt),
    leaseCount: row.leases,
    leasedCredits: canonicalCredits(row.credits),
    boots: row.boots.map((boot) => ({
      id: boot.bootId,
      closed: boot.closed,
      lastReportTime: timestampFromDate(boot.reportedAt),
      recordCount: boot.lastRecordNo,
      leaseCount: boot.leases,
      leasedCredits: canonicalCredits(boot.credits),
    })),
  });
}

function found(row: RunRow | null): AuditRun {
  if (row === null) throw notFound("audit");
  return toAuditRun(row);
}

type Calls = ServiceImpl<typeof AuditService>;

function auditCalls(
  { db }: Deps,
  auditor: Auditor,
): Pick<Calls, "runAudit" | "stopAudit" | "getAuditRun" | "listAuditRuns"> {
  return {
    async runAudit({ deep }, ctx) {
      requireOperator(ctx);
      const { run, ended } = await auditor.start(deep);
      await endedWithin(ended, RUN_WAIT_MS);
      return { auditRun: found(await readRun(db, run.id)) };
    },

    async stopAudit({ id }, ctx) {
      requireOperator(ctx);
      return { auditRun: found(await auditor.stop(id)) };
    },

    async getAuditRun({ id }, ctx) {
      requireOperator(ctx);
      return { auditRun: found(id === "" ? await readLatest(db, null) : await readRun(db, id)) };
    },

    async listAuditRuns(request, ctx) {
      requireOperator(ctx);
      const size = pageSize(request.pageSize);
      const before = decodeRowPosition(RUNS, OPERATOR, request.pageToken);
      const page = toPage(await listRuns(db, before, size + 1), size, RUNS, OPERATOR);
      return { auditRuns: page.items.map(toAuditRun), nextPageToken: page.nextPageToken };
    },
  };
}

export function auditService(deps: Deps, auditor: Auditor): Calls {
  const { db } = deps;
  return {
    ...auditCalls(deps, auditor),

    async listAlarms(request, ctx) {
      requireOperator(ctx);
      const open = request.filter !== AlarmFilter.ALL;
      const size = pageSize(request.pageSize);
      const scope = open ? "open" : "all";
      const before = decodeRowPosition(ALARMS, scope, request.pageToken);
      const page = toPage(await listAlarms(db, open, before, size + 1), size, ALARMS, scope);
      return { alarms: page.items.map(toAlarm), nextPageToken: page.nextPageToken };
    },

    async acknowledgeAlarm({ id, note }, ctx) {
      requireOperator(ctx);
      const row = await acknowledgeAlarm(db, BigInt(id), note, deps.now());
      if (row === null) throw notFound("alarm");
      return { alarm: toAlarm(row) };
    },

    async listNodes(request, ctx) {
      requireOperator(ctx);
      const size = pageSize(request.pageSize);
      const after = decodePageToken(NODES, OPERATOR, request.pageToken) ?? "";
      const rows = await listNodes(db, after, size + 1);
      const nodes = rows.slice(0, size).map(toNode);
      return {
        nodes,
        nextPageToken: rows.length > size ? encodePageToken(NODES, OPERATOR, nodes.at(-1)!.id) : "",
      };
    },

    async writeOffNode({ target, reason }, ctx) {
      requireOperator(ctx);
      const { boots, released } = await writeOffNode(deps, target.value!, reason);
      const credits = [...released.values()].reduce((sum, each) => sum + each, 0n);
      return { bootIds: [...boots], veCount: released.size, releasedCredits: formatCredits(credits) };
    },
  };
}
