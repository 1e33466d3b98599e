/** `npm run audit`: asks the control plane that runs, or, where none does, looks into its database. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import type { Logger } from "pino";
import { formatAddress } from "../../core/listen_address.ts";
import { type AuditRun, AuditState } from "../../proto/gen/tokenbill/v1/audit_pb.ts";
import { AuditService } from "../../proto/gen/tokenbill/v1/audit_service_pb.ts";
import type { Database } from "../db/database.ts";
import { DatabaseStartError } from "../db/errors.ts";
import { checkSchema } from "../db/migrate.ts";
import { openDatabase } from "../db/open.ts";
import { OPERATOR_TOKEN_FILE, readHomeFile } from "../home.ts";
import { parseSettings, type Settings } from "../settings.ts";
import { readRun, type RunRow } from "../store/audit_run.ts";
import { Auditor, endedWithin } from "./auditor.ts";
import type { AuditReport } from "./report_text.ts";

/** How often progress is asked for. */
const LOOK_EVERY_MS = 1_000;
const PROBE_TIMEOUT_MS = 5_000;
const POOL_MAX = 2;

/** It could not be done; the message is for the operator. */
export class AuditCommandError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "AuditCommandError";
  }
}

export interface AuditCommand {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly deep: boolean;
  readonly log: Logger;
  newId(prefix: string): string;
  onProgress(report: AuditReport): void;
  /** Where it looks, in words. */
  onPlace(place: string): void;
  /** Aborted: stop the audit, and say how far it came. */
  readonly signal: AbortSignal;
}

const STATES: Readonly<Record<AuditState, AuditReport["state"]>> = {
  [AuditState.UNSPECIFIED]: "failed",
  [AuditState.RUNNING]: "running",
  [AuditState.CLEAN]: "clean",
  [AuditState.BROKEN]: "broken",
  [AuditState.STOPPED]: "stopped",
  [AuditState.FAILED]: "failed",
};

function fromWire(run: AuditRun): AuditReport {
  return {
    ...run,
    state: STATES[run.state] ?? "failed",
    durationMs: Number(run.durationMs),
    walletsTotal: Number(run.walletsTotal),
    wallets: Number(run.walletsChecked),
    events: Number(run.eventsChecked),
  };
}

function fromRow(row: RunRow): AuditReport {
  return {
    id: row.id,
    deep: row.deep,
    state: row.state,
    durationMs: Number(row.duration_ms),
    walletsTotal: Number(row.wallets_total),
    wallets: Number(row.wallets),
    events: Number(row.events),
    breakCount: row.break_count,
    breaks: row.breaks,
    reason: row.reason,
  };
}

/** The control plane's address, and whether somebody named it. */
function addressOf(env: AuditCommand["env"], settings: Settings): { url: string; named: boolean } {
  const named = env["CONTROL_PLANE_URL"];
  if (named !== undefined && named !== "") return { url: named.replace(/\/+$/, ""), named: true };
  const { host, port } = settings.address;
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return { url: `http://${formatAddress({ host: reachable, port })}`, named: false };
}

/** Whether anything answers there. */
async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    await response.body?.cancel();
    return true;
  } catch {
    return false;
  }
}

function refused(error: unknown, url: string, settings: Settings): AuditCommandError {
  const { code, rawMessage } = ConnectError.from(error);
  const file = join(settings.home, OPERATOR_TOKEN_FILE);
  if (code === Code.Unauthenticated || code === Code.PermissionDenied)
    return new AuditCommandError(
      `the control plane at ${url} does not take the token in ${file}: is it of another home? Set TOKENBILL_HOME or CONTROL_PLANE_URL`,
    );
  if (code === Code.Unimplemented || code === Code.NotFound)
    return new AuditCommandError(`what answers at ${url} is no control plane of this release: set CONTROL_PLANE_URL`);
  return new AuditCommandError(`the control plane at ${url} could not do it: ${rawMessage}`);
}

function clientOf(url: string, token: string): Client<typeof AuditService> {
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "1.1",
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return createClient(AuditService, transport);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  return endedWithin(promise, ms);
}

async function askControlPlane(url: string, settings: Settings, command: AuditCommand): Promise<AuditReport> {
  const token = readHomeFile(settings.home, OPERATOR_TOKEN_FILE);
  if (token === null)
    throw new AuditCommandError(
      `a control plane runs at ${url}, but there is no ${join(settings.home, OPERATOR_TOKEN_FILE)}: copy the operator's token there, or set TOKENBILL_HOME`,
    );
  const client = clientOf(url, token);
  const { signal } = command;
  try {
    let run = (await client.runAudit({ deep: command.deep })).auditRun!;
    while (run.state === AuditState.RUNNING && !signal.aborted) {
      command.onProgress(fromWire(run));
      await pause(LOOK_EVERY_MS, signal);
      run = (await client.getAuditRun({ id: run.id })).auditRun!;
    }
    if (run.state === AuditState.RUNNING) run = (await client.stopAudit({ id: run.id })).auditRun!;
    return fromWire(run);
  } catch (error) {
    throw refused(error, url, settings);
  }
}

async function lookInto(db: Database, command: AuditCommand): Promise<AuditReport> {
  await checkSchema(db);
  const auditor = new Auditor({ db, now: Date.now, newId: command.newId, log: command.log });
  const { signal } = command;
  const { run, here, ended } = await auditor.start(command.deep);
  let row = (await readRun(db, run.id))!;
  while (row.state === "running" && !signal.aborted) {
    command.onProgress(fromRow(row));
    await Promise.race([pause(LOOK_EVERY_MS, signal), here ? ended : pause(LOOK_EVERY_MS, signal)]);
    row = (await readRun(db, run.id))!;
  }
  // Stops it if it is ours.
  await auditor.close();
  return fromRow((await readRun(db, run.id))!);
}

async function openStore(url: string, settings: Settings, command: AuditCommand): Promise<Database> {
  if (settings.databaseUrl === null && !existsSync(join(settings.home, "db")))
    throw new AuditCommandError(
      `there is nothing to audit: no control plane answers at ${url}, DATABASE_URL is not set, and ${settings.home} holds no embedded store. Set CONTROL_PLANE_URL, DATABASE_URL or TOKENBILL_HOME`,
    );
  try {
    return await openDatabase({
      home: settings.home,
      databaseUrl: settings.databaseUrl,
      databasePoolMax: POOL_MAX,
      onNotice: (message) => command.log.debug({ message }, "the database says"),
    });
  } catch (error) {
    if (!(error instanceof DatabaseStartError) || settings.databaseUrl !== null) throw error;
    throw new AuditCommandError(
      `${error.message}; if that is a control plane, set CONTROL_PLANE_URL to where it listens`,
    );
  }
}

/**
 * Runs one audit to its end.
 * @throws AuditCommandError, SettingsError, HomeError, DatabaseStartError when it cannot be done
 */
export async function auditCommand(command: AuditCommand): Promise<AuditReport> {
  const settings = parseSettings(command.env);
  const { url, named } = addressOf(command.env, settings);
  if (await answers(url)) {
    command.onPlace(`the control plane at ${url}`);
    return askControlPlane(url, settings, command);
  }
  if (named) throw new AuditCommandError(`CONTROL_PLANE_URL: nothing answers at ${url}`);
  const db = await openStore(url, settings, command);
  const place =
    settings.databaseUrl === null ? `the embedded store in ${settings.home}` : "the database of DATABASE_URL";
  command.onPlace(`${place} (no control plane answers at ${url})`);
  try {
    return await lookInto(db, command);
  } finally {
    await db.close();
  }
}
