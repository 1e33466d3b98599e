/** AutoTopUpService: what is bought automatically for a VE. The payment method comes from a payer, in a checkout. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { parseCredits } from "../../core/credits.ts";
import {
  type AutoTopUp,
  AutoTopUpSchema,
  type AutoTopUpService,
  DeleteAutoTopUpResponseSchema,
  GetAutoTopUpResponseSchema,
  type SetAutoTopUpRequest,
  SetAutoTopUpResponseSchema,
} from "../../proto/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { unfit } from "../domain/auto_top_up.ts";
import { DomainError, invalidField, notFound } from "../domain/errors.ts";
import { formatAmount, parseAmount } from "../domain/money.ts";
import {
  type AutoTopUpChange,
  type AutoTopUpRow,
  changeAutoTopUp,
  deleteAutoTopUp,
  findAutoTopUp,
  keepPackToBuy,
  lockAutoTopUp,
  newestAutomaticSession,
} from "../store/auto_top_up.ts";
import { readCheckoutSession } from "../store/checkout_session.ts";
import { keepVirtualEndpoint, readVirtualEndpoint } from "../store/virtual_endpoint.ts";
import { type Deps, principal, requireMerchant } from "./context.ts";
import { canonicalCredits, checkEtag } from "./convert.ts";

function toAutoTopUp(row: AutoTopUpRow, newestSessionId: string | null): AutoTopUp {
  return create(AutoTopUpSchema, {
    veId: row.ve_id,
    enabled: row.enabled,
    thresholdCredits: canonicalCredits(row.threshold),
    creditPackId: row.pack_id,
    dailyMax: { currency: row.currency, amount: formatAmount({ currency: row.currency, minor: row.daily_minor }) },
    paymentAccountId: row.account_id,
    savedMethodLabel: row.label,
    lastFailure: row.last_failure,
    failures: row.failures,
    lastCheckoutSessionId: newestSessionId ?? "",
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
  });
}

function noAutoTopUp(): DomainError {
  return new DomainError("not_found", "there is no automatic top-up of this VE");
}

const UNFIT_WORDS = {
  not_offered: ["credit_pack_id", "automatic top-ups are not offered"],
  custom_amount: ["credit_pack_id", "the payer chooses its amount: give one with a fixed price"],
  other_currency: ["daily_max.currency", "it is not the currency of the pack"],
  above_daily_max: ["daily_max.amount", "the pack costs more than this, so that it would never be bought"],
} as const;

/** What is asked for, if it can ever buy. @throws DomainError invalid_field, not_found */
async function changeOf(tx: Tx, merchantId: string, request: SetAutoTopUpRequest): Promise<AutoTopUpChange> {
  const { enabled, creditPackId: packId } = request;
  const threshold = parseCredits(request.thresholdCredits);
  if (threshold === 0n) throw invalidField("threshold_credits", "give more than 0: below that nothing is left", "gt");
  const { currency, amount } = request.dailyMax!;
  const minor = parseAmount(currency, amount);
  if (minor === null || minor === 0n)
    throw invalidField(
      "daily_max",
      "give an amount above 0 of a currency in ISO 4217, with no more digits than it has",
      "money",
    );
  const pack = await keepPackToBuy(tx, merchantId, packId);
  if (pack === null)
    throw new DomainError("not_found", "credit_pack_id: there is no CreditPack with this id", {
      field: "credit_pack_id",
    });
  if (pack.disabled && enabled)
    throw invalidField("credit_pack_id", "the pack is disabled: enable it first", "disabled");
  const dailyMax = { currency, minor };
  const why = unfit(pack.price, { threshold, dailyMax });
  if (why !== null) throw invalidField(UNFIT_WORDS[why][0], UNFIT_WORDS[why][1], why);
  return { enabled, threshold, packId, dailyMax };
}

/**
 * The merchant whose VE it is: the caller, or that of a payer whose session is of this VE and shows the wallet.
 * @throws DomainError wrong_scope, not_found
 */
async function ownerFor(deps: Deps, ctx: Pick<HandlerContext, "values">, veId: string): Promise<string> {
  const caller = principal(ctx);
  if (caller.kind !== "payer") return requireMerchant(ctx);
  const session = await readCheckoutSession(deps.db, caller.merchantId, caller.sessionId);
  if (session.ve_id !== veId) throw notFound("VE");
  if (!session.linked)
    throw new DomainError(
      "wrong_scope",
      "this session does not show the wallet: open the checkout page by a fresh link",
    );
  return caller.merchantId;
}

export function autoTopUpService(deps: Deps): ServiceImpl<typeof AutoTopUpService> {
  return {
    async getAutoTopUp({ veId }, ctx) {
      const ve = await readVirtualEndpoint(deps.db, requireMerchant(ctx), veId);
      const row = await findAutoTopUp(deps.db, ve.id);
      if (row === null) throw noAutoTopUp();
      const newest = await newestAutomaticSession(deps.db, ve.id);
      return create(GetAutoTopUpResponseSchema, { autoTopUp: toAutoTopUp(row, newest) });
    },

    async setAutoTopUp(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const ve = await keepVirtualEndpoint(tx, merchantId, request.veId);
        const change = await changeOf(tx, merchantId, request);
        const row = await lockAutoTopUp(tx, ve.id);
        if (row === null)
          throw new DomainError(
            "wrong_state",
            "no payment method is saved for this VE: a payer saves one in a checkout, by agreeing to automatic top-ups",
          );
        checkEtag(request.etag, row.version);
        const changed = await changeAutoTopUp(tx, ve.id, change, new Date(deps.now()));
        const newest = await newestAutomaticSession(tx, ve.id);
        return create(SetAutoTopUpResponseSchema, { autoTopUp: toAutoTopUp(changed, newest) });
      });
    },

    async deleteAutoTopUp({ veId }, ctx) {
      const merchantId = await ownerFor(deps, ctx, veId);
      await deps.db.tx(async (tx) => {
        const ve = await keepVirtualEndpoint(tx, merchantId, veId);
        if (!(await deleteAutoTopUp(tx, ve.id, new Date(deps.now())))) throw noAutoTopUp();
      });
      return create(DeleteAutoTopUpResponseSchema);
    },
  };
}
