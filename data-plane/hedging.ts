/** PURE but for the hold. What a hedged request holds besides: the input at the target that will lose. */

import type { Admitted } from "./admitted.ts";
import type { Budget, Reservation } from "./budget/budget.ts";
import { inputCost } from "./budget/estimate.ts";
import { maxCredits } from "../core/credits.ts";
import type { RoutePm } from "./route_types.ts";

/** Either of the two may lose. Null: the wallet does not cover it at once, and nothing is asked for: no hedge. */
export function hedgeReservation(budget: Budget, request: Admitted, a: RoutePm, b: RoutePm): Reservation | null {
  const { ve } = request.key;
  const inputOf = ({ rates }: RoutePm): bigint => inputCost(request.size, rates!, ve.strict);
  return budget.reserve(ve.id, maxCredits(inputOf(a), inputOf(b)));
}
