/** Metrics of rate limits on this node. */

import { Counter, Gauge, type Registry } from "prom-client";
import type { RateLimiter } from "./rate_limiter.ts";
import type { RateSync } from "./rate_sync.ts";

export function observeRates(registry: Registry, limiter: RateLimiter, sync: RateSync): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    const one: Gauge = new Gauge({
      name: `tokenbill_node_rate_${name}`,
      help,
      registers: [registry],
      collect: () => one.set(read()),
    });
  };
  const counter = (name: string, help: string, label: string, read: () => Readonly<Record<string, number>>): void => {
    const one: Counter = new Counter({
      name: `tokenbill_node_rate_${name}`,
      help,
      labelNames: [label],
      registers: [registry],
      collect: () => {
        one.reset();
        for (const [value, count] of Object.entries(read())) one.inc({ [label]: value }, count);
      },
    });
  };
  gauge("subjects", "Access keys, VEs and Physical Models with rate limits in use", () => limiter.stats.subjects);
  gauge("nodes", "Nodes that share rate limits, as last told", () => limiter.stats.nodes);
  gauge("shared", "1 while the counts of the other nodes are known", () => Number(sync.stats.shared));
  counter("refusals_total", "Requests that a rate limit refused, by what it counts", "kind", () => {
    const { REQUESTS, TOKENS, CONCURRENT } = limiter.stats.refusals;
    return { requests: REQUESTS, tokens: TOKENS, concurrent: CONCURRENT };
  });
  counter("shares_total", "Reports of rate limits by how they were answered", "result", () => {
    const { answered, unshared, failed } = sync.stats;
    return { shared: answered - unshared, unshared, failed };
  });
}
