/** PURE: which Physical Models the entries of a price catalogue fit, and what they change. */

import { type CompiledPrice, samePrice } from "../../core/pricing.ts";
import { invalidField } from "./errors.ts";

/** Numbers equal `tokenbill.v1.PriceChangeKind`. */
export const PriceChangeKind = { NEW: 1, CHANGED: 2, SAME: 3, NOT_NAMED: 4 } as const;
export type PriceChangeKind = (typeof PriceChangeKind)[keyof typeof PriceChangeKind];

export interface ImportEntry {
  /** Empty: whichever Provider. */
  readonly providerId: string;
  /** A `*` at its end stands for anything. */
  readonly upstreamName: string;
  readonly price: CompiledPrice;
  /** 0: stays as it is. */
  readonly maxOutputTokens: bigint;
}

export interface ImportModel {
  readonly providerId: string;
  readonly upstreamName: string;
  /** Null: it has none. */
  readonly price: CompiledPrice | null;
  readonly maxOutputTokens: bigint;
}

/** What becomes of one Physical Model. */
export interface ImportChange {
  readonly kind: PriceChangeKind;
  /** Index of the entry that fits it; -1: none does. */
  readonly entry: number;
  /** False: the bound of output tokens is all that changes, if anything does. */
  readonly newPrice: boolean;
  readonly maxOutputTokens: bigint;
}

export interface ImportPlan {
  /** One for each model, in their order. */
  readonly changes: readonly ImportChange[];
  /** Indexes of entries that fit no model. An entry that only more precise ones keep from a model fits it. */
  readonly unused: readonly number[];
}

interface Pattern {
  readonly index: number;
  readonly providerId: string;
  /** Without the `*`. */
  readonly name: string;
  readonly isPrefix: boolean;
}

/** No two entries may be for the same: which of them counts would be chance. @throws DomainError invalid_field */
export function checkDistinct(entries: readonly Pick<ImportEntry, "providerId" | "upstreamName">[]): void {
  const seen = new Map<string, number>();
  for (const [index, { providerId, upstreamName }] of entries.entries()) {
    const key = `${providerId}\n${upstreamName}`;
    const before = seen.get(key);
    if (before !== undefined)
      throw invalidField(
        `entries[${index}].upstream_name`,
        `is for the same as entries[${before}]: leave one of the two out`,
        "unique",
      );
    seen.set(key, index);
  }
}

function fits(pattern: Pattern, { providerId, upstreamName }: ImportModel): boolean {
  if (pattern.providerId !== "" && pattern.providerId !== providerId) return false;
  return pattern.isPrefix ? upstreamName.startsWith(pattern.name) : upstreamName === pattern.name;
}

/** The most precise first: those of a Provider, then whole names, then longer ones. */
function byPrecision(entries: readonly ImportEntry[]): Pattern[] {
  const patterns = entries.map(({ providerId, upstreamName }, index): Pattern => {
    const isPrefix = upstreamName.endsWith("*");
    return { index, providerId, name: isPrefix ? upstreamName.slice(0, -1) : upstreamName, isPrefix };
  });
  return patterns.toSorted(
    (a, b) =>
      Number(a.providerId === "") - Number(b.providerId === "") ||
      Number(a.isPrefix) - Number(b.isPrefix) ||
      b.name.length - a.name.length,
  );
}

function changeOf(model: ImportModel, entry: ImportEntry | undefined, index: number): ImportChange {
  if (entry === undefined)
    return {
      kind: PriceChangeKind.NOT_NAMED,
      entry: -1,
      newPrice: false,
      maxOutputTokens: model.maxOutputTokens,
    };
  const maxOutputTokens = entry.maxOutputTokens === 0n ? model.maxOutputTokens : entry.maxOutputTokens;
  if (model.price === null) return { kind: PriceChangeKind.NEW, entry: index, newPrice: true, maxOutputTokens };
  const newPrice = !samePrice(model.price, entry.price);
  const changed = newPrice || maxOutputTokens !== model.maxOutputTokens;
  return { kind: changed ? PriceChangeKind.CHANGED : PriceChangeKind.SAME, entry: index, newPrice, maxOutputTokens };
}

export function planImport(entries: readonly ImportEntry[], models: readonly ImportModel[]): ImportPlan {
  const patterns = byPrecision(entries);
  const used = new Set<number>();
  const changes = models.map((model) => {
    let first = -1;
    for (const pattern of patterns) {
      if (!fits(pattern, model)) continue;
      used.add(pattern.index);
      if (first === -1) first = pattern.index;
    }
    return changeOf(model, entries[first], first);
  });
  return { changes, unused: [...entries.keys()].filter((index) => !used.has(index)) };
}
