/** Metrics of the audit, on prom-client's default registry. Every replica shows the same: what the database knows. */

import { Gauge } from "prom-client";
import type { Database } from "../db/database.ts";
import { ALL_INVARIANTS } from "../domain/audit.ts";
import { countBroken, countOpen } from "../store/audit_alarm.ts";
import { readLatest } from "../store/audit_run.ts";

const DEPTH = ["depth"];

export const auditLastRun = new Gauge({
  name: "tokenbill_control_audit_last_run_timestamp_seconds",
  help: "When the latest audit with a result began, by depth (quick, deep). Absent until there was one.",
  labelNames: DEPTH,
});

export const auditDuration = new Gauge({
  name: "tokenbill_control_audit_duration_seconds",
  help: "How long the latest audit with a result took.",
  labelNames: DEPTH,
});

export const auditWallets = new Gauge({
  name: "tokenbill_control_audit_wallets_checked",
  help: "Wallets that the latest audit with a result checked.",
  labelNames: DEPTH,
});

export const auditBreaks = new Gauge({
  name: "tokenbill_control_audit_breaks",
  help: "Broken invariants of the money: 0 again once an audit found them mended.",
  labelNames: ["invariant"],
});

export const alarmsOpen = new Gauge({
  name: "tokenbill_control_alarms_open",
  help: "Alarms that nobody has acknowledged and nothing has resolved.",
  labelNames: ["kind"],
});

const KINDS = ["audit", "price_mismatch", "quarantine", "lease_overrun", "node_written_off"];

/** Sets the metrics to what the database knows. */
export async function refreshAuditMetrics(db: Database): Promise<void> {
  for (const deep of [false, true]) {
    const run = await readLatest(db, deep);
    if (run === null) continue;
    const labels = { depth: deep ? "deep" : "quick" };
    auditLastRun.set(labels, run.started_at.getTime() / 1000);
    auditDuration.set(labels, Number(run.duration_ms) / 1000);
    auditWallets.set(labels, Number(run.wallets));
  }
  const broken = new Map((await countBroken(db)).map(({ invariant, count }) => [invariant, Number(count)]));
  for (const invariant of ALL_INVARIANTS) auditBreaks.set({ invariant }, broken.get(invariant) ?? 0);
  const open = new Map((await countOpen(db)).map(({ kind, count }) => [kind, Number(count)]));
  for (const kind of new Set([...KINDS, ...open.keys()])) alarmsOpen.set({ kind }, open.get(kind) ?? 0);
}
