/** What the head of an answer says of how it came about, where the VE wants that. */

import { formatCredits } from "../core/credits.ts";
import type { Admitted } from "./admitted.ts";
import type { Attempt } from "./attempt.ts";
import { billReported } from "./settlement.ts";

/** Upstream names can hold what a header cannot. */
function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, "?").slice(0, 256);
}

/**
 * Adds to the headers of the answer. The cost is there only where it is known before the head leaves: for answers that are
 * not streamed, are kept whole, and report their usage.
 */
export function addExplanation(request: Admitted, attempt: Attempt, attempts: number): void {
  const { headers, id, stream } = request;
  const { pm, bill, relay } = attempt;
  headers.push("x-tokenbill-request-id", id, "x-tokenbill-model", headerText(pm.upstreamName));
  headers.push("x-tokenbill-physical-model", pm.id);
  // Otherwise it is there only when there were several.
  if (attempts === 1) headers.push("x-tokenbill-attempts", "1");
  if (stream) return;
  const delivered = relay!.delivered();
  const known = delivered.usage !== null || !request.endpoint.estimated;
  const billed = known ? billReported(bill, request, delivered, true) : null;
  if (billed !== null) headers.push("x-tokenbill-credits", formatCredits(billed.credits));
}
