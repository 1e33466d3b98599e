/**
 * PURE: what a request for a Logical Model would meet now, decided as a node decides it, from what the control plane knows.
 * Nodes know better by about a second, and what a single request needs of a limit only they know.
 */

import { healthShare, latencyShare, stickyHash, stickyScore } from "../../core/routing.ts";
import { isExhausted, type LimitAccount, LimitKind, rollOver } from "./limits.ts";

/** 0: no such limit. */
export interface RateTerms {
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
  readonly concurrentRequests: number;
}

/** What nodes saw of a Physical Model or a Provider. */
export interface HealthView {
  /** When it is well again, in milliseconds since 1970; in the past: it does not cool down. */
  readonly coolUntilMs: number;
  /** Why it cools down, in a word or two such as `rate limit`; empty: not known. */
  readonly cause: string;
  /** Of a hundred of its calls so many failed of late. */
  readonly failurePercent: number;
  /** Typical time to the first content of a stream; 0: not known. */
  readonly firstContentMs: number;
}

/** What is left of rate limits over all nodes; null: there is no such limit, or nothing is known of it. */
export interface RatesView {
  readonly remainingRequests: number | null;
  readonly remainingTokens: number | null;
  readonly remainingConcurrent: number | null;
}

/** What the nodes see now, as far as this replica has heard. */
export interface LiveView {
  /** Of a Physical Model or a Provider, by its id; null: nothing is known. */
  health(id: string): HealthView | null;
  /** Of an access key, a VE or a Physical Model, by its id; null: nothing is known. */
  rates(subject: string, limits: RateTerms): RatesView | null;
}

export const NOTHING_KNOWN: LiveView = { health: () => null, rates: () => null };

/** Numbers equal `tokenbill.v1.ExclusionReason`. */
export const ExclusionReason = {
  MODEL_DISABLED: 1,
  PROVIDER_DISABLED: 2,
  NO_PRICE: 3,
  FORMAT_NOT_ROUTABLE: 4,
  MODEL_COOLING: 5,
  PROVIDER_COOLING: 6,
  UNIT_LIMIT_REACHED: 7,
  CREDIT_LIMIT_REACHED: 8,
  RATE_LIMITED: 9,
  EARLIER_TIER: 10,
  FALLBACK_ONLY: 11,
} as const;
export type ExclusionReason = (typeof ExclusionReason)[keyof typeof ExclusionReason];

export interface Exclusion {
  readonly reason: ExclusionReason;
  /** When it is over, in milliseconds since 1970; null: not known. */
  readonly endMs: number | null;
  readonly detail: string;
}

/** One target as it is configured. */
export interface TargetFacts {
  readonly physicalModelId: string;
  readonly providerId: string;
  readonly tier: number;
  readonly weight: number;
  readonly disabled: boolean;
  readonly providerDisabled: boolean;
  readonly formatRoutable: boolean;
  readonly price: "none" | "free" | "costs";
  readonly limits: readonly LimitAccount[];
  /** Null: as fast as it likes. */
  readonly rateTerms: RateTerms | null;
}

export interface DryRunFacts {
  readonly veId: string;
  readonly veDisabled: boolean;
  readonly veFrozen: boolean;
  /** Null: as fast as they like. */
  readonly veRateTerms: RateTerms | null;
  readonly walletExhausted: boolean;
  readonly checkoutUrl: string;
  readonly model: string;
  readonly targets: readonly TargetFacts[];
  /** The key that requests stick by; empty: they do not. */
  readonly stickyKey: string;
}

export interface TargetVerdict {
  readonly facts: TargetFacts;
  readonly healthShare: number;
  /** Of a request that gets so far as to be sent. */
  readonly probability: number;
  readonly exclusions: readonly Exclusion[];
}

export interface DryRun {
  /** By tier, weight and id. */
  readonly targets: readonly TargetVerdict[];
  /** Empty: it would be served. */
  readonly errorCode: string;
  readonly errorMessage: string;
}

/** Why a target is not asked, whatever its siblings are like. */
interface Standing {
  readonly facts: TargetFacts;
  /** Not to be asked until somebody changes the configuration. */
  readonly unroutable: readonly Exclusion[];
  readonly limited: readonly Exclusion[];
  readonly rateLimited: readonly Exclusion[];
  readonly cooling: readonly Exclusion[];
  /** When the last cooldown of it is over. */
  readonly coolUntilMs: number;
  readonly failurePercent: number;
  readonly firstContentMs: number;
}

