/** CreditPackService: what payers can buy. */

import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { parseCredits } from "../../core/credits.ts";
import type { CustomAmount } from "../../proto/gen/tokenbill/v1/checkout_pb.ts";
import {
  type CreateCreditPackRequest,
  CreateCreditPackRequestSchema,
  CreateCreditPackResponseSchema,
  type CreditPackService,
  DeleteCreditPackResponseSchema,
  GetCreditPackResponseSchema,
  ListCreditPacksResponseSchema,
  type UpdateCreditPackRequest,
  UpdateCreditPackResponseSchema,
} from "../../proto/gen/tokenbill/v1/credit_pack_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { DomainError, inUse, invalidField, limitReached } from "../domain/errors.ts";
import { proportion } from "../domain/money.ts";
import { WALLET_CREDITS_MAX } from "../domain/wallet.ts";
import * as packs from "../store/credit_pack.ts";
import { lockMerchant } from "../store/merchant.ts";
import { keepVirtualEndpoint } from "../store/virtual_endpoint.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { toCreditPack } from "./credit_pack_wire.ts";
import { once, requestBytes } from "./idempotency.ts";
import { checkBounds, readAmount, readMoney } from "./money_fields.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";

const LIST = "credit_packs";

export const CREDIT_PACKS_PER_MERCHANT_MAX = 100;

/** The template that a pack is for, kept from deletion; null: it is for all. @throws DomainError not_found, invalid_field */
async function keepTemplate(tx: Tx, merchantId: string, id: string): Promise<string | null> {
  if (id === "") return null;
  const field = "ve_template_id";
  const row = await keepVirtualEndpoint(tx, merchantId, id).catch((error: unknown) => {
    if (!(error instanceof DomainError)) throw error;
    throw new DomainError("not_found", `${field}: there is no VE with this id`, { field });
  });
  if (!row.template) throw invalidField(field, "the VE is no template", "template");
  return row.id;
}

type Bounds = Pick<packs.CreditPackFields, "min_minor" | "max_minor">;

const FIXED: Bounds = { min_minor: null, max_minor: null };

/** @throws DomainError invalid_field */
function readBounds(currency: string, custom: CustomAmount): Bounds {
  const min = readAmount(currency, custom.minAmount, "custom_amount.min_amount");
  const max = readAmount(currency, custom.maxAmount, "custom_amount.max_amount");
  if (max < min) throw invalidField("custom_amount.max_amount", "must not be below min_amount", "bounds");
  return { min_minor: min, max_minor: max };
}

/** What holds for every pack, however it was made. @throws DomainError invalid_field */
function checkPack(pack: packs.CreditPackFields): void {
  const credits = parseCredits(pack.credits);
  if (credits === 0n) throw invalidField("credits", "must be above 0", "positive");
  const { currency, amount_minor: price, min_minor: min, max_minor: max } = pack;
  if (min === null || max === null) return;
  checkBounds(currency, price, min, max, "price.amount");
  if (proportion(credits, min, price) === 0n)
    throw invalidField("custom_amount.min_amount", "is so little that it brings no Credits", "no_credits");
  if (proportion(credits + parseCredits(pack.bonus), max, price) > WALLET_CREDITS_MAX)
    throw invalidField("custom_amount.max_amount", "brings more Credits than a wallet can hold", "wallet_credits");
}

function newFields(request: CreateCreditPackRequest): packs.CreditPackFields {
  const { currency, minor } = readMoney(request.price!, "price");
  const fields = {
    label: request.label,
    currency,
    amount_minor: minor,
    credits: request.credits,
    bonus: request.bonusCredits || "0",
    ...(request.customAmount === undefined ? FIXED : readBounds(currency, request.customAmount)),
    disabled: request.disabled,
    position: request.position,
  };
  checkPack(fields);
  return fields;
}

function changedBounds(row: packs.CreditPackRow, request: UpdateCreditPackRequest, currency: string): Bounds {
  if (request.removeCustomAmount) {
    if (request.customAmount === undefined) return FIXED;
    throw invalidField("remove_custom_amount", "not together with custom_amount", "exclusive");
  }
  if (request.customAmount !== undefined) return readBounds(currency, request.customAmount);
  if (row.min_minor !== null && currency !== row.currency)
    throw invalidField("custom_amount", "give the bounds in the new currency too", "currency");
  return row;
}

