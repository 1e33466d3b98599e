/**
 * PURE. The accounts that a node has leases of, by name: a wallet is named by the id of its VE, a limit by its Physical
 * Model and what it counts.
 *
 * All amounts are BigInt with 12 decimals: picocredits for wallets and Credit Limits, picounits (1e-12 Unit) for Unit
 * Limits, so that one arithmetic serves all, and the decimal strings of the wire look alike.
 */

/** One Unit as an amount; `unitsOfKind` of core/meters.ts counts in the same. */
export const UNIT: bigint = 10n ** 12n;

/** Numbers equal `tokenbill.v1.LimitKind`. */
export const LimitKind = { UNITS: 1, CREDITS: 2 } as const;
export type LimitKind = (typeof LimitKind)[keyof typeof LimitKind];

const UNITS_SUFFIX = "/units";
const CREDITS_SUFFIX = "/credits";

export function limitAccount(pmId: string, kind: LimitKind): string {
  return pmId + (kind === LimitKind.UNITS ? UNITS_SUFFIX : CREDITS_SUFFIX);
}

/** Ids hold no slash. */
export function isLimit(account: string): boolean {
  return account.includes("/");
}

/** Which limit an account is; null: it is a wallet. */
export function limitOf(account: string): { readonly pmId: string; readonly kind: LimitKind } | null {
  const slash = account.indexOf("/");
  if (slash < 0) return null;
  return { pmId: account.slice(0, slash), kind: account.endsWith(UNITS_SUFFIX) ? LimitKind.UNITS : LimitKind.CREDITS };
}
