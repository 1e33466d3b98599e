/** PURE but for the hold. What a hedged request holds besides: the input at the target that will lose. */

import type { Admitted } from "./admitted.ts";
import type { Budget, Reservation } from "./budget/budget.ts";
import { maxCredits } from "../core/credits.ts";
import type { RoutePm } from "./route_types.ts";

/** Either of the two may lose. Null: the wallet does not cover it at once, and nothing is asked for: no hedge. */
export function hedgeReservation(budget: Budget, request: Admitted, a: RoutePm, b: RoutePm): Reservation | null {
  const { ve } = request.key;
  const bytes = BigInt(request.body.bytes.length);
  const inputOf = ({ rates }: RoutePm): bigint =>
    bytes * (ve.strict ? rates!.dearInput : rates!.input) + rates!.request;
  return budget.reserve(ve.id, maxCredits(inputOf(a), inputOf(b)));
}
