/** A whole control plane in the test's process: a real server on a fresh database, called by real clients. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import pino from "pino";
import { type ErrorInfo, ErrorInfoSchema, ErrorReasonSchema } from "../proto/gen/tokenbill/v1/error_pb.ts";
import { MerchantService } from "../proto/gen/tokenbill/v1/merchant_service_pb.ts";
import { createRpcHandler } from "./api/adapter.ts";
import type { Deps } from "./api/context.ts";
import { Auditor } from "./audit/auditor.ts";
import { registerServices } from "./api/routes.ts";
import { openTestCheckout, type TestCheckout } from "./api/testing_checkout.ts";
import { bootstrap, openSecrets } from "./bootstrap.ts";
import { type Checkout, openCheckout } from "./checkout/parts.ts";
import type { Database } from "./db/database.ts";
import { Feed } from "./feed/feed.ts";
import { openCheckoutPage } from "./http/checkout_page.ts";
import { httpRoutes } from "./http/routes.ts";
import { newId } from "./ids.ts";
import { RateSharing } from "./rates/rate_sharing.ts";
import { type ControlPlaneServer, listen } from "./server.ts";
import { parseSettings, type Settings, withAddress } from "./settings.ts";

export type Protocol = "connect-json" | "connect-binary" | "grpc" | "grpc-web";

export interface TestMerchant {
  readonly id: string;
  readonly token: string;
}

export interface TestControlPlane {
  readonly url: string;
  readonly deps: Deps;
  readonly server: ControlPlaneServer;
  readonly rates: RateSharing;
  /** Payments without a processor. */
  readonly checkout: TestCheckout;
  readonly operatorToken: string;
  readonly merchantToken: string;
  readonly nodeToken: string;
  /** Everything that was logged, one JSON line each. */
  readonly logLines: string[];
  /** Every response body and trailer that clients made here have seen, as text. */
  readonly responses: string[];
  /** Added to the real time. */
  readonly clock: { offsetMs: number };
  client<S extends DescService>(service: S, token: string | null, protocol?: Protocol): Client<S>;
  /** A new merchant with a token. */
  makeMerchant(name: string): Promise<TestMerchant>;
  /** Stops everything but the database, which is the caller's. */
  close(): Promise<void>;
}

const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));

function transportOf(url: string, protocol: Protocol, interceptors: Interceptor[]): Transport {
  const common = { baseUrl: url, interceptors };
  if (protocol === "grpc") return createGrpcTransport(common);
  if (protocol === "grpc-web") return createGrpcWebTransport({ ...common, httpVersion: "1.1" });
  return createConnectTransport({ ...common, httpVersion: "1.1", useBinaryFormat: protocol === "connect-binary" });
}

function authorize(token: string | null): Interceptor {
  return (next) => (request) => {
    if (token !== null) request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** Keeps what came back, for tests that look for what must not be there. */
function record(responses: string[]): Interceptor {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? String(item) : item)) ?? "";
  return (next) => async (request) => {
    try {
      const response = await next(request);
      if (!response.stream) responses.push(text(response.message));
      return response;
    } catch (error) {
      responses.push(`${(error as Error).message} ${text(ConnectError.from(error).findDetails(ErrorInfoSchema))}`);
      throw error;
    }
  };
}

export interface TestOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** True: payments go to the real engine and the real processors, at the URLs that `env` names. No job runs by itself. */
  readonly realPayments?: boolean;
}

export async function startTestControlPlane(
  db: Database,
  { env = {}, realPayments = false }: TestOptions = {},
): Promise<TestControlPlane> {
  const home = mkdtempSync(join(tmpdir(), "tokenbill-cp-"));
  const logLines: string[] = [];
  const responses: string[] = [];
  const clock = { offsetMs: 0 };
  const now = (): number => Date.now() + clock.offsetMs;
  const log = pino({ level: "trace" }, { write: (line: string) => void logLines.push(line) });
  const parsed = parseSettings({ TOKENBILL_HOME: home, CONTROL_PLANE_ADDR: "127.0.0.1:0", ...env });
  const server = await listen(parsed.address, log);
  const settings: Settings = withAddress(parsed, server.address);
  const options = { db, settings, random, now, log };
  const secrets = await openSecrets(options);
  await bootstrap(options);
  const deps: Deps = { db, now, newId: (prefix) => newId(prefix, random), secrets, settings, log };
  const feed = await Feed.start(deps);
  const auditor = new Auditor(deps);
  const rates = new RateSharing({ redisUrl: settings.redisUrl, log });
  const real = openCheckout(deps, feed, random);
  const checkout = openTestCheckout(secrets);
  const payments: Checkout = realPayments
    ? real
    : { ...real, deps: { ...deps, processors: checkout.processors, hints: feed }, engine: checkout.engine };
  const shutdown = new AbortController();
  const rpc = createRpcHandler(deps, {
    routes: (router) => registerServices(router, deps, feed, auditor, rates, payments),
    shutdownSignal: shutdown.signal,
    throttle: payments.throttle,
  });
  const routes = httpRoutes(deps, openCheckoutPage(log, settings.publicUrl), payments.receive);
  server.serve({ rpc, routes, settings, ping: () => db.query("select 1"), shutdown });
  const url = `http://127.0.0.1:${server.address.port}`;
  const token = (file: string): string => readFileSync(join(home, file), "utf8").trim();
  const operatorToken = token("operator.token");

  const client = <S extends DescService>(
    service: S,
    secret: string | null,
    protocol: Protocol = "connect-json",
  ): Client<S> => createClient(service, transportOf(url, protocol, [record(responses), authorize(secret)]));

  return {
    url,
    deps,
    server,
    rates,
    checkout,
    operatorToken,
    merchantToken: token("merchant.token"),
    nodeToken: token("node.token"),
    logLines,
    responses,
    clock,
    client,
    async makeMerchant(name) {
      const operator = client(MerchantService, operatorToken);
      const { merchant } = await operator.createMerchant({ name });
      const { secret } = await operator.createApiToken({ merchantId: merchant!.id, name: "test" });
      return { id: merchant!.id, token: secret };
    },
    async close() {
      await server.close({ drainMs: 2000 });
      await rates.close();
      await payments.throttle.close();
      await auditor.close();
      await feed.close();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

export interface SeenError {
  readonly code: number;
  /** In lower case, as the error codes in the code. */
  readonly reason: string;
  readonly message: string;
  readonly info: ErrorInfo;
}

/** What a call failed with. Throws when it did not fail, or failed without exactly one ErrorInfo. */
export async function failureOf(call: Promise<unknown>): Promise<SeenError> {
  let error: ConnectError;
  try {
    await call;
  } catch (thrown) {
    error = ConnectError.from(thrown);
    const [info, second] = error.findDetails(ErrorInfoSchema);
    if (info === undefined || second !== undefined)
      throw new Error(`not exactly one ErrorInfo: ${error.message}`, { cause: thrown });
    const reason = ErrorReasonSchema.value[info.reason]?.localName.toLowerCase() ?? "?";
    return { code: error.code, reason, message: error.rawMessage, info };
  }
  throw new Error("the call did not fail");
}
