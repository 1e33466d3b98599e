/** ShareRates: wire <-> rate_sync.ts. */

import type { RateClient } from "../control_plane.ts";
import type { ShareRates } from "./rate_sync.ts";
import type { RateKind } from "./rates.ts";

export function shareCall(client: RateClient, nodeId: string, bootId: string): ShareRates {
  return async (lines, { final, withTight }, timeoutMs) => {
    const uses = lines.map(({ account: { subject, kind, limit }, figures: { used, held, want } }) => ({
      subjectId: subject,
      kind,
      limit: BigInt(limit),
      used: BigInt(used),
      held: BigInt(held),
      want: BigInt(want),
    }));
    const request = { nodeId, bootId, uses, final, withTight };
    const { grants, shared, nodes, ttlMs, tight } = await client.shareRates(request, { timeoutMs });
    return {
      grants: grants.map(({ allowance, remaining }) => ({
        allowance: Number(allowance),
        remaining: Number(remaining),
      })),
      shared,
      nodes,
      ttlMs,
      tight: tight.map(({ subjectId, kind }) => ({ subject: subjectId, kind: kind as number as RateKind })),
    };
  };
}
