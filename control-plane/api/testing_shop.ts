/** A merchant who sells Credits, for tests of checkouts. */

import type { Database } from "../db/database.ts";
import { PaymentMethod } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import { startTestControlPlane, type TestControlPlane, type TestMerchant, type TestOptions } from "../testing.ts";
import { type Clients, clientsOf } from "./test_fixture.ts";

export const SANDBOX_CHOICE = {
  creditPackId: "pack_example_10",
  paymentAccountId: "sandbox",
  method: PaymentMethod.SANDBOX,
} as const;

export const STRIPE = { kind: { case: "stripe", value: { secretKey: "sk_live_shop1" } } } as const;

export interface Shop {
  readonly cp: TestControlPlane;
  readonly merchant: TestMerchant;
  readonly api: Clients;
  /** Somebody without credentials. */
  readonly stranger: Clients;
  /** A new VE of the merchant. */
  makeVe(fields?: object): Promise<string>;
  /** A session of a merchant, and its payer. */
  open(veId: string, fields?: object): Promise<{ id: string; secret: string; payer: Clients }>;
}

export async function openShop(db: Database, options: TestOptions = {}): Promise<Shop> {
  const cp = await startTestControlPlane(db, options);
  const merchant = await cp.makeMerchant("shop");
  return shopOf(cp, merchant);
}

export function shopOf(cp: TestControlPlane, merchant: TestMerchant): Shop {
  const api = clientsOf(cp, merchant.token);
  return {
    cp,
    merchant,
    api,
    stranger: clientsOf(cp, null),
    async makeVe(fields = {}) {
      const { virtualEndpoint } = await api.ves.createVirtualEndpoint({ name: "Ada", ...fields });
      return virtualEndpoint!.id;
    },
    async open(veId, fields = {}) {
      const { checkoutSession, secret } = await api.checkout.createCheckoutSession({ veId, ...fields });
      return { id: checkoutSession!.id, secret, payer: clientsOf(cp, secret) };
    },
  };
}
