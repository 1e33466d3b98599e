/** PURE. How a turn ended, and what of it is billed: the rows of outcome.ts, for what realtime upstreams say. */

import type { UnitQuantity } from "../../core/meters.ts";
import { Outcome } from "../outcome.ts";

export interface Verdict {
  readonly outcome: Outcome;
  /** Null: an estimate of what arrived. */
  readonly units: readonly UnitQuantity[] | null;
}

/** What is known of a turn. */
export interface TurnState {
  readonly created: boolean;
  readonly hasContent: boolean;
  /** The gateway cancelled it: why. */
  readonly cut: Outcome | null;
}

const NOTHING: readonly UnitQuantity[] = [];

/**
 * The upstream said `response.done`. Reported usage is billed whatever the response came to, since the upstream bills it;
 * one that failed without content and usage is free.
 * @param ended how a turn ends at this time, unless it was cancelled or failed
 */
export function doneVerdict(
  turn: TurnState,
  reported: readonly UnitQuantity[] | null,
  failed: boolean,
  ended: Outcome,
): Verdict {
  if (!failed) return { outcome: turn.cut ?? ended, units: reported };
  const nothing = reported === null && !turn.hasContent;
  const outcome = turn.cut ?? (nothing ? Outcome.UPSTREAM_ERROR : Outcome.UPSTREAM_CUT);
  return { outcome, units: nothing ? NOTHING : reported };
}

/**
 * The upstream will say nothing more. What it took up it has read, and bills, also if the client left before there was
 * content; if it was the upstream that failed, its input is not the client's to pay.
 */
export function brokenVerdict(turn: TurnState, ended: Outcome): Verdict {
  const outcome = turn.cut ?? ended;
  const nothing = !turn.created || (outcome === Outcome.UPSTREAM_CUT && !turn.hasContent);
  if (!nothing) return { outcome, units: null };
  return { outcome: outcome === Outcome.UPSTREAM_CUT ? Outcome.UPSTREAM_ERROR : outcome, units: NOTHING };
}
