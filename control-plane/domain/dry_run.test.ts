import { describe, expect, it, test } from "vitest";
import {
  dryRun,
  type DryRunFacts,
  ExclusionReason,
  type HealthView,
  type LiveView,
  NOTHING_KNOWN,
  type RatesView,
  type RateTerms,
  type TargetFacts,
} from "./dry_run.ts";
import { type LimitAccount, LimitKind } from "./limits.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
const TERMS: RateTerms = { requestsPerMinute: 60, tokensPerMinute: 1000, concurrentRequests: 5 };
const NAMES = Object.fromEntries(Object.entries(ExclusionReason).map(([name, number]) => [number, name]));

/** `pm_a` of `prov_a`, and so on. */
function target(name: string, more: Partial<TargetFacts> = {}): TargetFacts {
  return {
    physicalModelId: `pm_${name}`,
    providerId: `prov_${name}`,
    tier: 0,
    weight: 1,
    disabled: false,
    providerDisabled: false,
    formatRoutable: true,
    price: "costs",
    limits: [],
    rateTerms: null,
    ...more,
  };
}

function limit(kind: LimitKind, used: bigint, endsMs: number | null = null): LimitAccount {
  const unit = kind === LimitKind.UNITS ? 1 : 0;
  const period = endsMs === null ? 0 : 1;
  const account = { physicalModelId: "pm", merchantId: "mer", timeZone: "UTC", leased: 0n, countsFromMs: 0 };
  return { ...account, kind, unit, period, amount: 10n, used, endsMs };
}

function facts(targets: readonly TargetFacts[], more: Partial<DryRunFacts> = {}): DryRunFacts {
  return {
    veId: "ve_a",
    veDisabled: false,
    veFrozen: false,
    veRateTerms: null,
    walletExhausted: false,
    checkoutUrl: "https://pay.test/ve_a",
    model: "chat",
    targets,
    stickyKey: "",
    ...more,
  };
}

interface Seen {
  readonly health?: Readonly<Record<string, Partial<HealthView>>>;
  readonly rates?: Readonly<Record<string, Partial<RatesView>>>;
}

function live({ health = {}, rates = {} }: Seen): LiveView {
  const well: HealthView = { coolUntilMs: 0, cause: "", failurePercent: 0, firstContentMs: 0 };
  const free: RatesView = { remainingRequests: null, remainingTokens: null, remainingConcurrent: null };
  return {
    health: (id) => (health[id] === undefined ? null : { ...well, ...health[id] }),
    rates: (id) => (rates[id] === undefined ? null : { ...free, ...rates[id] }),
  };
}

/** `{ pm_a: [0.5, "NO_PRICE"] }`: the probability, then the reasons. */
function verdicts(given: DryRunFacts, view: LiveView = NOTHING_KNOWN): Record<string, (number | string)[]> {
  const { targets } = dryRun(given, view, NOW);
  return Object.fromEntries(
    targets.map(({ facts: { physicalModelId }, probability, exclusions }) => [
      physicalModelId,
      [Math.round(probability * 1e6) / 1e6, ...exclusions.map(({ reason }) => NAMES[reason]!)],
    ]),
  );
}

const COOL = { coolUntilMs: NOW + 5000 };

