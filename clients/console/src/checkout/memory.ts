/**
 * What the browser remembers of checkouts. In the tab: which session a link has opened, so that reload and back open no
 * other. Beyond it: a session's secret, because a payment processor may send the payer back into another tab.
 */

import type { Store } from "../shared/stores.ts";
import type { Origin } from "./address.ts";
import type { Choice } from "./choice.ts";

const OPENED = "tokenbill.checkout.opened:";
const KEPT = "tokenbill.checkout.session:";
/** Longer than a session can be paid, because money may arrive late. */
export const KEEP_MS = 7 * 86_400_000;
/** The oldest go first. */
export const SESSIONS_KEPT_MAX = 20;

export interface Kept {
  readonly secret: string;
  readonly keptAtMs: number;
  /** Null: the merchant made the session, so no link is known. */
  readonly origin: Origin | null;
  /** What the payer chose last. */
  readonly choice: Choice | null;
  /** True: a payment was started here, and its end was not shown yet. */
  readonly awaiting: boolean;
}

export interface Opened {
  readonly id: string;
  readonly secret: string;
}

export interface Memory {
  opened(origin: Origin): Opened | null;
  setOpened(origin: Origin, opened: Opened): void;
  forgetOpened(origin: Origin): void;
  kept(id: string): Kept | null;
  keep(id: string, kept: Pick<Kept, "secret"> & Partial<Kept>): void;
  change(id: string, change: Partial<Pick<Kept, "choice" | "awaiting">>): void;
  /** Removes what is too old, and the oldest of too many. */
  clean(): void;
}

function openedKey({ veId, link, returnUrl }: Origin): string {
  return OPENED + JSON.stringify([veId, link, returnUrl]);
}

function read<T>(store: Store, key: string, isGood: (value: Partial<T>) => boolean): T | null {
  const text = store.get(key);
  if (text === null) return null;
  try {
    const value = JSON.parse(text) as Partial<T> | null;
    return value !== null && isGood(value) ? (value as T) : null;
  } catch {
    return null; // Not ours, or of another release.
  }
}

const isKept = (value: Partial<Kept>): boolean =>
  typeof value.secret === "string" && typeof value.keptAtMs === "number";
const isOpened = (value: Partial<Opened>): boolean => typeof value.id === "string" && typeof value.secret === "string";

export function makeMemory(local: Store, tab: Store, now: () => number): Memory {
  const kept = (id: string): Kept | null => {
    const found = read<Kept>(local, KEPT + id, isKept);
    return found !== null && now() - found.keptAtMs < KEEP_MS ? found : null;
  };
  const keep: Memory["keep"] = (id, given) => {
    const value: Kept = { keptAtMs: now(), origin: null, choice: null, awaiting: false, ...given };
    local.set(KEPT + id, JSON.stringify(value));
  };
  return {
    opened: (origin) => read<Opened>(tab, openedKey(origin), isOpened),
    setOpened: (origin, opened) => tab.set(openedKey(origin), JSON.stringify(opened)),
    forgetOpened: (origin) => tab.remove(openedKey(origin)),
    kept,
    keep,
    change: (id, change) => {
      const found = kept(id);
      if (found !== null) keep(id, { ...found, ...change });
    },
    clean: () => {
      const ages = local
        .keys()
        .filter((key) => key.startsWith(KEPT))
        .map((key) => ({ key, atMs: read<Kept>(local, key, isKept)?.keptAtMs ?? 0 }))
        .sort((a, b) => b.atMs - a.atMs);
      ages.forEach(({ key, atMs }, i) => {
        if (i >= SESSIONS_KEPT_MAX || now() - atMs >= KEEP_MS) local.remove(key);
      });
    },
  };
}
