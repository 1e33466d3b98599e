/** The control plane as a process: environment -> settings -> database -> server -> SIGTERM. */

import { randomBytes } from "node:crypto";
import pino, { type Logger } from "pino";
import { createRpcHandler } from "./api/adapter.ts";
import { Auditor } from "./audit/auditor.ts";
import type { Deps } from "./api/context.ts";
import { registerServices } from "./api/routes.ts";
import { bootstrap, openSecrets } from "./bootstrap.ts";
import { openCheckout } from "./checkout/parts.ts";
import { DatabaseClock } from "./clock.ts";
import type { Database } from "./db/database.ts";
import { DatabaseStartError } from "./db/errors.ts";
import { migrate } from "./db/migrate.ts";
import { openDatabase } from "./db/open.ts";
import { Feed } from "./feed/feed.ts";
import { HomeError, makeHome } from "./home.ts";
import { openCheckoutPage } from "./http/checkout_page.ts";
import { collectProcessMetrics } from "./http/pages.ts";
import { httpRoutes } from "./http/routes.ts";
import { newId, pooledRandom } from "./ids.ts";
import { startMaintenance } from "./maintenance.ts";
import { RateSharing } from "./rates/rate_sharing.ts";
import { type ControlPlaneServer, listen } from "./server.ts";
import { formatAddress } from "../core/listen_address.ts";
import { parseSettings, type Settings, SettingsError, withAddress } from "./settings.ts";
import { startWebhooks } from "./webhooks/webhooks.ts";

/** EX_CONFIG of sysexits: something must be set right before a start can succeed. */
const EXIT_CONFIG = 78;
const DRAIN_MS = 10_000;

const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));
const idRandom = pooledRandom(random);

/** Ends the process with one line for each problem. */
function refuse(lines: readonly string[]): never {
  process.stderr.write(lines.map((line) => `tokenbill control plane: ${line}\n`).join(""));
  process.exit(EXIT_CONFIG);
}

function readSettings(): Settings {
  try {
    return parseSettings(process.env);
  } catch (error) {
    if (error instanceof SettingsError) refuse(error.problems);
    throw error;
  }
}

async function openPort(settings: Settings, log: Logger): Promise<ControlPlaneServer> {
  try {
    return await listen(settings.address, log);
  } catch (error) {
    return refuse([
      `CONTROL_PLANE_ADDR: cannot listen on ${formatAddress(settings.address)}: ${(error as Error).message}`,
    ]);
  }
}

async function openStore(settings: Settings, log: Logger): Promise<Database> {
  makeHome(settings.home);
  const db = await openDatabase({ ...settings, onNotice: (message) => log.debug({ message }, "the database says") });
  const ran = await migrate(db);
  if (ran.length > 0) log.info({ migrations: ran }, "the database has the schema of this release");
  return db;
}

async function start(server: ControlPlaneServer, settings: Settings, log: Logger): Promise<() => Promise<void>> {
  const db = await openStore(settings, log);
  const clock = new DatabaseClock(db);
  await clock.read();
  const stopClock = clock.keepReading(log);
  const now = (): number => clock.now();
  const options = { db, settings, random, now, log };
  const secrets = await openSecrets(options);
  await bootstrap(options);
  const deps: Deps = { db, now, newId: (prefix) => newId(prefix, idRandom), secrets, settings, log };
  const feed = await Feed.start(deps);
  const auditor = new Auditor(deps);
  const rates = new RateSharing({ redisUrl: settings.redisUrl, log });
  const checkout = openCheckout(deps, feed, random);
  const webhooks = startWebhooks(deps);
  const maintenance = startMaintenance(deps, auditor, checkout.jobs);
  const shutdown = new AbortController();
  const rpc = createRpcHandler(deps, {
    routes: (router) => registerServices(router, deps, feed, auditor, rates, checkout),
    shutdownSignal: shutdown.signal,
    throttle: checkout.throttle,
  });
  const checkoutPage = openCheckoutPage(log, settings.publicUrl);
  const routes = httpRoutes(deps, checkoutPage, checkout.receive);
  server.serve({ rpc, routes, settings, ping: () => db.query("select 1"), shutdown });
  return async () => {
    await server.close({ drainMs: DRAIN_MS });
    await rates.close();
    await webhooks.close();
    await checkout.throttle.close();
    await auditor.close();
    await maintenance.close();
    await feed.close();
    stopClock();
    await db.close();
  };
}

async function main(): Promise<void> {
  const parsed = readSettings();
  const log = pino({ level: parsed.logLevel, base: { part: "control-plane" } }, pino.destination(2));
  process.on("unhandledRejection", (error) => log.error({ reason: (error as Error)?.stack }, "unhandled rejection"));
  collectProcessMetrics();
  let stop: (() => Promise<void>) | null = null;
  let signalled: NodeJS.Signals | null = null;
  const finish = (): void => {
    if (signalled === null || stop === null) return;
    log.info({ signal: signalled }, "stopping");
    const ending = stop();
    stop = null;
    ending.then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ reason: (error as Error).stack }, "the stop failed");
        process.exit(1);
      },
    );
  };
  // A signal during the start takes effect when the start is through, so that nothing is left half made.
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      signalled ??= signal;
      finish();
    });
  }
  const server = await openPort(parsed, log);
  const settings = withAddress(parsed, server.address);
  try {
    stop = await start(server, settings, log);
  } catch (error) {
    if (error instanceof DatabaseStartError || error instanceof HomeError) refuse([error.message]);
    throw error;
  }
  log.info(
    { address: formatAddress(settings.address), database: settings.databaseUrl === null ? "embedded" : "postgres" },
    "ready",
  );
  process.send?.({ type: "ready", address: formatAddress(settings.address) });
  finish();
}

await main();
