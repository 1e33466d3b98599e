import { Stripe } from "stripe";
import { afterEach, describe, expect, test, vi } from "vitest";
import { ProcessorError } from "./payment.ts";
import { CALL_TIMEOUT_MS, processorError, stripeClients, timed } from "./stripe_client.ts";
import { disputeState, methodLabel, ourId, refundState } from "./stripe_wire.ts";

afterEach(() => void vi.useRealTimers());

test("there is one client for a key, and not for ever more keys", () => {
  const clients = stripeClients("https://api.stripe.com");
  const first = clients.of("sk_test_0");
  for (let i = 1; i < 64; i++) clients.of(`sk_test_${i}`);
  expect(clients.of("sk_test_0")).toBe(first);
  const second = clients.of("sk_test_1");
  clients.of("sk_test_64");
  // The second was used after all others but the first.
  expect(clients.of("sk_test_0")).toBe(first);
  expect(clients.of("sk_test_1")).toBe(second);
  for (let i = 100; i < 164; i++) clients.of(`sk_test_${i}`);
  expect(clients.of("sk_test_0")).not.toBe(first);
});

test.each([
  ["https://api.stripe.com", "https", "api.stripe.com", 443],
  ["http://127.0.0.1:4242", "http", "127.0.0.1", 4242],
  ["http://stripe.test", "http", "stripe.test", 80],
  ["http://[::1]:4242", "http", "::1", 4242],
])("%s is where it is reached", (url, protocol, host, port) => {
  const client = stripeClients(url).of("sk_test_0");
  const api = ["protocol", "host", "port", "timeout", "maxNetworkRetries"].map((name) =>
    (client as unknown as { getApiField(name: string): unknown }).getApiField(name),
  );
  expect(api).toStrictEqual([protocol, host, port, 20_000, 2]);
});

test("a call whose answer trickles in for ever ends all the same", async () => {
  vi.useFakeTimers();
  const ended = timed(new Promise(() => undefined)).catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(CALL_TIMEOUT_MS);
  expect(await ended).toMatchObject({ code: "unreachable", failure: "no_connection" });
});

describe("errors", () => {
  const { errors } = Stripe;

  test.each([
    [
      new errors.StripeInvalidRequestError({ message: "m", type: "api_error", code: "amount_too_small" }),
      "refused amount_too_small",
    ],
    [
      new errors.StripeInvalidRequestError({ message: "m", type: "api_error", code: "<Not a word>" }),
      "refused invalid_request",
    ],
    [new errors.StripeIdempotencyError({ message: "m", type: "api_error" }), "unreachable idempotency"],
    [
      new errors.StripeInvalidRequestError({
        message: "m",
        type: "invalid_request_error",
        code: "idempotency_key_in_use",
      }),
      "unreachable busy",
    ],
    [
      new errors.StripeInvalidRequestError({ message: "m", type: "invalid_request_error", code: "lock_timeout" }),
      "unreachable busy",
    ],
    [new errors.StripeAuthenticationError({ message: "m", type: "api_error" }), "misconfigured bad_key"],
    [new errors.StripePermissionError({ message: "m", type: "api_error" }), "misconfigured no_permission"],
    [new errors.StripeRateLimitError({ message: "m", type: "api_error" }), "unreachable rate_limited"],
    [new errors.StripeConnectionError({ message: "m", type: "api_error" }), "unreachable no_connection"],
    [new errors.StripeAPIError({ message: "m", type: "api_error" }), "unreachable server_error"],
    [new TypeError("m"), "unreachable bad_answer"],
  ])("%s", (error, expected) => {
    const { code, failure } = processorError(error);
    expect(`${code} ${failure}`).toBe(expected);
  });

  test.each(["lost_card", "stolen_card", "fraudulent", "generic_decline"])(
    "the bank's own reason (%s) is not told",
    (decline_code) => {
      const error = new errors.StripeCardError({
        message: "m",
        type: "card_error",
        code: "card_declined",
        decline_code,
      });
      expect(processorError(error).failure).toBe("card_declined");
    },
  );

  test("show no keys, whatever Stripe quotes, and are not long", () => {
    const secrets = ["sk_live_51AbcDefGhi0123", "rk_test_****0123", "whsec_abcDEF0123", "Bearer zzz123"];
    for (const secret of secrets) {
      const message = `No such key: '${secret}', and ${"more ".repeat(500)}`;
      const error = processorError(new errors.StripeInvalidRequestError({ message, type: "api_error" }));
      expect(error).toBeInstanceOf(ProcessorError);
      expect(error.message).not.toMatch(/0123|zzz123|live_/);
      expect(error.message.length).toBeLessThan(400);
      expect(error.cause).toBeUndefined();
    }
  });
});

describe("words", () => {
  const method = (fields: object): Stripe.PaymentMethod => fields as Stripe.PaymentMethod;

  test.each([
    [{ type: "card", card: { brand: "visa", display_brand: null, last4: "4242" } }, "Visa 4242"],
    [{ type: "card", card: { brand: "visa", display_brand: "cartes_bancaires", last4: "1" } }, "Cartes Bancaires 1"],
    [{ type: "card", card: { brand: "new_brand", display_brand: null, last4: "9" } }, "New brand 9"],
    [{ type: "sepa_debit", sepa_debit: { last4: "3000" } }, "Sepa debit 3000"],
    [{ type: "link", link: {} }, "Link"],
  ])("%j is %s", (fields, label) => {
    expect(methodLabel(method(fields))).toBe(label);
  });

  test.each([
    [null, "pending"],
    ["pending", "pending"],
    ["requires_action", "pending"],
    ["succeeded", "succeeded"],
    ["failed", "failed"],
    ["canceled", "failed"],
    ["of tomorrow", "pending"],
  ])("a refund that is %s is %s", (status, state) => expect(refundState(status)).toBe(state));

  test("a dispute of no known status is open", () => expect(disputeState("of tomorrow")).toBe("open"));

  test("ids are taken from own fields of metadata alone", () => {
    expect(ourId({ payment_id: "pmt_1" }, "payment_id")).toBe("pmt_1");
    expect(ourId(Object.create({ payment_id: "pmt_1" }), "payment_id")).toBeNull();
    expect(ourId(null, "payment_id")).toBeNull();
    expect(ourId("payment_id", "payment_id")).toBeNull();
  });
});
