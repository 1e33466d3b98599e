/**
 * How requests end, and what is billed. Numbers equal `tokenbill.v1.Outcome` and `AttemptResult`. The same table is in
 * ARCHITECTURE.md; each row has tests that carry its name (test/contract/outcomes.test.ts checks both).
 *
 * | row | outcome | when | billed | why |
 * |---|---|---|---|---|
 * | `completed-reported` | `COMPLETED` | the answer came whole, with its usage | the reported usage | the upstream's own count is what it bills |
 * | `completed-estimated` | `COMPLETED` | the answer came whole; its usage is missing, zero or nonsense | an estimate | the tokens were made and will be on the upstream's bill |
 * | `upstream-error` | `UPSTREAM_ERROR` | every attempt failed before any content, or every target is at its limit | nothing | the client got nothing; what a failed attempt cost is the merchant's risk |
 * | `timeout-before-content` | `UPSTREAM_ERROR` | the deadline of the whole passed before any content | nothing | as above |
 * | `stop-before-content` | `UPSTREAM_ERROR` | the node stopped before any content | nothing | as above; the client tries another node |
 * | `client-error` | `CLIENT_ERROR` | the upstream refused the request as the client's fault | nothing | upstreams do not bill refusals |
 * | `cannot-be-done` | `CLIENT_ERROR` | no target can do what the request asks for | nothing | nothing was sent |
 * | `cut-reported` | `UPSTREAM_CUT` | the upstream failed after content; it had reported usage on the way, not less than what arrived | the usage as last reported | the client has what it pays for |
 * | `cut-estimated` | `UPSTREAM_CUT` | the upstream failed after content, without such a usage | an estimate of what arrived | the client has what it pays for |
 * | `stop-after-content` | `UPSTREAM_CUT` | the node stopped after content | an estimate of what arrived | the client has what it pays for |
 * | `timeout-after-content` | `TIMEOUT` | a deadline passed after content | usage as far as reported, else an estimate of what arrived | the client has what it pays for |
 * | `budget-cut` | `BUDGET_CUT` | the wallet ran dry during the answer | usage as far as reported, else an estimate of what arrived | within the bound of the mode; the rest was never asked for |
 * | `client-gone-asking` | none | the client left before the request was admitted, the wallet being asked or not | nothing, and nothing is recorded | nothing was sent; what was granted is given back |
 * | `client-gone-unanswered` | `CLIENT_GONE` | `CANCEL_ESTIMATE`: the client left before the upstream accepted the request (no head of an answer) | nothing | nobody can tell that the upstream began |
 * | `client-gone-accepted` | `CLIENT_GONE` | `CANCEL_ESTIMATE`: the client left after that, before any content | the input, estimated | accepted input is read, and on the upstream's bill; leaving early must not be a way to have that for nothing |
 * | `client-gone-content` | `CLIENT_GONE` | `CANCEL_ESTIMATE`, the default: the client left after content | usage as far as reported, else an estimate of what arrived | the call is cancelled, and the upstream bills what it made |
 * | `client-gone-free` | `CLIENT_GONE` | `FREE`: the client left | nothing | the merchant chose so |
 * | `drain-whole` | `CLIENT_GONE` | `DRAIN`: the client left, the answer was read to its end | the reported usage, else an estimate | some upstreams go on and bill all of it |
 * | `drain-bound` | `CLIENT_GONE` | `DRAIN`: the answer was longer than 16 MiB or two minutes | as `CANCEL_ESTIMATE` | nothing is unbounded |
 * | `drain-count` | `CLIENT_GONE` | `DRAIN`: this node drains 64 answers of the Provider already | as `CANCEL_ESTIMATE` | clients that leave must not pile up work |
 * | `drain-broken` | `CLIENT_GONE` | `DRAIN`: the upstream failed meanwhile | what arrived; nothing before content | as if the client were there |
 * | `client-stalled` | `CLIENT_GONE` | the client read nothing for two minutes | as if it had left | it holds a connection and memory |
 * | `hedge-lost-accepted` | `HEDGE_LOST` | another call of a hedged request had content first, after this upstream had accepted the request | the input, estimated, as a record of its own; nothing where the Provider says `FREE` | accepted input is read, and on the upstream's bill |
 * | `hedge-lost-unanswered` | none | as above, before this upstream accepted it | nothing; the attempt is in the record of the request | nobody can tell that the upstream began |
 * | `client-gone-settling` | as without | the client left after the end, before its last bytes | as without | the answer was made for it |
 * | `crash-before-content` | `NODE_CRASHED` | the node died before any content of a stream | nothing | the client got nothing |
 * | `crash-after-content` | `NODE_CRASHED` | the node died after content of a stream | the last progress note, estimated | it is at most a second old; the first is written with the first content |
 * | `journal-fails` | as without | the settlement could not be written | as without | it is kept in memory and tried again; the client gets its answer |
 * | `journal-closed` | none | the journal takes nothing | nothing: refused with 503 | what cannot be written down is not begun |
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
  HEDGE_LOST: 9,
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
  LIMIT_REACHED: 10,
  RATE_LIMITED: 11,
  CONNECT_TIMEOUT: 12,
  FIRST_CONTENT_TIMEOUT: 13,
  IDLE_TIMEOUT: 14,
  HEDGE_LOST: 15,
  NO_CONNECTION: 16,
  CUT: 17,
  UNSUPPORTED: 18,
  NO_CREDENTIALS: 19,
} as const;
export type AttemptResult = (typeof AttemptResult)[keyof typeof AttemptResult];

/** Why an attempt was made: numbers of `tokenbill.v1.AttemptKind`. */
export const AttemptKind = { FIRST: 1, FALLBACK: 2, RETRY: 3, HEDGE: 4, LAST_RESORT: 5 } as const;
export type AttemptKind = (typeof AttemptKind)[keyof typeof AttemptKind];

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
