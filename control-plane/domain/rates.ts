/**
 * PURE. How a rate limit is split among nodes. Each node may go up to what it used and an allowance on top; over all nodes
 * that is never more than the limit, so the limit holds whatever the nodes do until they report again.
 *
 * `control-plane/rates/redis_script.ts` is the same in Lua; a test runs both through the same cases.
 */

/** Numbers of `tokenbill.node.v1.RateKind`. */
export const RateKind = { REQUESTS: 1, TOKENS: 2, CONCURRENT: 3 } as const;
export type RateKind = (typeof RateKind)[keyof typeof RateKind];

/** What a silent node used is out of the window after this. */
export const USE_KEEP_MS = 60_000;
/** Requests that run on a silent node are taken to have ended with it after this; nodes report every few seconds. */
export const RUNNING_KEEP_MS = 10_000;
/** For so long after its report a node is taken to still want what it did not get. */
export const WANT_KEEP_MS = 1_000;
/** A node that is silent for longer is not one of those that share. */
export const NODE_KEEP_MS = 5_000;
/** How long a node may count on an allowance. It reports each limit several times in this time. */
export const GRANT_TTL_MS = 10_000;
/** A limit that is tight is named to all nodes for so long after the last report of it. */
export const TIGHT_KEEP_MS = 3_000;
/** Few nodes have large shares: with so much left as one of so many parts it is not tight. */
export const TIGHT_PARTS_MIN = 10;
/** So many of them, at most. */
export const TIGHT_MAX = 1_000;
/**
 * Nodes that begin to use a limit at the same time use their shares of it until they have an answer. So for this time, from
 * the first report of it on, the share of each node stays with it, whether or not it has reported.
 */
export const COLD_MS = 60;
/** Of what is free, one part for each node that uses the limit, and as many again stay for whoever needs more. */
export const FREE_PARTS_PER_NODE = 2;

/** What is kept of a node's last report about a limit. */
export interface RateFigure {
  readonly used: number;
  /** What it may use beyond that: the allowance, or what it held before, whichever is more. */
  readonly held: number;
  readonly want: number;
  /** What it wanted and did not get. */
  readonly unmet: number;
  /** When it first reported the limit. */
  readonly since: number;
  /** Milliseconds. */
  readonly at: number;
}

/** Under which circumstances a report is answered. */
export interface RateMoment {
  readonly now: number;
  /** In [0, 1): decides who gets what cannot be divided. */
  readonly draw: number;
  /** How many nodes there are, whether or not they use the limit. */
  readonly nodes: number;
  /** When the node first reported the limit. */
  readonly since: number;
  /** The node stops: it gets nothing. */
  readonly final: boolean;
}

/** What a node reports about a limit. */
export interface RateReport {
  readonly subjectId: string;
  readonly kind: RateKind;
  readonly limit: number;
  readonly used: number;
  readonly held: number;
  readonly want: number;
}

export interface RateGrant {
  readonly allowance: number;
  /** Of the limit, over all nodes. */
  readonly remaining: number;
}

export interface RateDecision extends RateGrant {
  /** What nodes want and did not get, this one included. */
  readonly unmet: number;
}

/**
 * Less is left than a node's share, or than a node wants: one that knows nothing of it must not use its share, and one that
 * holds what it does not need should say so.
 */
export function isTight(limit: number, { remaining, unmet }: RateDecision, nodes: number): boolean {
  return unmet > 0 || remaining * Math.max(nodes, TIGHT_PARTS_MIN) < limit;
}

export function keepMs(kind: RateKind): number {
  return kind === RateKind.CONCURRENT ? RUNNING_KEEP_MS : USE_KEEP_MS;
}

/** `others`: the figures of the other nodes. */
export function grantRate(report: RateReport, others: Iterable<RateFigure>, moment: RateMoment): RateDecision {
  const { limit, held, want, used: own } = report;
  const { now, draw } = moment;
  const live = [...others].filter(({ at }) => now - at < keepMs(report.kind));
  const wanting = live.filter(({ at }) => now - at < WANT_KEEP_MS);
  const used = sum(live, (other) => other.used) + own;
  const cold = isCold(live, moment);
  const taken = used + sum(live, (other) => other.held) + (cold ? sharesOfOthers(limit, live.length, moment) : 0);
  const free = Math.max(0, limit - taken);
  const none = moment.final || isForgotten(report);
  const kept = cold ? Math.min(held, free) : 0;
  const allowance = none ? 0 : Math.max(kept, allowanceOf(report, free, live.length + 1, wanting, draw));
  const unmet = sum(wanting, (other) => other.unmet) + (none ? 0 : Math.max(0, want - allowance));
  return { allowance, remaining: Math.max(0, limit - used), unmet };
}

/** The nodes have just begun to use the limit. */
function isCold(live: readonly RateFigure[], { now, since }: RateMoment): boolean {
  return now - live.reduce((least, other) => Math.min(least, other.since), since) < COLD_MS;
}

/** What nodes that have not reported may be using already. */
function sharesOfOthers(limit: number, reported: number, { nodes }: RateMoment): number {
  return Math.max(0, nodes - reported - 1) * Math.max(1, Math.floor(limit / nodes));
}

/**
 * While all wants are covered, a node gets a part of what is free even if it does not want it, so that a burst need not wait
 * for a report. Otherwise it keeps what it holds and wants, and what else is free is divided. Part of a request's tokens is
 * of no use, so of tokens a node gets all it wants or nothing, as often as its part comes to.
 */
function allowanceOf(
  { kind, limit, used, held, want }: RateReport,
  free: number,
  nodes: number,
  wanting: readonly RateFigure[],
  draw: number,
): number {
  const unmet = sum(wanting, (other) => other.unmet);
  const spare = free - unmet;
  if (want <= spare) return Math.min(spare, Math.max(want, 1, Math.floor(free / (FREE_PARTS_PER_NODE * nodes))));
  const kept = Math.min(held, want, free);
  const more = want - kept;
  if (more === 0) return kept;
  const wants = want + sum(wanting, (other) => other.want);
  const own = lag(limit, want, wants, used + kept);
  const all =
    own + sum(wanting, (other) => (other.unmet > 0 ? lag(limit, other.want, wants, other.used + other.held) : 0));
  const part = all > 0 ? own / all : more / (more + unmet);
  const piece = kind === RateKind.TOKENS ? more : 1;
  const pieces = Math.floor(((free - kept) * part) / piece + draw);
  return kept + Math.min(more, free - kept, pieces * piece);
}

/**
 * How far a node is behind its part of the limit, by what the nodes want. Who is behind comes first: otherwise those who
 * came first would keep the limit among them.
 */
function lag(limit: number, want: number, wants: number, has: number): number {
  return Math.max(0, (limit * want) / wants - has);
}

function sum(figures: readonly RateFigure[], of: (figure: RateFigure) => number): number {
  return figures.reduce((total, figure) => total + of(figure), 0);
}

/** A node that says this has forgotten the limit, or has none any more. */
export function isForgotten({ limit }: RateReport): boolean {
  return limit === 0;
}

/** What to keep until the node reports again. */
export function figureOf(report: RateReport, { allowance }: RateGrant, { now, since, final }: RateMoment): RateFigure {
  return {
    used: report.used,
    held: final ? 0 : Math.max(report.held, allowance),
    want: final ? 0 : report.want,
    unmet: final ? 0 : Math.max(0, report.want - allowance),
    since,
    at: now,
  };
}
