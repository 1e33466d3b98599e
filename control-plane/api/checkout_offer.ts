/** What can be bought in a checkout, and how it can be paid. StartPayment takes nothing that is not offered here. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import {
  type AutoTopUpOfferSchema,
  type CheckoutOffer,
  CheckoutOfferSchema,
  type PayerWallet,
  PayerWalletSchema,
  type PaymentMethodOffer,
  PaymentMethodOfferSchema,
} from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import { sandboxAvailable } from "../payments/sandbox_available.ts";
import type { Tx } from "../db/database.ts";
import { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { readCheckoutSettings } from "../store/checkout_settings.ts";
import type { CheckoutSessionRow } from "../store/checkout_session.ts";
import { type CheckoutVeRow } from "../store/checkout_ve.ts";
import { findAutoTopUp } from "../store/auto_top_up.ts";
import { type CreditPackRow, listCreditPacks } from "../store/credit_pack.ts";
import { readMerchant } from "../store/merchant.ts";
import { anyRealAccount, listPaymentAccounts, type PaymentAccountRow } from "../store/payment_account.ts";
import { summarize } from "../store/usage_query.ts";
import { readWallet } from "../store/wallet.ts";
import { topUpTerms } from "./checkout_settings_calls.ts";
import { canonicalCredits, toWallet } from "./convert.ts";
import { CREDIT_PACKS_PER_MERCHANT_MAX } from "./credit_pack_service.ts";
import { type SoldPack, toSoldPack } from "./credit_pack_wire.ts";
import { toMoney } from "./money_fields.ts";
import { PAYMENT_ACCOUNTS_PER_MERCHANT_MAX } from "./payment_account_service.ts";

/** Stands for the sandbox's account, which is made when it is first used. */
export const SANDBOX_ACCOUNT_ID = "sandbox";

const USAGE_US = 30n * 86_400_000_000n;

function examplePack(dollars: number, credits: string): SoldPack {
  const amount = { currency: "USD", amount_minor: BigInt(dollars) * 100n, min_minor: null, max_minor: null };
  return { id: `pack_example_${dollars}`, label: "Example", ...amount, credits, bonus: "0", position: 0 };
}

/** For a merchant who has made none yet, so that a fresh home can be tried out. Only the sandbox takes money for them. */
export const EXAMPLE_PACKS: readonly SoldPack[] = [
  examplePack(10, "1000000"),
  examplePack(50, "5000000"),
  examplePack(100, "10000000"),
];

export interface OfferedMethod {
  /** As payers name it. */
  readonly accountId: string;
  /** Null: the sandbox, not used yet. */
  readonly account: PaymentAccountRow | null;
  readonly processor: PaymentProcessor;
  readonly method: PaymentMethod;
  readonly test: boolean;
  /** Empty: all. */
  readonly currencies: readonly string[];
  readonly canSave: boolean;
}

export interface Offered {
  readonly packs: readonly SoldPack[];
  readonly methods: readonly OfferedMethod[];
}

const NOTHING: Offered = { packs: [], methods: [] };

/** Why nothing can be bought for a VE now, in a word; null: it can. `ve` null: it is gone. */
export function closedBecause(ve: CheckoutVeRow | null): string | null {
  if (ve === null) return "deleted";
  if (ve.template) return "template";
  if (ve.merchant_disabled || ve.disabled) return "disabled";
  return ve.frozen ? "frozen" : null;
}

export function sellerOf(ve: CheckoutVeRow): string {
  return ve.display_name === "" ? ve.merchant_name : ve.display_name;
}

function methodsOf(deps: CheckoutDeps, account: PaymentAccountRow): OfferedMethod[] {
  const processor = deps.processors.of(account.processor);
  // A saved method is charged without the payer, who cannot choose it.
  const methods = account.methods.filter((method) => method !== PaymentMethod.STRIPE_SAVED);
  return methods.map((method) => ({
    accountId: account.id,
    account,
    processor: account.processor,
    method,
    test: account.test,
    currencies: processor.currencies(method),
    canSave: processor.canSave(method),
  }));
}

function sandboxMethod(deps: CheckoutDeps, account: PaymentAccountRow | null): OfferedMethod {
  const processor = deps.processors.of(PaymentProcessor.SANDBOX);
  return {
    accountId: SANDBOX_ACCOUNT_ID,
    account,
    processor: PaymentProcessor.SANDBOX,
    method: PaymentMethod.SANDBOX,
    test: true,
    currencies: processor.currencies(PaymentMethod.SANDBOX),
    canSave: processor.canSave(PaymentMethod.SANDBOX),
  };
}

function byPosition(a: CreditPackRow, b: CreditPackRow): number {
  if (a.position !== b.position) return a.position - b.position;
  if (a.amount_minor !== b.amount_minor) return a.amount_minor < b.amount_minor ? -1 : 1;
  return a.n < b.n ? -1 : 1;
}

