/**
 * What the pipeline needs of rate limits: requests and tokens per minute and concurrent requests, of access keys, VEs and
 * Physical Models. Minutes slide: what counts is the last 60 seconds. Nothing here waits: a request is admitted or refused
 * from what this node knows.
 */

/** 0: no such limit. */
export interface RateLimits {
  readonly requestsPerMinute: number;
  readonly tokensPerMinute: number;
  readonly concurrentRequests: number;
}

/** Numbers equal `tokenbill.node.v1.RateKind`. */
export const RateKind = { REQUESTS: 1, TOKENS: 2, CONCURRENT: 3 } as const;
export type RateKind = (typeof RateKind)[keyof typeof RateKind];

/** One request within the limits of one subject. Exactly one of the two must be called in the end; further calls do nothing. */
export interface RateHold {
  /** It ended, having used so many tokens: they replace what it was expected to use. */
  settle(tokens: number): void;
  /** It came to nothing before it began: as if it had never been. */
  release(): void;
}

export interface RateRefusal {
  readonly kind: RateKind;
  readonly limit: number;
  /** When it may be worth trying again, in milliseconds. */
  readonly retryMs: number;
  /** True: a single request may not use so many tokens; waiting does not help. */
  readonly tooLarge: boolean;
}

/** How a subject stands, as far as this node knows. Figures of a limit that it does not have are 0. */
export interface RateView {
  readonly remainingRequests: number;
  readonly remainingTokens: number;
  /** Milliseconds until nothing of the limit would be used any more, if no further request came. */
  readonly resetRequestsMs: number;
  readonly resetTokensMs: number;
}

export interface Rates {
  /**
   * Takes one request that is expected to use `tokens` (at least its input), `inputTokens` of them for its input.
   * `subject` is the id of an access key, VE or Physical Model.
   */
  take(subject: string, limits: RateLimits, tokens: number, inputTokens: number): RateHold | RateRefusal;
  /** True if `take` of a request of `tokens` would be refused now. */
  refuses(subject: string, limits: RateLimits, tokens: number): boolean;
  view(subject: string, limits: RateLimits): RateView;
}

export function isRefusal(result: RateHold | RateRefusal): result is RateRefusal {
  return "kind" in result;
}
