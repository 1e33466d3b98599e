/** Figures of many seeds. */

import type { Verdict } from "./run.ts";
import type { Violation } from "./violations.ts";

export interface Failure {
  readonly seed: number;
  readonly plot: string;
  readonly violations: readonly Violation[];
  readonly trace: readonly string[];
}

export interface Totals {
  seeds: number;
  steps: number;
  checks: number;
  virtualMs: number;
  readonly counts: Record<string, number>;
  readonly plots: Record<string, number>;
  readonly failures: Failure[];
}

/** Failures that are kept with their trace. */
const FAILURES_MAX = 20;

export function newTotals(): Totals {
  return { seeds: 0, steps: 0, checks: 0, virtualMs: 0, counts: {}, plots: {}, failures: [] };
}

function addCounts(to: Record<string, number>, from: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(from)) to[name] = (to[name] ?? 0) + count;
}

export function addTo(totals: Totals, verdict: Verdict): void {
  const { seed, plot, violations, trace, steps, checks, virtualMs, counts } = verdict;
  totals.seeds++;
  totals.steps += steps;
  totals.checks += checks;
  totals.virtualMs += virtualMs;
  addCounts(totals.counts, counts);
  addCounts(totals.plots, { [plot]: 1 });
  if (violations.length > 0 && totals.failures.length < FAILURES_MAX)
    totals.failures.push({ seed, plot, violations, trace });
}

export function mergeInto(totals: Totals, more: Totals): void {
  totals.seeds += more.seeds;
  totals.steps += more.steps;
  totals.checks += more.checks;
  totals.virtualMs += more.virtualMs;
  addCounts(totals.counts, more.counts);
  addCounts(totals.plots, more.plots);
  totals.failures.push(...more.failures.slice(0, FAILURES_MAX - totals.failures.length));
}

export function figuresOf({ seeds, steps, checks, virtualMs, counts, plots }: Totals): string {
  const sum = (...names: string[]): number => names.reduce((all, name) => all + (counts[name] ?? 0), 0);
  const faults = Object.entries(counts).filter(([name]) => name.startsWith("fault_"));
  const lines: readonly [string, string | number][] = [
    [
      "seeds",
      `${seeds} (${Object.entries(plots)
        .map(([plot, count]) => `${plot} ${count}`)
        .join(", ")})`,
    ],
    ["virtual hours", (virtualMs / 3_600_000).toFixed(1)],
    ["steps", steps],
    ["checks of invariants", checks],
    ["requests", sum("requests")],
    ["hedged calls billed", sum("overtaken")],
    ["reports", sum("commits")],
    ["messages lost, twice", `${sum("messages_lost")}, ${sum("messages_twice")}`],
    ["node deaths", sum("fault_kill", "fault_kill_at_write", "fault_rot", "fault_power", "fault_disk_gone")],
    ["torn writes", sum("torn_writes")],
    ["leases taken back", sum("leases_taken")],
    ["faults", faults.map(([name, count]) => `${name.slice(6)} ${count}`).join(", ")],
  ];
  return lines.map(([name, figure]) => `  ${name.padEnd(22)} ${figure}`).join("\n");
}
