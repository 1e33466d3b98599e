import { describe, expect, test } from "vitest";
import { CheckoutState } from "../../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import { type Action, EMPTY_TAB, isOver, mayBePaid, pollAfterMs, viewOf } from "./view.ts";

const NONE: Action = { case: undefined };
const QR: Action = { case: "qrCode", value: "weixin://x" };
const GO: Action = { case: "redirectUrl", value: "https://x" };
const VIRTUAL = { case: "wechatVirtual", value: {} } as Action;
const WECHAT = { case: "wechatPay", value: {} } as Action;

interface Row {
  readonly state: keyof typeof CheckoutState;
  readonly problem?: string;
  readonly action?: Action;
  readonly choosing?: boolean;
  readonly view: object;
}

const TABLE: readonly Row[] = [
  { state: "UNSPECIFIED", view: { kind: "unknown" } },
  { state: "OPEN", view: { kind: "choose", declined: false, instead: false } },
  { state: "OPEN", action: QR, choosing: true, view: { kind: "choose", declined: false, instead: false } },
  { state: "PENDING", view: { kind: "waiting" } },
  { state: "PENDING", action: QR, view: { kind: "scan", text: "weixin://x" } },
  { state: "PENDING", action: GO, view: { kind: "leaving" } },
  { state: "PENDING", action: WECHAT, view: { kind: "wechat" } },
  { state: "PENDING", action: VIRTUAL, view: { kind: "waiting" } },
  { state: "PENDING", action: QR, choosing: true, view: { kind: "choose", declined: false, instead: true } },
  { state: "PAID", action: QR, view: { kind: "settling" } },
  { state: "PAID", problem: "wrong_amount", view: { kind: "problem" } },
  { state: "FULFILLED", action: QR, choosing: true, view: { kind: "success" } },
  { state: "EXPIRED", action: QR, view: { kind: "expired" } },
  { state: "FAILED", action: QR, view: { kind: "choose", declined: true, instead: false } },
  { state: "CANCELED", view: { kind: "canceled" } },
  { state: "REFUNDED", view: { kind: "refunded", partly: false } },
  { state: "PARTIALLY_REFUNDED", view: { kind: "refunded", partly: true } },
  { state: "DISPUTED", view: { kind: "disputed" } },
];

describe("what is shown", () => {
  test.each(TABLE)(
    "$state $problem $action.case $choosing",
    ({ state, problem = "", action = NONE, choosing, view }) => {
      const tab = { ...EMPTY_TAB, action, choosing: choosing ?? false };
      expect(viewOf({ state: CheckoutState[state], problem }, tab)).toEqual(view);
    },
  );

  test("the table has every state, and one of a newer release is no guess", () => {
    expect(new Set(TABLE.map(({ state }) => state))).toEqual(new Set(Object.keys(CheckoutState)));
    expect(viewOf({ state: 99 as CheckoutState, problem: "" }, EMPTY_TAB)).toEqual({ kind: "unknown" });
  });
});

test("how often the session is read", () => {
  const { PENDING, PAID, OPEN, FAILED, FULFILLED, EXPIRED } = CheckoutState;
  expect([0, 89_999, 90_000, 300_000].map((ms) => pollAfterMs(PENDING, ms, 0))).toEqual([1_000, 1_000, 2_000, 5_000]);
  expect(pollAfterMs(PAID, 0, 0)).toBe(1_000);
  expect(pollAfterMs(OPEN, 0, 3_600_000)).toBe(3_601_000);
  expect(pollAfterMs(FAILED, 0, -60_000)).toBe(15_000);
  expect(pollAfterMs(OPEN, 0, 10 ** 12)).toBe(86_400_000);
  expect([FULFILLED, EXPIRED].map((state) => pollAfterMs(state, 0, 0))).toEqual([false, false]);
});

test("whom the processor is asked about, and what is over", () => {
  const states = Object.values(CheckoutState);
  const asked = states.filter((state) => mayBePaid({ state, payments: [{}] }));
  expect(asked).toEqual([CheckoutState.PENDING, CheckoutState.PAID, CheckoutState.EXPIRED, CheckoutState.CANCELED]);
  expect(states.some((state) => mayBePaid({ state, payments: [] }))).toBe(false);
  const going = states.filter((state) => !isOver(state));
  expect(going).toEqual([CheckoutState.OPEN, CheckoutState.PENDING, CheckoutState.PAID, CheckoutState.FAILED]);
});
