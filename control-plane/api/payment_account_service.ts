/** PaymentAccountService: a merchant's accounts at payment processors. */

import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type { PaymentMethod as WireMethod } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import {
  type PaymentAccount,
  PaymentAccountSchema,
  type PaymentCredentials,
  PaymentCredentialsSchema,
} from "../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import {
  type CreatePaymentAccountRequest,
  CreatePaymentAccountRequestSchema,
  CreatePaymentAccountResponseSchema,
  DeletePaymentAccountResponseSchema,
  GetPaymentAccountResponseSchema,
  ListPaymentAccountsResponseSchema,
  type PaymentAccountService,
  type PaymentMethodList,
  type UpdatePaymentAccountRequest,
  UpdatePaymentAccountResponseSchema,
} from "../../proto/gen/tokenbill/v1/payment_account_service_pb.ts";
import type { CheckoutDeps } from "../checkout/deps.ts";
import type { Tx } from "../db/database.ts";
import { type PaymentMethod, PaymentProcessor } from "../domain/checkout.ts";
import { notificationUrl } from "../domain/fulfilment.ts";
import { DomainError, invalidField, limitReached } from "../domain/errors.ts";
import type { CheckedCredentials } from "../payments/payment.ts";
import { lockMerchant } from "../store/merchant.ts";
import * as accounts from "../store/payment_account.ts";
import { checkoutSettingsCalls } from "./checkout_settings_calls.ts";
import { requireMerchant } from "./context.ts";
import { checkEtag, optionalTime } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";

const LIST = "payment_accounts";

/** The sandbox does not count. */
export const PAYMENT_ACCOUNTS_PER_MERCHANT_MAX = 20;

const PROCESSOR_OF_KIND = { stripe: PaymentProcessor.STRIPE, wechatPay: PaymentProcessor.WECHAT_PAY } as const;

function toPaymentAccount(deps: CheckoutDeps, row: accounts.PaymentAccountRow): PaymentAccount {
  return create(PaymentAccountSchema, {
    id: row.id,
    processor: row.processor,
    name: row.name,
    disabled: row.disabled,
    test: row.test,
    methods: row.methods as WireMethod[],
    hint: row.hint,
    notificationUrl:
      row.processor === PaymentProcessor.SANDBOX ? "" : notificationUrl(deps.settings.publicUrl, row.processor, row.id),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    lastNotificationTime: optionalTime(row.last_notified_at),
    etag: String(row.version),
  });
}

interface ReadCredentials extends CheckedCredentials {
  readonly processor: PaymentProcessor;
}

/** @throws DomainError invalid_field */
function readCredentials(deps: CheckoutDeps, credentials: PaymentCredentials): ReadCredentials {
  // The schema requires one of them.
  const processor = PROCESSOR_OF_KIND[credentials.kind.case!];
  const checked = deps.processors.of(processor).checkCredentials(toBinary(PaymentCredentialsSchema, credentials));
  return { ...checked, processor };
}

/** The methods that were asked for, or all. @throws DomainError invalid_field */
function chooseMethods(asked: PaymentMethodList | undefined, allowed: readonly PaymentMethod[]): PaymentMethod[] {
  if (asked === undefined) return [...allowed];
  return asked.methods.map((method, index) => {
    const known = allowed.find((one) => one === Number(method));
    if (known !== undefined) return known;
    throw invalidField(`methods.methods[${index}]`, "these credentials do not allow this way to pay", "not_allowed");
  });
}

/** What tells accounts apart, where credentials say it; keys of one account may change. */
function identityOf({ processor, test, accountIdentity, hint }: ReadCredentials): string {
  return JSON.stringify([processor, test, accountIdentity === undefined ? hint : accountIdentity]);
}

/** The credentials that a row has. */
function checkStored(deps: CheckoutDeps, row: accounts.PaymentAccountRow): ReadCredentials {
  const { credentials } = deps.processors.openAccount(row);
  return { ...deps.processors.of(row.processor).checkCredentials(credentials), processor: row.processor };
}

/** New credentials must be of the account that payments were made at. @throws DomainError invalid_field */
function replaceCredentials(
  deps: CheckoutDeps,
  row: accounts.PaymentAccountRow,
  credentials: PaymentCredentials,
): ReadCredentials {
  const read = readCredentials(deps, credentials);
  if (identityOf(read) === identityOf(checkStored(deps, row))) return read;
  throw invalidField(
    "credentials",
    "these are of another account: create a PaymentAccount for it, and disable this one",
    "other_account",
  );
}

/** @throws DomainError invalid_field */
function checkSandboxUpdate(request: UpdatePaymentAccountRequest): void {
  for (const field of ["name", "credentials", "methods"] as const)
    if (request[field] !== undefined) throw invalidField(field, "the sandbox can only be disabled", "sandbox");
}

