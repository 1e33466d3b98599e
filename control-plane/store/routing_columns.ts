/** What the columns of routing and rate limits hold, and how they are written: as JSON, or null for nothing. */

/** Milliseconds; 0: the default. */
export interface StoredDeadlines {
  connect_ms: number;
  first_byte_ms: number;
  idle_ms: number;
  total_ms: number;
  /** Missing in rows from before there was one. */
  first_content_ms?: number;
}

/** As stored; `pm` is the Physical Model's id. */
export interface StoredTarget {
  pm: string;
  tier: number;
  weight: number;
  /** Missing: as the Logical Model's; `total_ms` is 0. */
  deadlines?: StoredDeadlines;
}

export interface StoredRouting {
  /** 0: off. */
  hedge_after_ms: number;
  /** `sources` are `tokenbill.v1.StickySource`, `header` is empty if none of them is a header. */
  sticky: { sources: number[]; header: string } | null;
}

/** 0: no such limit. */
export interface StoredRateLimits {
  requests_per_minute: number;
  tokens_per_minute: number;
  concurrent_requests: number;
}

export function jsonOrNull(value: StoredRouting | StoredRateLimits | null): string | null {
  return value === null ? null : JSON.stringify(value);
}
