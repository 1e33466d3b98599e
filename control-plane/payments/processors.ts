/** The processors of this deployment, and the merchants' accounts at them, opened. */

import type { PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import type { Secrets } from "../secrets.ts";
import type { PaymentAccountRow } from "../store/payment_account.ts";
import type { OpenAccount, Processor, ProcessorAccount } from "./payment.ts";

export interface Processors {
  /** @throws RangeError if this deployment has no such processor */
  of(processor: PaymentProcessor): Processor;
  /** Decrypts the credentials. @throws SecretsError */
  openAccount(row: PaymentAccountRow): OpenAccount;
  open(row: PaymentAccountRow): ProcessorAccount;
  /** Where WeChat's browser gets the code that JSAPI needs; empty for other methods. */
  authorizeUrl(row: PaymentAccountRow, method: PaymentMethod, returnUrl: string): string;
}

export function createProcessors(secrets: Secrets, known: readonly Processor[]): Processors {
  const byNumber = new Map(known.map((processor) => [processor.processor, processor]));
  const of = (number: PaymentProcessor): Processor => {
    const processor = byNumber.get(number);
    if (processor === undefined) throw new RangeError(`there is no payment processor ${number}`);
    return processor;
  };
  const openAccount = (row: PaymentAccountRow): OpenAccount => ({
    id: row.id,
    merchantId: row.merchant_id,
    credentials: row.credentials === null ? new Uint8Array(0) : secrets.open(row.credentials, row.id),
    test: row.test,
  });
  return {
    of,
    openAccount,
    open: (row) => of(row.processor).open(openAccount(row)),
    authorizeUrl: (row, method, returnUrl) => of(row.processor).authorizeUrl(openAccount(row), method, returnUrl),
  };
}
