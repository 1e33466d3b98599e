/** The node's connection to the control plane: one HTTP/2 connection for all its calls, with or without TLS. */

import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ConfigFeedService } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { HealthService } from "../proto/gen/tokenbill/node/v1/health_service_pb.ts";
import { RateLimitService } from "../proto/gen/tokenbill/node/v1/rate_limit_service_pb.ts";
import { UsageReportService } from "../proto/gen/tokenbill/node/v1/usage_report_service_pb.ts";

/** A control plane that vanished without a word is noticed after these two together. */
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 5_000;
/** A snapshot chunk is at most 1 MiB; a single message far beyond that is refused. */
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

export type ReportClient = Client<typeof UsageReportService>;
export type FeedClient = Client<typeof ConfigFeedService>;
export type HealthClient = Pick<Client<typeof HealthService>, "shareHealth">;

export type RateClient = Client<typeof RateLimitService>;

export interface ControlPlane {
  readonly reports: ReportClient;
  readonly rates: RateClient;
  readonly feed: FeedClient;
  readonly health: HealthClient;
  /** Ends every call. */
  close(): void;
}

/** Connects when first called, and again when the connection is lost. */
export function connectControlPlane(url: string, nodeToken: string): ControlPlane {
  const sessionManager = new Http2SessionManager(url, {
    pingIntervalMs: PING_INTERVAL_MS,
    pingTimeoutMs: PING_TIMEOUT_MS,
    pingIdleConnection: true,
  });
  const authenticate: Interceptor = (next) => (request) => {
    request.header.set("authorization", `Bearer ${nodeToken}`);
    return next(request);
  };
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "2",
    sessionManager,
    interceptors: [authenticate],
    readMaxBytes: MESSAGE_BYTES_MAX,
    // The two are close to each other as a rule, and the node's CPU is worth more than the bytes.
    acceptCompression: [],
  });
  return {
    reports: createClient(UsageReportService, transport),
    rates: createClient(RateLimitService, transport),
    feed: createClient(ConfigFeedService, transport),
    health: createClient(HealthService, transport),
    close: () => sessionManager.abort(),
  };
}
