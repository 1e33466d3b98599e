/** Every face of the page, for looking at it and for checks that go over all of them. */

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { CheckoutState, PaymentMethod } from "../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import type { FakeCheckout, FakeSession } from "./fake_checkout.ts";

export interface Face {
  readonly name: string;
  /** Prepares the server; the address to open. */
  prepare(fake: FakeCheckout): string;
  /** What is pressed once it is there. */
  readonly press?: string;
  /** A text of the face in English, to wait for. */
  readonly text: string;
}

const { STRIPE_CHECKOUT, WECHAT_NATIVE, SANDBOX } = PaymentMethod;
const at = ({ id, secret }: FakeSession): string => `/checkout/${id}#${secret}`;
const payTime = timestampFromMs(Date.now() - 60_000);

export const FACES: readonly Face[] = [
  {
    name: "choose",
    prepare: (fake) => {
      fake.offer.paymentMethods = fake.offer.paymentMethods.filter(({ test }) => !test);
      return at(fake.make());
    },
    text: "Starter",
  },
  {
    name: "choose_test",
    prepare: (fake) => {
      fake.offer.paymentMethods = fake.offer.paymentMethods.filter(({ test }) => test);
      return at(fake.make({}, false));
    },
    text: "TEST",
  },
  {
    name: "choose_custom_auto",
    prepare: (fake) => {
      fake.offer.autoTopUp = {
        $typeName: "tokenbill.v1.AutoTopUpOffer",
        thresholdCredits: "100000",
        dailyMax: { $typeName: "tokenbill.v1.Money", currency: "USD", amount: "200.00" },
        enabled: false,
        savedMethodLabel: "",
      };
      fake.offer.payerWallet!.wallet!.debt = "123.5";
      return at(fake.make());
    },
    text: "Top up automatically",
  },
  {
    name: "choose_auto_on",
    prepare: (fake) => {
      fake.offer.autoTopUp = {
        $typeName: "tokenbill.v1.AutoTopUpOffer",
        thresholdCredits: "100000",
        dailyMax: { $typeName: "tokenbill.v1.Money", currency: "USD", amount: "200.00" },
        enabled: true,
        savedMethodLabel: "Visa 4242",
      };
      return at(fake.make());
    },
    text: "Automatic top-up is on",
  },
  {
    name: "declined",
    prepare: (fake) => at(fake.chosen(CheckoutState.FAILED, STRIPE_CHECKOUT, { failure: "insufficient_funds" })),
    text: "The payment was declined.",
  },
  { name: "scan", prepare: (fake) => at(fake.chosen(CheckoutState.PENDING, WECHAT_NATIVE)), text: "Scan with WeChat" },
  {
    name: "waiting",
    prepare: (fake) => at(fake.chosen(CheckoutState.PENDING, SANDBOX)),
    text: "Your payment is not finished yet",
  },
  { name: "settling", prepare: (fake) => at(fake.chosen(CheckoutState.PAID, STRIPE_CHECKOUT)), text: "on the way" },
  {
    name: "problem",
    prepare: (fake) => at(fake.chosen(CheckoutState.PAID, STRIPE_CHECKOUT, { problem: "wrong_amount", payTime })),
    text: "Credits still to come",
  },
  {
    name: "success",
    prepare: (fake) => {
      const made = fake.chosen(CheckoutState.PENDING, STRIPE_CHECKOUT, { returnUrl: "https://app.example.com/back" });
      fake.fulfil(made.id);
      return at(made);
    },
    text: "New balance",
  },
  { name: "expired", prepare: (fake) => at(fake.make({ state: CheckoutState.EXPIRED })), text: "has expired" },
  { name: "canceled", prepare: (fake) => at(fake.make({ state: CheckoutState.CANCELED })), text: "was cancelled" },
  {
    name: "refunded",
    prepare: (fake) =>
      at(
        fake.chosen(CheckoutState.PARTIALLY_REFUNDED, STRIPE_CHECKOUT, {
          payTime,
          refunded: { currency: "USD", amount: "20.00" },
        }),
      ),
    text: "refunded in part",
  },
  {
    name: "disputed",
    prepare: (fake) => at(fake.chosen(CheckoutState.DISPUTED, STRIPE_CHECKOUT, { payTime })),
    text: "is disputed",
  },
  { name: "closed", prepare: (fake) => `/checkout/${fake.make().id}`, text: "cannot be opened here" },
  { name: "bad_link", prepare: () => "/checkout?ve_id=nonsense", text: "This link does not work" },
  {
    name: "throttled",
    prepare: (fake) => {
      fake.throttled = true;
      return "/checkout?ve_id=ve_test";
    },
    text: "Too many tries",
  },
];
