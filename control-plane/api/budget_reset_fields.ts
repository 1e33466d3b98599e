/** The budget reset of a VE: request over template, and when it is due. */

import { create } from "@bufbuild/protobuf";
import { parseCredits } from "../../core/credits.ts";
import { type Period, periodOf } from "../../core/periods.ts";
import type { Period as WirePeriod } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { type BudgetReset, BudgetResetSchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import type {
  CreateVirtualEndpointRequest,
  UpdateVirtualEndpointRequest,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import { invalidField } from "../domain/errors.ts";
import type { VirtualEndpointFields, VirtualEndpointRow } from "../store/virtual_endpoint.ts";
import { canonicalCredits } from "./convert.ts";

export type BudgetFields = Pick<
  VirtualEndpointFields,
  "budget_reset_credits" | "budget_reset_period" | "next_budget_reset_at"
>;

const NO_BUDGET: BudgetFields = { budget_reset_credits: null, budget_reset_period: null, next_budget_reset_at: null };

export function toBudgetReset(row: BudgetFields): BudgetReset | undefined {
  const { budget_reset_credits: credits, budget_reset_period: period } = row;
  if (credits === null || period === null) return undefined;
  return create(BudgetResetSchema, { credits: canonicalCredits(credits), resetPeriod: period as WirePeriod });
}

/** @throws DomainError invalid_field */
function checkCredits({ credits }: BudgetReset): string {
  if (parseCredits(credits) > 0n) return credits;
  throw invalidField("budget_reset.credits", "give an amount above 0", "not_zero");
}

function endOf(period: number, timeZone: string, nowMs: number): Date {
  return new Date(periodOf(period as Period, timeZone, nowMs).endMs);
}

/** Of a new VE: the request's, else the template's; from the start of the next period on. @throws DomainError invalid_field */
export function newBudget(
  request: CreateVirtualEndpointRequest,
  template: VirtualEndpointRow | null,
  timeZone: string,
  nowMs: number,
): BudgetFields {
  const asked = request.budgetReset;
  const credits = asked === undefined ? (template?.budget_reset_credits ?? null) : checkCredits(asked);
  const period = asked === undefined ? (template?.budget_reset_period ?? null) : asked.resetPeriod;
  if (credits === null || period === null) return NO_BUDGET;
  const next = request.template ? null : endOf(period, timeZone, nowMs);
  return { budget_reset_credits: credits, budget_reset_period: period, next_budget_reset_at: next };
}

/** Of a locked VE after an update. With the same period a reset that is due stays due. @throws DomainError invalid_field */
export function changedBudget(
  row: VirtualEndpointRow,
  request: UpdateVirtualEndpointRequest,
  timeZone: string,
  nowMs: number,
): BudgetFields {
  const asked = request.budgetReset;
  if (request.removeBudgetReset) {
    if (asked === undefined) return NO_BUDGET;
    throw invalidField("remove_budget_reset", "set a budget reset or remove it, not both", "exclusive");
  }
  if (asked === undefined) {
    const { budget_reset_credits, budget_reset_period, next_budget_reset_at } = row;
    return { budget_reset_credits, budget_reset_period, next_budget_reset_at };
  }
  const same = row.budget_reset_period === asked.resetPeriod;
  const next = same ? row.next_budget_reset_at : row.template ? null : endOf(asked.resetPeriod, timeZone, nowMs);
  return {
    budget_reset_credits: checkCredits(asked),
    budget_reset_period: asked.resetPeriod,
    next_budget_reset_at: next,
  };
}
