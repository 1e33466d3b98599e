/** Addresses of this machine, to stand for upstreams at different places. */
export const LOOPBACKS = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"] as const;
