/** What the engine of checkouts is given, and what a payer chooses. */

import type { Credits } from "../../core/credits.ts";
import type { CreditHints } from "../credit_recall.ts";
import type { Deps } from "../api/context.ts";
import type { Tx } from "../db/database.ts";
import type { PaymentMethod } from "../domain/checkout.ts";
import type { SavedMethod } from "../payments/payment.ts";
import type { Processors } from "../payments/processors.ts";
import type { CheckoutSessionRow } from "../store/checkout_session.ts";
import type { PaymentRow } from "../store/payment.ts";
import type { PaymentAccountRow } from "../store/payment_account.ts";

export interface CheckoutDeps extends Deps {
  readonly processors: Processors;
  /** Where hints about wallets are heard: the feed. */
  readonly hints: CreditHints;
  /** Remembers a payment method for automatic top-ups, in the transaction that fulfils the payment that saved it. */
  saveMethod?(tx: Tx, payment: PaymentRow, session: CheckoutSessionRow, saved: SavedMethod): Promise<void>;
}

/** What is bought, and how it is paid. The caller has checked it: that it is offered, and that the VE can be topped up. */
export interface Choice {
  readonly packId: string;
  readonly label: string;
  readonly currency: string;
  /** Above 0. */
  readonly amountMinor: bigint;
  /** Above 0. */
  readonly credits: Credits;
  readonly bonus: Credits;
  readonly account: PaymentAccountRow;
  readonly method: PaymentMethod;
  /** Of WeChat; empty for other methods. */
  readonly wechatCode: string;
  readonly autoTopUp: boolean;
  readonly language: "en" | "zh";
  /** The payer's address; empty: not known. */
  readonly clientAddress: string;
  /** Who sells, as the payer's processor shows it. */
  readonly merchantName: string;
}

/**
 * The same text for the same choice, and another one for another. The pack comes first. Whatever changes what the
 * processor would be asked for makes it another one.
 */
export function choiceKey(choice: Choice): string {
  const { packId, currency, amountMinor, credits, bonus, account, method, autoTopUp, language } = choice;
  return [packId, currency, amountMinor, credits, bonus, account.id, method, autoTopUp, language].join("|");
}

/** The pack of a stored choice. */
export function packOf(choice: string): string {
  return choice.split("|", 1)[0]!;
}