function unroutable(facts: TargetFacts): Exclusion[] {
  const list: Exclusion[] = [];
  const add = (reason: ExclusionReason, detail: string): void => void list.push({ reason, endMs: null, detail });
  if (facts.disabled) add(ExclusionReason.MODEL_DISABLED, "the Physical Model is disabled");
  if (facts.providerDisabled) add(ExclusionReason.PROVIDER_DISABLED, "its Provider is disabled");
  if (facts.price === "none") add(ExclusionReason.NO_PRICE, "the Physical Model has no price: set one, 0 is allowed");
  if (!facts.formatRoutable)
    add(ExclusionReason.FORMAT_NOT_ROUTABLE, "its Provider's format is not known to this release");
  return list;
}

function limited({ limits }: TargetFacts, nowMs: number): Exclusion[] {
  return limits
    .map((account) => rollOver(account, nowMs))
    .filter(isExhausted)
    .map(({ kind, endsMs }) =>
      kind === LimitKind.UNITS
        ? { reason: ExclusionReason.UNIT_LIMIT_REACHED, endMs: endsMs, detail: "its Unit Limit is reached" }
        : { reason: ExclusionReason.CREDIT_LIMIT_REACHED, endMs: endsMs, detail: "its Credit Limit is reached" },
    );
}

/** The rate limits of a subject that have nothing left, in words; null: none. */
function spentRates(live: LiveView, subject: string, terms: RateTerms | null): string | null {
  const view = terms === null ? null : live.rates(subject, terms);
  if (view === null) return null;
  const spent = [
    [view.remainingRequests, "requests per minute"],
    [view.remainingTokens, "tokens per minute"],
    [view.remainingConcurrent, "concurrent requests"],
  ] as const;
  const names = spent.filter(([left]) => left !== null && left <= 0).map(([, name]) => name);
  return names.length === 0 ? null : names.join(" and ");
}

function coolingOf(what: string, reason: ExclusionReason, health: HealthView | null, nowMs: number): Exclusion[] {
  if (health === null || health.coolUntilMs <= nowMs) return [];
  const cause = health.cause === "" ? "" : ` (${health.cause})`;
  return [{ reason, endMs: health.coolUntilMs, detail: `${what} failed lately and cools down${cause}` }];
}

function standingOf(facts: TargetFacts, live: LiveView, nowMs: number): Standing {
  const { physicalModelId, providerId, rateTerms } = facts;
  const model = live.health(physicalModelId);
  const provider = live.health(providerId);
  const cooling = [
    ...coolingOf("the Physical Model", ExclusionReason.MODEL_COOLING, model, nowMs),
    ...coolingOf("its Provider", ExclusionReason.PROVIDER_COOLING, provider, nowMs),
  ];
  const spent = spentRates(live, physicalModelId, rateTerms);
  const detail = `it has no ${spent} left`;
  return {
    facts,
    unroutable: unroutable(facts),
    limited: limited(facts, nowMs),
    rateLimited: spent === null ? [] : [{ reason: ExclusionReason.RATE_LIMITED, endMs: null, detail }],
    cooling,
    coolUntilMs: Math.max(0, ...cooling.map(({ endMs }) => endMs!)),
    failurePercent: Math.max(model?.failurePercent ?? 0, provider?.failurePercent ?? 0),
    firstContentMs: model?.firstContentMs ?? 0,
  };
}

/** It may be called, sick or not. */
function isOpen({ unroutable: never, limited: spent, rateLimited }: Standing): boolean {
  return never.length + spent.length + rateLimited.length === 0;
}

/** A node draws it: of limits it learns only then, and passes on. */
function isDrawn({ unroutable: never, cooling }: Standing): boolean {
  return never.length + cooling.length === 0;
}

function isWell(standing: Standing): boolean {
  return isOpen(standing) && isDrawn(standing);
}

/** What of its weight counts, among the targets of its tier. */
function shareOf({ failurePercent, firstContentMs }: Standing, tier: readonly Standing[]): number {
  const known = tier.filter((one) => isDrawn(one) && one.firstContentMs > 0);
  const best = Math.min(...known.map((one) => one.firstContentMs));
  return healthShare(failurePercent) * latencyShare(firstContentMs, known.length === 0 ? 0 : best);
}

/** `parts[i]` is what counts of the weight of `weighted[i]`. */
function stickyWinner(weighted: readonly Standing[], parts: readonly number[], key: string): Standing {
  const hash = stickyHash(key);
  const scores = new Map(
    weighted.map((one, i) => [one, stickyScore(hash, stickyHash(one.facts.physicalModelId), parts[i]!)]),
  );
  const score = (one: Standing): number => scores.get(one)!;
  return weighted.reduce((best, one) => (score(one) < score(best) ? one : best));
}

