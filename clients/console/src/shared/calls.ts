/** How pages call the public API: same origin, JSON, one secret for a page or none. */

import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { QueryClient } from "@tanstack/react-query";
import { basePath } from "./base_path.ts";
import { isConnectionTrouble } from "./trouble.ts";

const CALL_MS = 20_000;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 4_000;

export function makeTransport(secret: string | null): Transport {
  const authenticate: Interceptor = (next) => (request) => {
    if (secret !== null) request.header.set("authorization", `Bearer ${secret}`);
    return next(request);
  };
  return createConnectTransport({
    baseUrl: window.location.origin + basePath(window.location.pathname),
    interceptors: [authenticate],
    defaultTimeoutMs: CALL_MS,
  });
}

/** Only what got no answer is asked again; an answer that says no stays one. */
export const RETRYING = {
  networkMode: "offlineFirst",
  retry: (_count: number, error: Error): boolean => isConnectionTrouble(error),
  retryDelay: (count: number): number => Math.min(RETRY_FIRST_MS * 2 ** count, RETRY_MAX_MS),
} as const;

export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: { ...RETRYING, refetchOnReconnect: "always" },
      mutations: { ...RETRYING },
    },
  });
}
