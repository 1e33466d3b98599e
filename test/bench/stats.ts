/** Medians, percentiles, and how they are printed. */

/** Between the two middle values if their number is even. NaN for no values. */
export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Nearest rank; `p` from 0 to 1. NaN for no values. */
export function percentile(values: ArrayLike<number>, p: number): number {
  const sorted = Float64Array.from(values).sort();
  if (sorted.length === 0) return NaN;
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(p * sorted.length) - 1))]!;
}

/** Three significant digits, without an exponent. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return "-";
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US");
  return Number(value.toPrecision(3)).toString();
}

/** `median (least-most)` of the rounds. */
export function spread(values: readonly number[]): string {
  if (values.length < 2) return digits(median(values));
  return `${digits(median(values))} (${digits(Math.min(...values))}-${digits(Math.max(...values))})`;
}

export function printHeading(name: string, what: string): void {
  console.log(`\n## ${name}\n${what}\n`);
}

/** A Markdown table that is also readable as it is. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = header.map((cell, column) => Math.max(cell.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, column) => (column === 0 ? (cells[column] ?? "").padEnd(width) : (cells[column] ?? "").padStart(width))).join(" | ")} |`;
  console.log(line(header));
  console.log(
    `|${widths.map((width, column) => (column === 0 ? "-".repeat(width + 2) : `${"-".repeat(width + 1)}:`)).join("|")}|`,
  );
  for (const row of rows) console.log(line(row));
}

export interface Aim {
  readonly what: string;
  readonly value: number;
  readonly bound: number;
  /** Whether the value must be at least or below the bound. */
  readonly kind: "at least" | "below";
  readonly unit: string;
}

export function printAim({ what, value, bound, kind, unit }: Aim): void {
  const met = kind === "below" ? value < bound : value >= bound;
  console.log(`\nAim: ${what} ${kind} ${digits(bound)}${unit}: ${digits(value)}${unit}, ${met ? "met" : "SHORT"}`);
}