/** Among the targets of a tier that are well, one at least: the probability of each to be asked first. */
function draw(tier: readonly Standing[], stickyKey: string): Map<Standing, number> {
  const well = tier.filter(isWell);
  const weighted = well.filter(({ facts }) => facts.weight > 0);
  const share = (one: Standing): number => shareOf(one, tier);
  if (weighted.length === 0) return byParts(well, share);
  const part = (one: Standing): number => one.facts.weight * share(one);
  if (stickyKey !== "") return new Map([[stickyWinner(weighted, weighted.map(part), stickyKey), 1]]);
  const first = byParts(
    tier.filter((one) => isDrawn(one) && one.facts.weight > 0),
    part,
  );
  // Who follows a target that was passed over for a limit is drawn without regard to weights.
  const next = byParts(weighted, share);
  const reached = weighted.reduce((sum, one) => sum + first.get(one)!, 0);
  return new Map(weighted.map((one) => [one, first.get(one)! + (1 - reached) * next.get(one)!]));
}

/** Probabilities in proportion to what `part` says. */
function byParts(standings: readonly Standing[], part: (one: Standing) => number): Map<Standing, number> {
  const sum = standings.reduce((total, one) => total + part(one), 0);
  return new Map(standings.map((one) => [one, part(one) / sum]));
}

/** When none is well: the one that is first to be. */
function lastResort(standings: readonly Standing[]): Standing | null {
  const open = standings.filter(isOpen);
  if (open.length === 0) return null;
  return open.reduce((best, one) => (one.coolUntilMs < best.coolUntilMs ? one : best));
}

function exclusionsOf(standing: Standing, firstTier: number | null, weightedWell: boolean): Exclusion[] {
  const { facts, unroutable: never, limited: spent, rateLimited, cooling } = standing;
  const list = [...never, ...cooling, ...spent, ...rateLimited];
  if (firstTier !== null && facts.tier > firstTier) {
    const detail = `a target of tier ${firstTier} can be asked`;
    list.push({ reason: ExclusionReason.EARLIER_TIER, endMs: null, detail });
  }
  if (facts.weight === 0 && weightedWell) {
    const detail = "its weight is 0, so it follows after those of its tier with a weight";
    list.push({ reason: ExclusionReason.FALLBACK_ONLY, endMs: null, detail });
  }
  return list;
}

type Failure = readonly [code: string, message: string];

/** As a node refuses, in its order. */
function failureOf(facts: DryRunFacts, standings: readonly Standing[], live: LiveView): Failure | null {
  if (facts.veDisabled) return ["invalid_api_key", "The VE is disabled, so its access keys open nothing: enable it."];
  if (facts.veFrozen)
    return [
      "invalid_api_key",
      "The VE is frozen, since a payment for it is disputed, so its access keys open nothing: set `frozen` to false.",
    ];
  const routable = standings.filter((one) => one.unroutable.length === 0);
  if (routable.length === 0)
    return ["no_available_target", `No target of \`${facts.model}\` can be routed to: see their exclusions.`];
  const spent = spentRates(live, facts.veId, facts.veRateTerms);
  if (spent !== null) return ["rate_limit_exceeded", `The VE has no ${spent} left.`];
  // What costs nothing holds nothing, and is served whatever the wallet has.
  if (facts.walletExhausted && routable.some((one) => one.facts.price === "costs"))
    return ["insufficient_quota", `The wallet is exhausted. It can be topped up: ${facts.checkoutUrl}`];
  if (routable.some(isOpen)) return null;
  // Waiting a moment helps if one target lacks nothing but that.
  return routable.some((one) => one.limited.length === 0)
    ? ["rate_limit_exceeded", `Every target of \`${facts.model}\` is at a limit, one of them only at a rate limit.`]
    : ["model_limit_reached", `Every target of \`${facts.model}\` has reached its Unit Limit or Credit Limit.`];
}

function compare(a: TargetFacts, b: TargetFacts): number {
  return a.tier - b.tier || b.weight - a.weight || (a.physicalModelId < b.physicalModelId ? -1 : 1);
}

export function dryRun(facts: DryRunFacts, live: LiveView, nowMs: number): DryRun {
  const standings = facts.targets.toSorted(compare).map((target) => standingOf(target, live, nowMs));
  const tiers = Map.groupBy(standings, (one) => one.facts.tier);
  const first = standings.find(isWell) ?? null;
  const resort = first === null ? lastResort(standings) : null;
  const probabilities =
    first === null
      ? new Map(resort === null ? [] : [[resort, 1]])
      : draw(tiers.get(first.facts.tier)!, facts.stickyKey);
  const [errorCode, errorMessage] = failureOf(facts, standings, live) ?? ["", ""];
  return {
    targets: standings.map((one) => {
      const tier = tiers.get(one.facts.tier)!;
      const weightedWell = tier.some((sibling) => sibling.facts.weight > 0 && isWell(sibling));
      return {
        facts: one.facts,
        healthShare: shareOf(one, tier),
        probability: probabilities.get(one) ?? 0,
        exclusions: exclusionsOf(one, first?.facts.tier ?? null, weightedWell),
      };
    }),
    errorCode,
    errorMessage,
  };
}