describe("who is asked first", () => {
  test.each<[string, TargetFacts[], Seen, Record<string, (number | string)[]>]>([
    ["the only one", [target("a")], {}, { pm_a: [1] }],
    ["by weight", [target("a", { weight: 3 }), target("b")], {}, { pm_a: [0.75], pm_b: [0.25] }],
    [
      "the first tier, and those of weight 0 as fallback",
      [target("a", { tier: 1 }), target("b"), target("c", { weight: 0 }), target("d", { tier: 1, weight: 0 })],
      {},
      {
        pm_b: [1],
        pm_c: [0, "FALLBACK_ONLY"],
        pm_a: [0, "EARLIER_TIER"],
        pm_d: [0, "EARLIER_TIER", "FALLBACK_ONLY"],
      },
    ],
    [
      "those of weight 0 where no other is well, each alike",
      [target("a"), target("b", { weight: 0 }), target("c", { weight: 0 })],
      { health: { pm_a: COOL } },
      { pm_a: [0, "MODEL_COOLING"], pm_b: [0.5], pm_c: [0.5] },
    ],
    [
      "the next tier where none is well",
      [target("a"), target("b", { tier: 2 })],
      { health: { prov_a: COOL } },
      { pm_a: [0, "PROVIDER_COOLING"], pm_b: [1] },
    ],
    [
      "less of one that fails",
      [target("a"), target("b")],
      { health: { pm_a: { failurePercent: 50 } } },
      { pm_a: [0.337748], pm_b: [0.662252] },
    ],
    [
      "less of one that is slow next to its siblings",
      [target("a"), target("b")],
      { health: { pm_a: { firstContentMs: 4000 }, pm_b: { firstContentMs: 1000 } } },
      { pm_a: [0.333333], pm_b: [0.666667] },
    ],
    [
      "as set where the fast sibling cools down",
      [target("a"), target("b"), target("c")],
      { health: { pm_a: { firstContentMs: 4000 }, pm_b: { firstContentMs: 1000, ...COOL } } },
      { pm_a: [0.5], pm_b: [0, "MODEL_COOLING"], pm_c: [0.5] },
    ],
    [
      "less where a sibling of weight 0 is faster",
      [target("a"), target("b"), target("c", { weight: 0 })],
      { health: { pm_a: { firstContentMs: 2000 }, pm_b: { firstContentMs: 1000 }, pm_c: { firstContentMs: 500 } } },
      { pm_a: [0.333333], pm_b: [0.666667], pm_c: [0, "FALLBACK_ONLY"] },
    ],
    [
      "those of weight 0 by their shares",
      [target("a", { weight: 0 }), target("b", { weight: 0 })],
      { health: { pm_a: { failurePercent: 50 } } },
      { pm_a: [0.337748], pm_b: [0.662252] },
    ],
    [
      "without regard to weights after one that is drawn, and then passed over for a limit",
      [target("a", { weight: 6, rateTerms: TERMS }), target("b", { weight: 3 }), target("c")],
      { rates: { pm_a: { remainingRequests: 0 } } },
      { pm_a: [0, "RATE_LIMITED"], pm_b: [0.6], pm_c: [0.4] },
    ],
    ["one whose cooldown is over", [target("a")], { health: { pm_a: { coolUntilMs: NOW } } }, { pm_a: [1] }],
    [
      "the one that is well first, where all cool down",
      [target("a"), target("b"), target("c", { tier: 1, weight: 0 })],
      {
        health: {
          pm_a: { coolUntilMs: NOW + 9000 },
          pm_b: { coolUntilMs: NOW + 1 },
          prov_b: { coolUntilMs: NOW + 9001 },
          pm_c: { coolUntilMs: NOW + 8999 },
        },
      },
      { pm_a: [0, "MODEL_COOLING"], pm_b: [0, "MODEL_COOLING", "PROVIDER_COOLING"], pm_c: [1, "MODEL_COOLING"] },
    ],
    [
      "no last resort that is at a limit or cannot be routed to",
      [
        target("a", { limits: [limit(LimitKind.UNITS, 10n)] }),
        target("b"),
        target("c", { disabled: true }),
        target("d", { rateTerms: TERMS }),
      ],
      {
        health: { pm_a: { coolUntilMs: NOW + 1 }, pm_b: COOL, pm_c: { coolUntilMs: NOW + 1 }, pm_d: COOL },
        rates: { pm_d: { remainingTokens: 0 } },
      },
      {
        pm_a: [0, "MODEL_COOLING", "UNIT_LIMIT_REACHED"],
        pm_b: [1, "MODEL_COOLING"],
        pm_c: [0, "MODEL_DISABLED", "MODEL_COOLING"],
        pm_d: [0, "MODEL_COOLING", "RATE_LIMITED"],
      },
    ],
    [
      "nobody that is configured away",
      [
        target("a", { disabled: true }),
        target("b", { providerDisabled: true }),
        target("c", { price: "none" }),
        target("d", { formatRoutable: false }),
        target("e", { price: "free" }),
      ],
      {},
      {
        pm_a: [0, "MODEL_DISABLED"],
        pm_b: [0, "PROVIDER_DISABLED"],
        pm_c: [0, "NO_PRICE"],
        pm_d: [0, "FORMAT_NOT_ROUTABLE"],
        pm_e: [1],
      },
    ],
    [
      "nobody at a limit",
      [
        target("a", { limits: [limit(LimitKind.UNITS, 9n), limit(LimitKind.CREDITS, 11n)] }),
        target("b", { limits: [limit(LimitKind.UNITS, 10n, NOW + 1)] }),
        target("c", { limits: [limit(LimitKind.UNITS, 10n, NOW)] }),
        target("d", { rateTerms: TERMS }),
        target("e", { rateTerms: TERMS }),
        target("f"),
      ],
      {
        rates: {
          pm_d: { remainingRequests: 3, remainingTokens: -1 },
          pm_e: { remainingRequests: 1, remainingTokens: 1, remainingConcurrent: 1 },
          pm_f: { remainingRequests: 0 },
        },
      },
      {
        pm_a: [0, "CREDIT_LIMIT_REACHED"],
        pm_b: [0, "UNIT_LIMIT_REACHED"],
        pm_c: [0.333333],
        pm_d: [0, "RATE_LIMITED"],
        pm_e: [0.333333],
        pm_f: [0.333333],
      },
    ],
  ])("%s", (_what, targets, seen, expected) => {
    expect(verdicts(facts(targets), live(seen))).toEqual(expected);
  });

  it("is one and the same target for one sticky key, by weight over many, and another while it is not well", () => {
    const targets = [target("a"), target("b", { weight: 3 }), target("c", { weight: 0 })];
    const winner = (stickyKey: string, view: LiveView): string => {
      const { targets: all } = dryRun(facts(targets, { stickyKey }), view, NOW);
      const [only, second] = all.filter(({ probability }) => probability > 0);
      expect([only!.probability, second]).toEqual([1, undefined]);
      return only!.facts.physicalModelId;
    };
    const keys = Array.from({ length: 2000 }, (_, i) => `user-${i}`);
    const won = keys.map((key) => winner(key, NOTHING_KNOWN));
    const share = won.filter((id) => id === "pm_b").length / keys.length;
    expect(share).toBeGreaterThan(0.72);
    expect(share).toBeLessThan(0.78);
    // A target that fails loses some of its keys, and no other key moves; a cooldown moves all of them.
    const failing = keys.map((key) => winner(key, live({ health: { pm_b: { failurePercent: 80 } } })));
    const moved = failing.filter((id, i) => id !== won[i]);
    expect(moved.length).toBeGreaterThan(keys.length / 4);
    expect(new Set(moved)).toEqual(new Set(["pm_a"]));
    expect(new Set(keys.map((key) => winner(key, live({ health: { pm_b: COOL } }))))).toEqual(new Set(["pm_a"]));
  });
});

