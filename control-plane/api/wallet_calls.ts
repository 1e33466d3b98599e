/** The calls of VirtualEndpointService that concern wallets. */

import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { type Credits, parseCredits } from "../../core/credits.ts";
import type { Wallet } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import {
  type AdjustCreditsRequest,
  AdjustCreditsRequestSchema,
  type AdjustCreditsResponse,
  AdjustCreditsResponseSchema,
  GetBalanceResponseSchema,
  type VirtualEndpointService,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { type CreditHints, recallUntil } from "../credit_recall.ts";
import { DomainError, invalidField } from "../domain/errors.ts";
import { notifyWallet } from "../store/feed_state.ts";
import * as ves from "../store/virtual_endpoint.ts";
import { adjustWallet, readWallet, type WalletRow } from "../store/wallet.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { signedCheckoutUrl, toWallet } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";

export function walletOf(row: ves.VirtualEndpointRow, wallet: WalletRow | null): Wallet {
  // Every VE is made with a wallet; one without is a damaged database.
  if (wallet === null) throw new Error(`the VE ${row.id} has no wallet`);
  return toWallet(wallet, parseCredits(row.low_balance));
}

/** @throws DomainError invalid_field when it is 0 */
function parseAdjustment(text: string): Credits {
  const credits = parseCredits(text);
  if (credits === 0n) throw invalidField("credits", "give an amount other than 0", "not_zero");
  return credits;
}

async function adjust(
  deps: Deps,
  merchantId: string,
  request: AdjustCreditsRequest,
  credits: Credits,
): Promise<AdjustCreditsResponse> {
  const bytes = requestBytes(AdjustCreditsRequestSchema, request);
  return deps.db.tx((tx) =>
    once(tx, deps, merchantId, "AdjustCredits", request.requestId, bytes, AdjustCreditsResponseSchema, async () => {
      const row = await ves.keepVirtualEndpoint(tx, merchantId, request.veId);
      if (row.template)
        throw invalidField("ve_id", "it is a template, which spends nothing and holds no Credits", "template");
      const transferId = deps.newId("tr_");
      const adjustment = { veId: row.id, merchantId, credits, reason: request.reason, transferId, now: deps.now() };
      const after = await adjustWallet(tx, adjustment);
      if (credits > 0n) await notifyWallet(tx, row.id, "topped_up");
      return create(AdjustCreditsResponseSchema, { wallet: walletOf(row, after), transferId });
    }),
  );
}

/** Whether the Credits that are missing may be in leases that nodes can give back. */
function mayBeLeased(error: unknown, credits: Credits): boolean {
  if (!(error instanceof DomainError) || error.code !== "insufficient_credits") return false;
  const { available, escrowed } = error.metadata;
  return parseCredits(available!) + parseCredits(escrowed!) >= -credits;
}

/** Takes Credits out; those that idle leases hold are asked back first. Each try is a transaction of its own. */
function withdraw(
  deps: Deps,
  hints: CreditHints,
  merchantId: string,
  request: AdjustCreditsRequest,
  credits: Credits,
): Promise<AdjustCreditsResponse> {
  const recall = () => notifyWallet(deps.db, request.veId, "recall");
  return recallUntil({ hints, subject: request.veId, recall, tryFirst: true }, async (isLast) => {
    try {
      return { result: await adjust(deps, merchantId, request, credits) };
    } catch (error) {
      if (isLast || !mayBeLeased(error, credits)) throw error;
      return undefined;
    }
  });
}

export function walletCalls(
  deps: Deps,
  hints: CreditHints,
): Pick<ServiceImpl<typeof VirtualEndpointService>, "getBalance" | "adjustCredits"> {
  return {
    async getBalance(request, ctx) {
      const row = await ves.readVirtualEndpoint(deps.db, requireMerchant(ctx), request.veId);
      const wallet = walletOf(row, await readWallet(deps.db, row.id));
      return create(GetBalanceResponseSchema, { wallet, checkoutUrl: signedCheckoutUrl(deps, row.id) });
    },

    async adjustCredits(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const credits = parseAdjustment(request.credits);
      if (credits > 0n) return adjust(deps, merchantId, request, credits);
      return withdraw(deps, hints, merchantId, request, credits);
    },
  };
}
