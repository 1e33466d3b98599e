/** The request log in words and numbers. */

import {
  AttemptKindSchema,
  AttemptResultSchema,
  OutcomeSchema,
  type RequestRecord,
} from "../../clients/ts/src/index.ts";

type EnumSchema = typeof OutcomeSchema | typeof AttemptResultSchema | typeof AttemptKindSchema;

/** A value's name in small letters, without the name of its enum. */
function nameOf(schema: EnumSchema, value: number): string {
  const name = schema.values.find(({ number }) => number === value)?.localName ?? String(value);
  return name.toLowerCase();
}

/** One request in a line. */
export function explain({ outcome, credits, attempts, errorCode }: RequestRecord): string {
  const tried = attempts.map(({ result, httpStatus, detail }) =>
    [nameOf(AttemptResultSchema, result), httpStatus || "", detail].filter((part) => part !== "").join(" "),
  );
  return `${nameOf(OutcomeSchema, outcome)} ${errorCode}, ${credits} Credits, attempts: ${tried.join(", ")}`;
}

function countBy<T>(items: Iterable<T>, name: (item: T) => string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const item of items) counts[name(item)] = (counts[name(item)] ?? 0) + 1;
  return counts;
}

export function attemptCounts(log: readonly RequestRecord[]) {
  const attempts = log.flatMap((request) => request.attempts);
  const failedOver = log.filter((request) => request.attempts.length > 1).length;
  return {
    results: countBy(attempts, ({ result }) => nameOf(AttemptResultSchema, result)),
    kinds: {
      requests: log.length,
      failed_over: failedOver,
      ...countBy(attempts, ({ kind }) => nameOf(AttemptKindSchema, kind)),
    },
  };
}
