/**
 * How requests end, and what is billed. Numbers equal `tokenbill.v1.Outcome` and `AttemptResult`.
 *
 * | outcome          | billed                                                                             |
 * |------------------|------------------------------------------------------------------------------------|
 * | COMPLETED        | the reported usage; an estimate where the upstream reported none                     |
 * | UPSTREAM_ERROR   | nothing: every attempt failed before any content                                     |
 * | UPSTREAM_CUT     | what was delivered: usage as far as reported, else an estimate                       |
 * | CLIENT_GONE      | DRAIN: the usage read to the end, or an estimate at the bound; CANCEL_ESTIMATE: an   |
 * |                  | estimate of what had arrived, nothing if no content had; FREE: nothing               |
 * | BUDGET_CUT       | what was delivered                                                                 |
 * | TIMEOUT          | what was delivered before the deadline                                             |
 * | CLIENT_ERROR     | nothing: the upstream refused the request                                            |
 * | NODE_CRASHED     | the last progress note (at replay of the journal)                                    |
 */
export const Outcome = {
  COMPLETED: 1,
  UPSTREAM_ERROR: 2,
  UPSTREAM_CUT: 3,
  CLIENT_GONE: 4,
  BUDGET_CUT: 5,
  NODE_CRASHED: 6,
  CLIENT_ERROR: 7,
  TIMEOUT: 8,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export const AttemptResult = {
  SERVED: 1,
  CONNECTION_ERROR: 2,
  FIRST_BYTE_TIMEOUT: 3,
  STATUS: 4,
  BAD_ANSWER: 5,
  CLIENT_ERROR: 6,
  CLIENT_GONE: 7,
  TOTAL_TIMEOUT: 8,
  ADDRESS_NOT_ALLOWED: 9,
} as const;
export type AttemptResult = (typeof AttemptResult)[keyof typeof AttemptResult];

/** Numbers of `tokenbill.v1.OnDisconnect`; 0 counts as CANCEL_ESTIMATE. */
export const OnDisconnect = { DRAIN: 1, CANCEL_ESTIMATE: 2, FREE: 3 } as const;

/** How far a request is, once admitted. */
export const Phase = {
  /** An attempt runs; the client has seen nothing. */
  TRYING: 0,
  /** The head was sent. */
  RELAYING: 1,
  /** The bill is made and on its way to the journal. */
  SETTLING: 2,
  /** The client has everything. */
  FINISHED: 3,
} as const;
export type Phase = (typeof Phase)[keyof typeof Phase];
