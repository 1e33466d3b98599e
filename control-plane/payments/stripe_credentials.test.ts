import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { PaymentCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { PaymentMethod } from "../domain/checkout.ts";
import { DomainError } from "../domain/errors.ts";
import { checkStripeCredentials, openStripeCredentials } from "./stripe_credentials.ts";
import { stripeCredentials } from "./testing_stripe_fixture.ts";

function refusal(credentials: Uint8Array): DomainError {
  try {
    checkStripeCredentials(credentials);
  } catch (error) {
    if (error instanceof DomainError && error.code === "invalid_field") return error;
    throw error;
  }
  throw new Error("it was taken");
}

test.each([
  ["sk_live_51AbcDefGhi0123", false, "live …0123"],
  ["sk_test_51AbcDefGhi4567", true, "test …4567"],
  ["rk_live_51AbcDefGhi89ab", false, "live …89ab"],
  ["rk_test_51AbcDefGhicdef", true, "test …cdef"],
])("%s is taken", (secretKey, isTest, hint) => {
  const checked = checkStripeCredentials(stripeCredentials(` ${secretKey}\n`, " whsec_abcDEF0123456789 "));
  expect(checked).toMatchObject({
    test: isTest,
    hint,
    accountIdentity: null,
    methods: [PaymentMethod.STRIPE_CHECKOUT],
  });
  expect(openStripeCredentials(checked.credentials)).toStrictEqual({
    secretKey,
    webhookSecret: "whsec_abcDEF0123456789",
  });
  expect(fromBinary(PaymentCredentialsSchema, checked.credentials).kind.case).toBe("stripe");
});

test("a webhook secret can be left out", () => {
  const { credentials } = checkStripeCredentials(stripeCredentials("sk_test_51AbcDefGhi4567", ""));
  expect(openStripeCredentials(credentials).webhookSecret).toBe("");
});

test.each([
  ["pk_live_51AbcDefGhi0123", "publishable"],
  ["whsec_abcDEF0123456789", "webhook_secret"],
  ["sk_org_live_51AbcDefGhi0123", "organization"],
  ["acct_1AbcDefGhi0123", "account's id"],
  ["sk_prod_51AbcDefGhi0123", "copied whole"],
  ["sk_live_", "copied whole"],
  ["sk_live_51Abc Def0123456", "copied whole"],
  ["sk_live_51Abc\r\nx: yDef0123", "copied whole"],
  ["", "copied whole"],
])("'%s' is refused with what to do", (secretKey, remedy) => {
  const error = refusal(stripeCredentials(secretKey, ""));
  expect(error.field).toBe("credentials.stripe.secret_key");
  expect(error.message).toContain(remedy);
  if (secretKey.length > 10) expect(error.message).not.toContain(secretKey.slice(8));
});

test.each(["whsec_", "sk_live_51AbcDefGhi0123", "whsec_abc def0123456", "we_123456789"])(
  "the webhook secret '%s' is refused",
  (webhookSecret) => {
    const error = refusal(stripeCredentials("sk_test_51AbcDefGhi4567", webhookSecret));
    expect(error.field).toBe("credentials.stripe.webhook_secret");
    expect(error.message).not.toContain(webhookSecret.slice(6) || "?");
  },
);

test("credentials of another processor are not Stripe's", () => {
  const kind = { case: "wechatPay" as const, value: { merchantNumber: "1900000001" } };
  const bytes = toBinary(PaymentCredentialsSchema, create(PaymentCredentialsSchema, { kind }));
  expect(refusal(bytes).field).toBe("credentials.stripe");
  expect(() => openStripeCredentials(bytes)).toThrow(RangeError);
});
