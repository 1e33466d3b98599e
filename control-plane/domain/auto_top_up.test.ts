import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { parseCredits } from "../../core/credits.ts";
import {
  afterFailure,
  type AutomaticSession,
  type AutoTopUpFacts,
  type AutoTopUpStep,
  endOf,
  FAILURES_MAX,
  nextStep,
  RETRY_AFTER_MS,
  unfit,
} from "./auto_top_up.ts";
import { CheckoutState } from "./checkout.ts";

const usd = (minor: bigint) => ({ currency: "USD", minor });

function session(more: Partial<AutomaticSession> = {}): AutomaticSession {
  return { id: "cs_1", state: CheckoutState.FULFILLED, failure: "", unsettled: false, createdAtMs: 2000, ...more };
}

function facts(more: Partial<AutoTopUpFacts> = {}): AutoTopUpFacts {
  return {
    charging: false,
    lastSessionId: null,
    savedAtMs: 1000,
    open: true,
    remaining: parseCredits("9.99"),
    threshold: parseCredits("10"),
    price: usd(1000n),
    dailyMax: usd(3000n),
    spentMinor: 0n,
    dayEndMs: 99,
    newest: null,
    ...more,
  };
}

const CHARGE = { kind: "charge" } as const;
const LOOK = { kind: "look" } as const;
const REST = { kind: "rest" } as const;
const WELL = { kind: "went_well" } as const;
const failed = (failure: string) => ({ kind: "failed", failure }) as const;

describe("the next step", () => {
  const declined = session({ state: CheckoutState.FAILED, failure: "card_declined" });
  const pending = session({ state: CheckoutState.PENDING, unsettled: true });

  test.each<[string, Partial<AutoTopUpFacts>, AutoTopUpStep]>([
    ["less than the threshold", {}, CHARGE],
    ["exactly the threshold", { remaining: parseCredits("10") }, REST],
    ["a closed VE", { open: false }, REST],
    ["the last purchase that the daily maximum allows", { spentMinor: 2000n }, CHARGE],
    ["one cent too much", { spentMinor: 2001n }, { kind: "capped", untilMs: 99 }],
    ["a purchase that is over", { newest: session(), lastSessionId: "cs_1" }, CHARGE],
    ["a purchase under way", { newest: pending }, LOOK],
    ["a purchase under way, though enough is left", { newest: pending, remaining: parseCredits("11") }, LOOK],
    ["a purchase whose Credits are missing", { newest: session({ state: CheckoutState.PAID }) }, LOOK],
    ["a session that nothing was chosen in yet", { newest: session({ state: CheckoutState.OPEN }) }, LOOK],
    [
      "an expired session that may still be paid",
      { newest: session({ state: CheckoutState.EXPIRED, unsettled: true }) },
      LOOK,
    ],
    ["a failure that is known", { newest: declined, lastSessionId: "cs_1" }, CHARGE],
    ["a pack whose amount is open", { price: null }, failed("pack_changed")],
    ["a pack in another currency", { price: { currency: "EUR", minor: 1n } }, failed("pack_changed")],
    ["a pack that costs more than a day's maximum", { price: usd(3001n) }, failed("pack_changed")],
    ["a changed pack, while enough is left", { price: null, remaining: parseCredits("10") }, REST],
    ["a charge that went well", { charging: true, newest: session() }, WELL],
    [
      "a charge that went well and was refunded",
      { charging: true, newest: session({ state: CheckoutState.REFUNDED }) },
      WELL,
    ],
    ["a charge that was declined", { charging: true, newest: declined }, failed("card_declined")],
    ["a charge under way", { charging: true, newest: pending }, LOOK],
    ["a charge that was lost before its session", { charging: true, newest: session(), lastSessionId: "cs_1" }, CHARGE],
    ["the first charge of all, lost before its session", { charging: true }, CHARGE],
    ["a lost charge that is needed no more", { charging: true, remaining: parseCredits("10") }, REST],
    ["a charge of a method that was replaced", { charging: true, newest: declined, savedAtMs: 2001 }, CHARGE],
  ])("after %s", (_, more, step) => {
    expect(nextStep(facts(more))).toEqual(step);
  });

  it("charges only what the day has left, when nothing is under way", () => {
    const money = fc.bigInt({ min: 1n, max: 100n });
    const states = fc.constantFrom(...Object.values(CheckoutState));
    fc.assert(
      fc.property(
        money,
        money,
        money,
        states,
        fc.boolean(),
        fc.boolean(),
        (price, max, spent, state, unsettled, charging) => {
          const newest = session({ state, unsettled });
          const given = { price: usd(price), dailyMax: usd(max), spentMinor: spent, newest, charging };
          if (nextStep(facts(given)).kind !== "charge") return;
          expect(spent + price <= max).toBe(true);
          expect(endOf(newest)).not.toBeNull();
          expect(charging).toBe(false);
        },
      ),
    );
  });
});

describe("how sessions end", () => {
  test.each([
    ["FAILED", "", { failure: "declined" }],
    ["FAILED", "card_declined", { failure: "card_declined" }],
    ["EXPIRED", "", { failure: "expired" }],
    ["CANCELED", "", { failure: "canceled" }],
    ["FULFILLED", "", "well"],
    ["DISPUTED", "", "well"],
    ["PARTIALLY_REFUNDED", "", "well"],
    ["PENDING", "x", null],
    ["PAID", "x", null],
    ["OPEN", "", null],
  ] as const)("%s with the failure '%s'", (state, failure, end) => {
    expect(endOf(session({ state: CheckoutState[state], failure }))).toEqual(end);
  });
});

describe("after a failure", () => {
  test("it rests longer and longer, and is off after three in a row", () => {
    const all = [0, 1, 2, 3, 9].map((before) => afterFailure(before, "card_declined", 1_000_000));
    expect(all.map(({ failures, enabled, tryAtMs }) => [failures, enabled, tryAtMs - 1_000_000])).toEqual([
      [1, true, 60_000],
      [2, true, 600_000],
      [3, false, 3_600_000],
      [4, false, 3_600_000],
      [10, false, 3_600_000],
    ]);
    expect(RETRY_AFTER_MS).toHaveLength(FAILURES_MAX);
  });

  test("what only the payer can mend switches it off at once", () => {
    expect(afterFailure(0, "authentication_required", 0)).toMatchObject({ failures: 1, enabled: false });
  });
});

test.each([
  [usd(1000n), usd(1000n), null],
  [usd(1001n), usd(1000n), "above_daily_max"],
  [{ currency: "EUR", minor: 1n }, usd(1000n), "other_currency"],
  [null, usd(1000n), "custom_amount"],
  [usd(1n), null, "not_offered"],
])("a pack for %o fits a daily maximum of %o: %s", (price, dailyMax, why) => {
  expect(unfit(price, dailyMax === null ? null : { threshold: 1n, dailyMax })).toBe(why);
});