/** Those of the VE's template if it has some, else those for all. */
function packsFor(ve: CheckoutVeRow, packs: readonly CreditPackRow[]): SoldPack[] {
  const enabled = packs.filter(({ disabled }) => !disabled).toSorted(byPosition);
  const own = ve.ve_template_id === null ? [] : enabled.filter((pack) => pack.ve_template_id === ve.ve_template_id);
  return own.length > 0 ? own : enabled.filter((pack) => pack.ve_template_id === null);
}

/** Nothing is offered for a VE that is closed. */
export async function loadOffered(deps: CheckoutDeps, tx: Tx, ve: CheckoutVeRow | null): Promise<Offered> {
  if (ve === null || closedBecause(ve) !== null) return NOTHING;
  const accounts = await listPaymentAccounts(tx, ve.merchant_id, 0n, PAYMENT_ACCOUNTS_PER_MERCHANT_MAX + 1);
  const packs = await listCreditPacks(tx, ve.merchant_id, "", 0n, CREDIT_PACKS_PER_MERCHANT_MAX);
  const sandbox = accounts.find(({ processor }) => processor === PaymentProcessor.SANDBOX) ?? null;
  const real = accounts.filter((account) => account !== sandbox);
  const hasSandbox = sandbox?.disabled !== true && sandboxAvailable(deps.settings, await anyRealAccount(tx));
  const methods = real.filter(({ disabled }) => !disabled).flatMap((account) => methodsOf(deps, account));
  if (hasSandbox) methods.push(sandboxMethod(deps, sandbox));
  const needsExamples = packs.length === 0 && real.length === 0 && hasSandbox;
  return { packs: needsExamples ? EXAMPLE_PACKS : packsFor(ve, packs), methods };
}

function toMethodOffer(deps: CheckoutDeps, sessionId: string, offered: OfferedMethod): PaymentMethodOffer {
  const { account, method } = offered;
  const returnUrl = `${deps.settings.publicUrl}/checkout/${sessionId}`;
  return create(PaymentMethodOfferSchema, {
    paymentAccountId: offered.accountId,
    processor: offered.processor,
    method,
    test: offered.test,
    currencies: [...offered.currencies],
    canSave: offered.canSave,
    // Credentials are opened for those alone that need it.
    authorizeUrl:
      account !== null && method === PaymentMethod.WECHAT_JSAPI
        ? deps.processors.authorizeUrl(account, method, returnUrl)
        : "",
  });
}

async function loadPayerWallet(deps: CheckoutDeps, tx: Tx, ve: CheckoutVeRow): Promise<PayerWallet> {
  const wallet = await readWallet(tx, ve.id);
  // Every VE is made with a wallet; one without is a damaged database.
  if (wallet === null) throw new Error(`the VE ${ve.id} has no wallet`);
  const all = { logicalModel: "", physicalModelId: "", accessKeyId: "", endUs: null };
  const startUs = BigInt(deps.now()) * 1000n - USAGE_US;
  const [usage] = await summarize(tx, { merchantId: ve.merchant_id, veId: ve.id, startUs, ...all }, [], null, 1);
  return create(PayerWalletSchema, {
    wallet: toWallet(wallet, parseCredits(ve.low_balance)),
    veName: ve.name,
    requests: usage?.requests ?? 0n,
    creditsSpent: formatCredits(usage?.credits ?? 0n),
  });
}

/** What payers can agree to, or have agreed to; undefined: neither. */
async function loadTopUpOffer(
  tx: Tx,
  ve: CheckoutVeRow,
): Promise<MessageInitShape<typeof AutoTopUpOfferSchema> | undefined> {
  const agreed = await findAutoTopUp(tx, ve.id);
  if (agreed === null) return ve.auto_top_up_offered ? topUpTerms(ve) : undefined;
  return {
    thresholdCredits: canonicalCredits(agreed.threshold),
    dailyMax: toMoney(agreed.currency, agreed.daily_minor),
    enabled: agreed.enabled,
    savedMethodLabel: agreed.label,
  };
}

/** The seller of a session whose VE is gone. */
async function sellerWithoutVe(tx: Tx, merchantId: string): Promise<string> {
  const { display_name: name } = await readCheckoutSettings(tx, merchantId);
  return name === "" ? (await readMerchant(tx, merchantId)).name : name;
}

/** What a checkout page shows. `seesWallet`: whoever asks may see the wallet. */
export async function loadOffer(
  deps: CheckoutDeps,
  tx: Tx,
  session: CheckoutSessionRow,
  ve: CheckoutVeRow | null,
  seesWallet: boolean,
): Promise<CheckoutOffer> {
  const { packs, methods } = await loadOffered(deps, tx, ve);
  return create(CheckoutOfferSchema, {
    merchantName: ve === null ? await sellerWithoutVe(tx, session.merchant_id) : sellerOf(ve),
    creditPacks: packs.map(toSoldPack),
    paymentMethods: methods.map((method) => toMethodOffer(deps, session.id, method)),
    payerWallet: ve !== null && seesWallet ? await loadPayerWallet(deps, tx, ve) : undefined,
    autoTopUp: ve !== null && seesWallet ? await loadTopUpOffer(tx, ve) : undefined,
    time: timestampFromMs(deps.now()),
  });
}