function changedFields(row: packs.CreditPackRow, request: UpdateCreditPackRequest): packs.CreditPackFields {
  const price =
    request.price === undefined
      ? { currency: row.currency, minor: row.amount_minor }
      : readMoney(request.price, "price");
  const bounds = changedBounds(row, request, price.currency);
  const fields = {
    label: request.label ?? row.label,
    currency: price.currency,
    amount_minor: price.minor,
    credits: request.credits ?? row.credits,
    bonus: request.bonusCredits ?? row.bonus,
    min_minor: bounds.min_minor,
    max_minor: bounds.max_minor,
    disabled: request.disabled ?? row.disabled,
    position: request.position ?? row.position,
  };
  checkPack(fields);
  return fields;
}

/** An automatic top-up needs a fixed price, in the currency that was agreed to. @throws DomainError in_use */
async function checkBuyer(tx: Tx, row: packs.CreditPackRow, fields: packs.CreditPackFields): Promise<void> {
  if (fields.min_minor === null && fields.currency === row.currency) return;
  const buyer = await packs.findPackBuyer(tx, row.id);
  if (buyer !== null) throw inUse("CreditPack", buyer, packs.PACK_BUYER);
}

async function createCreditPack(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  request: CreateCreditPackRequest,
): Promise<packs.CreditPackRow> {
  const fields = newFields(request);
  // Locked, so that several at once do not exceed the limit together.
  await lockMerchant(tx, merchantId);
  if ((await packs.countCreditPacks(tx, merchantId)) >= CREDIT_PACKS_PER_MERCHANT_MAX) {
    throw limitReached(
      "credit_packs_per_merchant",
      CREDIT_PACKS_PER_MERCHANT_MAX,
      "the merchant has as many CreditPacks as it can have: delete one first",
    );
  }
  const templateId = await keepTemplate(tx, merchantId, request.veTemplateId);
  const row = { ...fields, id: deps.newId("pack_"), merchant_id: merchantId, ve_template_id: templateId };
  return packs.insertCreditPack(tx, row, new Date(deps.now()));
}

export function creditPackService(deps: Deps): ServiceImpl<typeof CreditPackService> {
  return {
    async createCreditPack(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreateCreditPackRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateCreditPack",
          request.requestId,
          bytes,
          CreateCreditPackResponseSchema,
          async () =>
            create(CreateCreditPackResponseSchema, {
              creditPack: toCreditPack(await createCreditPack(deps, tx, merchantId, request)),
            }),
        ),
      );
    },

    async getCreditPack(request, ctx) {
      const row = await packs.readCreditPack(deps.db, requireMerchant(ctx), request.id);
      return create(GetCreditPackResponseSchema, { creditPack: toCreditPack(row) });
    },

    async listCreditPacks(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const filterKey = `${merchantId}/${request.veTemplateId}`;
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, filterKey, request.pageToken) ?? 0n;
      const rows = await packs.listCreditPacks(deps.db, merchantId, request.veTemplateId, after, size + 1);
      const page = toPage(rows, size, LIST, filterKey);
      return create(ListCreditPacksResponseSchema, {
        creditPacks: page.items.map(toCreditPack),
        nextPageToken: page.nextPageToken,
      });
    },

    async updateCreditPack(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await packs.lockCreditPack(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const fields = changedFields(row, request);
        await checkBuyer(tx, row, fields);
        const changed = await packs.updateCreditPack(tx, row.id, fields, new Date(deps.now()));
        return create(UpdateCreditPackResponseSchema, { creditPack: toCreditPack(changed) });
      });
    },

    async deleteCreditPack(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await packs.lockCreditPack(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const buyer = await packs.findPackBuyer(tx, row.id);
        if (buyer !== null) throw inUse("CreditPack", buyer, packs.PACK_BUYER);
        await packs.deleteCreditPack(tx, row.id);
      });
      return create(DeleteCreditPackResponseSchema);
    },
  };
}