function changedFields(
  deps: CheckoutDeps,
  row: accounts.PaymentAccountRow,
  request: UpdatePaymentAccountRequest,
): accounts.PaymentAccountFields {
  const disabled = request.disabled ?? row.disabled;
  if (row.processor === PaymentProcessor.SANDBOX) {
    checkSandboxUpdate(request);
    return { ...row, disabled };
  }
  const name = request.name ?? row.name;
  if (request.credentials === undefined) {
    const allowed = request.methods === undefined ? row.methods : checkStored(deps, row).methods;
    const methods = request.methods === undefined ? row.methods : chooseMethods(request.methods, allowed);
    return { ...row, name, disabled, methods };
  }
  const read = replaceCredentials(deps, row, request.credentials);
  // What new credentials do not allow any more goes by itself, unless the methods are named.
  const methods =
    request.methods === undefined
      ? row.methods.filter((method) => read.methods.includes(method))
      : chooseMethods(request.methods, read.methods);
  return {
    name,
    disabled,
    methods,
    credentials: deps.secrets.seal(read.credentials, row.id),
    test: read.test,
    hint: read.hint,
  };
}

async function countReal(tx: Tx, merchantId: string): Promise<number> {
  const rows = await accounts.listPaymentAccounts(tx, merchantId, 0n, PAYMENT_ACCOUNTS_PER_MERCHANT_MAX + 1);
  return rows.filter(({ processor }) => processor !== PaymentProcessor.SANDBOX).length;
}

async function createPaymentAccount(
  deps: CheckoutDeps,
  tx: Tx,
  merchantId: string,
  request: CreatePaymentAccountRequest,
): Promise<accounts.PaymentAccountRow> {
  const read = readCredentials(deps, request.credentials!);
  const methods = chooseMethods(request.methods, read.methods);
  // Locked, so that several at once do not exceed the limit together.
  await lockMerchant(tx, merchantId);
  if ((await countReal(tx, merchantId)) >= PAYMENT_ACCOUNTS_PER_MERCHANT_MAX) {
    throw limitReached(
      "payment_accounts_per_merchant",
      PAYMENT_ACCOUNTS_PER_MERCHANT_MAX,
      "the merchant has as many PaymentAccounts as it can have",
    );
  }
  const id = deps.newId("pay_");
  const row: accounts.NewPaymentAccount = {
    id,
    merchant_id: merchantId,
    processor: read.processor,
    name: request.name,
    credentials: deps.secrets.seal(read.credentials, id),
    methods,
    test: read.test,
    hint: read.hint,
    disabled: request.disabled,
  };
  return accounts.insertPaymentAccount(tx, row, new Date(deps.now()));
}

export function paymentAccountService(deps: CheckoutDeps): ServiceImpl<typeof PaymentAccountService> {
  return {
    async createPaymentAccount(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreatePaymentAccountRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreatePaymentAccount",
          request.requestId,
          bytes,
          CreatePaymentAccountResponseSchema,
          async () =>
            create(CreatePaymentAccountResponseSchema, {
              paymentAccount: toPaymentAccount(deps, await createPaymentAccount(deps, tx, merchantId, request)),
            }),
        ),
      );
    },

    async getPaymentAccount(request, ctx) {
      const row = await accounts.readPaymentAccount(deps.db, requireMerchant(ctx), request.id);
      return create(GetPaymentAccountResponseSchema, { paymentAccount: toPaymentAccount(deps, row) });
    },

    async listPaymentAccounts(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, merchantId, request.pageToken) ?? 0n;
      const rows = await accounts.listPaymentAccounts(deps.db, merchantId, after, size + 1);
      const page = toPage(rows, size, LIST, merchantId);
      return create(ListPaymentAccountsResponseSchema, {
        paymentAccounts: page.items.map((row) => toPaymentAccount(deps, row)),
        nextPageToken: page.nextPageToken,
      });
    },

    async updatePaymentAccount(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await accounts.lockPaymentAccount(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const fields = changedFields(deps, row, request);
        const changed = await accounts.updatePaymentAccount(tx, row.id, fields, new Date(deps.now()));
        return create(UpdatePaymentAccountResponseSchema, { paymentAccount: toPaymentAccount(deps, changed) });
      });
    },

    async deletePaymentAccount(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await accounts.lockPaymentAccount(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        if (row.processor === PaymentProcessor.SANDBOX)
          throw new DomainError("not_available", "the sandbox cannot be deleted: disable it instead");
        await accounts.deletePaymentAccount(tx, row.id);
      });
      return create(DeletePaymentAccountResponseSchema);
    },

    ...checkoutSettingsCalls(deps),
  };
}
