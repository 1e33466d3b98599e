/** What a merchant gives to open an account at Stripe: its keys, told by their prefixes. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { PaymentCredentialsSchema, StripeCredentialsSchema } from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { PaymentMethod } from "../domain/checkout.ts";
import { invalidField } from "../domain/errors.ts";
import type { CheckedCredentials } from "./payment.ts";

/** Empty `webhookSecret`: there is none. */
export interface StripeKeys {
  readonly secretKey: string;
  readonly webhookSecret: string;
}

const SECRET_FIELD = "credentials.stripe.secret_key";
const WEBHOOK_FIELD = "credentials.stripe.webhook_secret";
const KEY = /^(?:sk|rk)_(test|live)_[A-Za-z0-9_]{8,480}$/;
const WEBHOOK_SECRET = /^whsec_[A-Za-z0-9+/=_-]{8,480}$/;
const HINT_CHARS = 4;

/** Other things that stand on the same page of Stripe's dashboard, and what to do about each. */
const MISTAKES: readonly (readonly [RegExp, string])[] = [
  [
    /^pk_/,
    "this is the publishable key, which cannot take payments: copy the secret key (sk_…) or make a restricted one (rk_…)",
  ],
  [
    /^whsec_/,
    "this is a webhook's signing secret: it belongs into webhook_secret, and here goes the secret key (sk_…)",
  ],
  [
    /^sk_org_/,
    "this is a key of an organization: use a secret key (sk_…) or a restricted one (rk_…) of the one account",
  ],
  [/^acct_/, "this is the account's id: copy the secret key (sk_…) or make a restricted one (rk_…)"],
];

/** True: no real money moves with this key. */
export function isTestKey(secretKey: string): boolean {
  return KEY.exec(secretKey)?.[1] === "test";
}

function checkSecretKey(secretKey: string): void {
  for (const [pattern, remedy] of MISTAKES) {
    if (pattern.test(secretKey)) throw invalidField(SECRET_FIELD, remedy, "key_kind");
  }
  if (KEY.test(secretKey)) return;
  throw invalidField(
    SECRET_FIELD,
    "must begin with sk_live_, sk_test_, rk_live_ or rk_test_ and have no spaces: was it copied whole?",
    "key_format",
  );
}

function checkWebhookSecret(secret: string): void {
  if (secret === "" || WEBHOOK_SECRET.test(secret)) return;
  throw invalidField(
    WEBHOOK_FIELD,
    "must begin with whsec_ and have no spaces: it is the signing secret of the webhook endpoint at Stripe",
    "key_format",
  );
}

function decode(credentials: Uint8Array): StripeKeys | null {
  const { kind } = fromBinary(PaymentCredentialsSchema, credentials);
  if (kind.case !== "stripe") return null;
  return { secretKey: kind.value.secretKey.trim(), webhookSecret: kind.value.webhookSecret.trim() };
}

/**
 * The hint is the key's mode and end. A rolled key has another end, so the hint does not stand for the account, and Stripe's
 * keys hold nothing documented that does.
 * @throws DomainError invalid_field
 */
export function checkStripeCredentials(credentials: Uint8Array): CheckedCredentials {
  const keys = decode(credentials);
  if (keys === null) throw invalidField("credentials.stripe", "must be set for an account at Stripe", "required");
  checkSecretKey(keys.secretKey);
  checkWebhookSecret(keys.webhookSecret);
  const test = isTestKey(keys.secretKey);
  const message = create(PaymentCredentialsSchema, {
    kind: { case: "stripe", value: create(StripeCredentialsSchema, keys) },
  });
  return {
    credentials: toBinary(PaymentCredentialsSchema, message),
    hint: `${test ? "test" : "live"} …${keys.secretKey.slice(-HINT_CHARS)}`,
    accountIdentity: null,
    test,
    methods: [PaymentMethod.STRIPE_CHECKOUT],
  };
}

/** Of stored credentials, which were checked. @throws RangeError if they are not Stripe's */
export function openStripeCredentials(credentials: Uint8Array): StripeKeys {
  const keys = decode(credentials);
  if (keys === null) throw new RangeError("these are not credentials of Stripe");
  return keys;
}
