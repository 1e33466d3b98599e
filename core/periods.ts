/**
 * PURE: days, weeks and months of a time zone, for what starts again with each of them. Numbers equal those of
 * `tokenbill.v1.Period`; a test keeps them equal, since core imports no generated code.
 */

export const Period = { DAILY: 1, WEEKLY: 2, MONTHLY: 3 } as const;
export type Period = (typeof Period)[keyof typeof Period];

/** Milliseconds since 1970; `endMs` is the first that does not belong to it, and the start of the next. */
export interface Interval {
  readonly startMs: number;
  readonly endMs: number;
}

export const UTC = "UTC";

/** Offsets such as `+01:00` are time zones to Temporal, but they know no summer time: a name is wanted. */
const NAME = /^[A-Za-z][A-Za-z0-9_+\-/]*$/;

/** The name in its usual spelling (`europe/berlin` is `Europe/Berlin`), or null if there is no such IANA time zone. */
export function normalTimeZone(name: string): string | null {
  if (!NAME.test(name)) return null;
  try {
    return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name).timeZoneId;
  } catch {
    return null;
  }
}

/** The first day of the period that `day` is in; weeks begin on Monday. */
function firstDay(period: Period, day: Temporal.PlainDate): Temporal.PlainDate {
  if (period === Period.DAILY) return day;
  return period === Period.WEEKLY ? day.subtract({ days: day.dayOfWeek - 1 }) : day.with({ day: 1 });
}

const STEP = { [Period.DAILY]: { days: 1 }, [Period.WEEKLY]: { weeks: 1 }, [Period.MONTHLY]: { months: 1 } } as const;

/** The first moment of a day: 00:00, or where the clock skips that, the first moment after the gap. */
function beginMs(day: Temporal.PlainDate, timeZone: string): number {
  return day.toZonedDateTime(timeZone).epochMilliseconds;
}

/**
 * The period that `nowMs` is in: `startMs <= nowMs < endMs`. @throws RangeError when the time zone is not one
 */
export function periodOf(period: Period, timeZone: string, nowMs: number): Interval {
  const now = Temporal.Instant.fromEpochMilliseconds(Math.floor(nowMs)).toZonedDateTimeISO(timeZone);
  let first = firstDay(period, now.toPlainDate());
  for (;;) {
    const next = first.add(STEP[period]);
    const endMs = beginMs(next, timeZone);
    if (nowMs < endMs) return { startMs: beginMs(first, timeZone), endMs };
    // Where clocks go back over midnight, an evening comes twice; its second time belongs to the day that had begun.
    first = next;
  }
}