it("tells when exclusions are over, and what they are in words", () => {
  const view = live({
    health: { pm_a: { coolUntilMs: NOW + 7000, cause: "rate limit" }, prov_b: COOL },
    rates: { pm_c: { remainingRequests: 0, remainingConcurrent: 0 } },
  });
  const targets = [
    target("a"),
    target("b"),
    target("c", { rateTerms: TERMS, limits: [limit(LimitKind.CREDITS, 10n, NOW + 60_000)] }),
  ];
  const [a, b, c] = dryRun(facts(targets), view, NOW).targets;
  expect(a!.exclusions).toEqual([
    {
      reason: ExclusionReason.MODEL_COOLING,
      endMs: NOW + 7000,
      detail: "the Physical Model failed lately and cools down (rate limit)",
    },
  ]);
  expect(b!.exclusions[0]).toMatchObject({ endMs: NOW + 5000, detail: "its Provider failed lately and cools down" });
  expect(c!.exclusions).toMatchObject([
    { endMs: NOW + 60_000, detail: "its Credit Limit is reached" },
    { endMs: null, detail: "it has no requests per minute and concurrent requests left" },
  ]);
});

test("the share of a target is of its failures, or those of its Provider, and its tier's times", () => {
  const view = live({
    health: {
      pm_a: { failurePercent: 90, firstContentMs: 8000 },
      pm_b: { firstContentMs: 1000 },
      pm_c: { firstContentMs: 9000 },
      prov_c: { failurePercent: 90 },
    },
  });
  const shares = dryRun(facts([target("a"), target("b"), target("c", { tier: 1 })]), view, NOW).targets.map(
    ({ healthShare }) => healthShare,
  );
  expect(shares).toEqual([0.02 * 0.25, 1, 0.02]);
});

