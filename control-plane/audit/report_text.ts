/** PURE: the result of an audit, for people. */

import { type AuditBreak, ALL_INVARIANTS, QUICK_INVARIANTS } from "../domain/audit.ts";

export interface AuditReport {
  readonly id: string;
  readonly deep: boolean;
  readonly state: "running" | "clean" | "broken" | "stopped" | "failed";
  readonly durationMs: number;
  readonly walletsTotal: number;
  readonly wallets: number;
  readonly events: number;
  readonly breakCount: number;
  /** The first of them. */
  readonly breaks: readonly { readonly [K in keyof AuditBreak]: string }[];
  readonly reason: string;
}

export const EXIT_CLEAN = 0;
export const EXIT_BROKEN = 1;
export const EXIT_NOT_RUN = 2;

function count(number: number, noun: string): string {
  return `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;
}

/** One line while it runs. */
export function progressLine({ wallets, walletsTotal, events, deep }: AuditReport): string {
  const of = `${wallets.toLocaleString("en-US")} of ${count(walletsTotal, "wallet")}`;
  return deep ? `${of}, ${count(events, "usage event")}` : of;
}

function table({ deep, breaks }: AuditReport): string[] {
  const invariants = deep ? ALL_INVARIANTS : QUICK_INVARIANTS;
  const width = Math.max(...invariants.map((each) => each.length));
  return invariants.map((invariant) => {
    const broken = breaks.filter((each) => each.invariant === invariant).length;
    return `  ${invariant.padEnd(width)}  ${broken === 0 ? "ok" : `BROKEN ${broken}`}`;
  });
}

/** The table, every break, and a last line that says it all. */
export function reportText(report: AuditReport): string {
  const { id, deep, state, durationMs, breaks, breakCount, reason } = report;
  const head = `${deep ? "Deep audit" : "Audit"} ${id}: ${progressLine(report)}, ${(durationMs / 1000).toFixed(1)} s`;
  const lines = [head];
  // What was not reached cannot be called right.
  if (state === "clean" || state === "broken") lines.push("", ...table(report), "");
  for (const { invariant, subject, expected, found } of breaks)
    lines.push(`BROKEN ${invariant}: ${subject}: expected ${expected}, found ${found}`);
  if (breakCount > breaks.length) lines.push(`… and ${breakCount - breaks.length} more`);
  const last: Record<AuditReport["state"], string> = {
    running: "It is still running.",
    clean: "Everything agrees.",
    broken: `${count(breakCount, "invariant")} broken.`,
    stopped: `It was stopped before its end: ${reason || "it was asked to"}.`,
    failed: `It could not go on: ${reason}.`,
  };
  return `${[...lines, last[state]].join("\n")}\n`;
}

export function exitCodeOf({ state, breakCount }: AuditReport): number {
  if (breakCount > 0) return EXIT_BROKEN;
  return state === "clean" ? EXIT_CLEAN : EXIT_NOT_RUN;
}
