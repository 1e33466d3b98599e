/** What nodes say about limits, and what they are answered: wire <-> domain. */

import { formatCredits, maxCredits, parseCredits } from "../../core/credits.ts";
import type { LimitRequest } from "../../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";
import type { LimitAnswer, LimitAsk, LimitId } from "../domain/limit_plan.ts";
import { limitKey, type LimitKind } from "../domain/limits.ts";

function amount(text: string): bigint {
  return text === "" ? 0n : parseCredits(text);
}

function keyOf({ physicalModelId, kind }: LimitId): string {
  return limitKey(physicalModelId, kind);
}

/** One ask for each limit: what a node says twice is taken together. */
export function toLimitAsks(requests: readonly LimitRequest[]): LimitAsk[] {
  const asks = new Map<string, LimitAsk>();
  for (const request of requests) {
    const ask: LimitAsk = {
      physicalModelId: request.physicalModelId,
      // UNSPECIFIED and unknown kinds do not pass validation.
      kind: request.kind as LimitKind,
      want: amount(request.want),
      need: amount(request.need),
      release: amount(request.release),
      burn: amount(request.burn),
    };
    const before = asks.get(keyOf(ask));
    const both = before && {
      ...ask,
      want: maxCredits(before.want, ask.want),
      need: maxCredits(before.need, ask.need),
      release: before.release + ask.release,
      burn: maxCredits(before.burn ?? 0n, ask.burn ?? 0n),
    };
    asks.set(keyOf(ask), both ?? ask);
  }
  return [...asks.values()];
}

/** The answers, with the later ones in place of those that they follow. */
export function withAnswers(answers: readonly LimitAnswer[], later: readonly LimitAnswer[]): LimitAnswer[] {
  const again = new Map(later.map((answer) => [keyOf(answer), answer]));
  return answers.map((answer) => again.get(keyOf(answer)) ?? answer);
}

export function toLimitState(answer: LimitAnswer) {
  return {
    physicalModelId: answer.physicalModelId,
    kind: answer.kind,
    granted: formatCredits(answer.granted),
    ttlMs: BigInt(answer.ttlMs),
    exhausted: answer.exhausted,
    resetUnixMs: BigInt(answer.endsMs ?? 0),
  };
}