describe("what stops a request", () => {
  const costs = [target("a")];
  const spent = target("b", { limits: [limit(LimitKind.CREDITS, 10n)] });
  const fast = target("c", { rateTerms: TERMS });
  const throttled: Seen = { rates: { pm_c: { remainingRequests: 0 }, ve_a: { remainingRequests: 0 } } };

  test.each<[string, string, DryRunFacts, Seen]>([
    ["nothing", "", facts(costs), {}],
    ["nothing, where all cool down", "", facts(costs), { health: { pm_a: COOL } }],
    ["a disabled VE", "invalid_api_key", facts([target("a", { disabled: true })], { veDisabled: true }), {}],
    ["a frozen VE", "invalid_api_key", facts([target("a", { disabled: true })], { veFrozen: true }), {}],
    [
      "no target that can be routed to, before the wallet",
      "no_available_target",
      facts([target("a", { providerDisabled: true })], { walletExhausted: true }),
      {},
    ],
    ["no target at all", "no_available_target", facts([]), {}],
    ["the VE's rate limits", "rate_limit_exceeded", facts(costs, { veRateTerms: TERMS }), throttled],
    ["no rate limits of a VE that has none", "", facts(costs), throttled],
    ["an empty wallet", "insufficient_quota", facts(costs, { walletExhausted: true }), {}],
    ["no empty wallet where nothing costs", "", facts([target("a", { price: "free" })], { walletExhausted: true }), {}],
    ["limits", "model_limit_reached", facts([spent, target("a", { disabled: true })]), {}],
    ["rate limits of a target", "rate_limit_exceeded", facts([fast]), throttled],
    ["limits and rate limits, which are over sooner", "rate_limit_exceeded", facts([spent, fast]), throttled],
    ["a target at both kinds of limits", "model_limit_reached", facts([{ ...fast, limits: spent.limits }]), throttled],
  ])("%s", (_what, code, given, seen) => {
    const { errorCode, errorMessage } = dryRun(given, live(seen), NOW);
    expect(errorCode).toBe(code);
    expect(errorMessage === "").toBe(code === "");
  });

  it("says where an empty wallet can be filled", () => {
    const { errorMessage } = dryRun(facts(costs, { walletExhausted: true }), NOTHING_KNOWN, NOW);
    expect(errorMessage).toContain("https://pay.test/ve_a");
  });
});

it("puts targets in order of tier, weight and id", () => {
  const targets = [
    target("d", { tier: 1 }),
    target("c", { weight: 2 }),
    target("b", { weight: 5 }),
    target("a", { weight: 2 }),
  ];
  const order = dryRun(facts(targets), NOTHING_KNOWN, NOW).targets.map((one) => one.facts.physicalModelId);
  expect(order).toEqual(["pm_b", "pm_a", "pm_c", "pm_d"]);
});
