/** What nodes see now, for explanations: from the board of upstreams' health and the shared rate limits. */

import { HealthCause } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import type { LiveSources } from "./api/dry_run_calls.ts";
import type { RateTerms, RatesView } from "./domain/dry_run.ts";
import type { SubjectHealth } from "./health/board.ts";

const CAUSES: Readonly<Record<HealthCause, string>> = {
  [HealthCause.UNSPECIFIED]: "",
  [HealthCause.FAILURE]: "it failed",
  [HealthCause.RATE_LIMIT]: "rate limit",
  [HealthCause.ACCOUNT]: "it refuses the account or the model",
};

export function liveSources(
  health: (id: string) => SubjectHealth | null,
  rates: (subject: string, limits: RateTerms) => Promise<RatesView>,
): LiveSources {
  return {
    health(id) {
      const seen = health(id);
      return seen === null ? null : { ...seen, cause: CAUSES[seen.cause] ?? "" };
    },
    rates,
  };
}
