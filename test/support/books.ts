/** Holds what clients were given against the books, through the public API. */

import { AuditState, paginate, type RequestRecord, type TokenBill } from "../../clients/ts/src/index.ts";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { until } from "./part.ts";

const PAGE = 1_000;

/** The request log of a VE, whole. */
export async function readRequests(tb: TokenBill, veId: string): Promise<RequestRecord[]> {
  const all: RequestRecord[] = [];
  for await (const request of paginate(
    (pageToken) => tb.usage.listRequests({ filter: { veId }, pageToken, pageSize: PAGE }),
    (page) => page.requests,
  )) {
    all.push(request);
  }
  return all;
}

/** Waits until all these ids are in the request log, and returns the log. @throws when one is missing, or there twice */
export async function untilLogged(tb: TokenBill, veId: string, ids: Iterable<string>, timeoutMs = 30_000) {
  const wanted = [...ids];
  const log = await until(
    "every request is in the log",
    async () => {
      const requests = await readRequests(tb, veId);
      const known = new Set(requests.map(({ id }) => id));
      return wanted.every((id) => known.has(id)) && requests;
    },
    timeoutMs,
  );
  if (new Set(log.map(({ id }) => id)).size !== log.length) throw new Error("a request is in the log twice");
  return log;
}

/** The sum of a log, as the wallet must have it settled. */
export function sumOf(requests: readonly RequestRecord[]): string {
  return formatCredits(requests.reduce((sum, { credits }) => sum + parseCredits(credits), 0n));
}

/** A deep audit. @throws when it finds anything broken */
export async function auditDeep(operator: TokenBill): Promise<void> {
  let { auditRun } = await operator.audit.runAudit({ deep: true });
  const { id } = auditRun!;
  await until("the audit is over", async () => {
    ({ auditRun } = await operator.audit.getAuditRun({ id }));
    return auditRun!.state !== AuditState.RUNNING;
  });
  if (auditRun!.state !== AuditState.CLEAN) throw new Error(`the audit found: ${JSON.stringify(auditRun!.breaks)}`);
}
