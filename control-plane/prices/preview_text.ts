/** PURE: what an import changes, or would change, as a table for a person. */

import { formatCredits, parseCredits } from "../../core/credits.ts";
import { type MeterPrice, MeterSchema, UnitKind, Meter } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import {
  type ImportPricesResponse,
  type PriceChange,
  PriceChangeKind,
} from "../../proto/gen/tokenbill/v1/price_import_pb.ts";

const KINDS: Readonly<Record<PriceChangeKind, string>> = {
  [PriceChangeKind.UNSPECIFIED]: "?",
  [PriceChangeKind.NEW]: "new",
  [PriceChangeKind.CHANGED]: "changed",
  [PriceChangeKind.SAME]: "same",
  [PriceChangeKind.NOT_NAMED]: "not named",
};

const NONE = "-";
const MILLION = 1_000_000n;

function isCounted(meter: Meter): boolean {
  const name = MeterSchema.value[meter]?.localName ?? "";
  return name.endsWith("TOKENS") || meter === Meter.CHARACTERS;
}

/** Credits for as many Units as people think in, whatever number the price is given for. */
function amount(creditPerUnit: string, perUnits: bigint, counted: boolean): string {
  const per = perUnits === 0n ? 1n : perUnits;
  const pico = parseCredits(creditPerUnit) * (counted ? MILLION : 1n);
  // A stored price is exact for one Unit; should it not be, it is shown as it was given.
  return pico % per === 0n
    ? `${formatCredits(pico / per)}${counted ? " per million" : ""}`
    : `${creditPerUnit} per ${per}`;
}

function meterLabel({ meter, size, quality, aboveInputTokens }: MeterPrice): string {
  const words = [(MeterSchema.value[meter]?.localName ?? String(meter)).toLowerCase().replaceAll("_", " ")];
  if (size !== "") words.push(size);
  if (quality !== "") words.push(quality);
  if (aboveInputTokens > 0n) words.push(`above ${aboveInputTokens} of input`);
  return words.join(", ");
}

const UNIT_LABELS: Readonly<Record<UnitKind, string>> = {
  [UnitKind.UNSPECIFIED]: "?",
  [UnitKind.TOKENS]: "all tokens",
  [UnitKind.IMAGES]: "images",
  [UnitKind.SECONDS]: "seconds",
  [UnitKind.CHARACTERS]: "characters",
  [UnitKind.REQUESTS]: "requests and tool calls",
};

/** What a price says, by what it says it of. */
function linesOf(price: Price | undefined): Map<string, string> {
  const kind = price?.kind;
  if (kind?.case === "simple") {
    const { unit, creditPerUnit, perUnits } = kind.value;
    const counted = unit === UnitKind.TOKENS || unit === UnitKind.CHARACTERS;
    return new Map([[UNIT_LABELS[unit] ?? String(unit), amount(creditPerUnit, perUnits, counted)]]);
  }
  if (kind?.case !== "detailed") return new Map();
  return new Map(
    kind.value.meters.map((each) => [
      meterLabel(each),
      amount(each.creditPerUnit, each.perUnits, isCounted(each.meter)),
    ]),
  );
}

type Row = readonly [model: string, kind: string, what: string, before: string, arrow: string, after: string];

function rowsOf(change: PriceChange): Row[] {
  const { name, upstreamName, kind } = change;
  const model = name === upstreamName ? name : `${name} (${upstreamName})`;
  const [before, after] = [linesOf(change.before), linesOf(change.after)];
  const changes: [string, string, string][] = [...new Set([...before.keys(), ...after.keys()])]
    .map((what): [string, string, string] => [what, before.get(what) ?? NONE, after.get(what) ?? NONE])
    .filter(([, was, is]) => was !== is);
  const { maxOutputTokensBefore: boundBefore, maxOutputTokensAfter: boundAfter } = change;
  if (boundBefore !== boundAfter)
    changes.push(["max output tokens", boundBefore === 0n ? NONE : String(boundBefore), String(boundAfter)]);
  const label = KINDS[kind] ?? "?";
  const isShown = kind === PriceChangeKind.NEW || kind === PriceChangeKind.CHANGED;
  if (!isShown || changes.length === 0) return [[model, label, "", "", "", ""]];
  return changes.map(([what, was, is], index) => [
    index === 0 ? model : "",
    index === 0 ? label : "",
    what,
    was,
    "->",
    is,
  ]);
}

function table(rows: readonly Row[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column]!))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

const HEADER: Row = ["Physical Model", "change", "what", "before", "", "after"];

/** How many Physical Models get another price or bound. */
export function changeCount({ changes }: ImportPricesResponse): number {
  return changes.filter(({ kind }) => kind === PriceChangeKind.NEW || kind === PriceChangeKind.CHANGED).length;
}

const COUNTED = [PriceChangeKind.NEW, PriceChangeKind.CHANGED, PriceChangeKind.SAME, PriceChangeKind.NOT_NAMED];

/** `1 new, 2 changed, 3 same, 4 not named`. */
export function countsText({ changes }: ImportPricesResponse): string {
  return COUNTED.map((kind) => `${changes.filter((change) => change.kind === kind).length} ${KINDS[kind]}`).join(", ");
}

/** `entryName(i)` is what entry i is called in the file. Amounts are Credits. */
export function previewText(response: ImportPricesResponse, entryName: (index: number) => string): string {
  const { changes, unusedEntries } = response;
  const body = changes.length === 0 ? "There are no Physical Models.\n" : table([HEADER, ...changes.flatMap(rowsOf)]);
  const unused = unusedEntries.map((index) => `Fits no Physical Model: ${entryName(index)}\n`).join("");
  return `${body}${unused}${countsText(response)}\n`;
}
