/** The command line of `npm run audit`. Exit code 0: everything agrees, 1: something is broken, 2: it could not be done. */

import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import pino from "pino";
import { newId } from "../ids.ts";
import { SettingsError } from "../settings.ts";
import { auditCommand } from "./command.ts";
import { type AuditReport, EXIT_NOT_RUN, exitCodeOf, progressLine, reportText } from "./report_text.ts";

const USAGE = `Usage: npm run audit [-- --deep]

Checks that the money agrees: wallets, leases, ledger, usage. It asks the control plane at CONTROL_PLANE_URL (default
http://127.0.0.1:8080) with the token in $TOKENBILL_HOME/operator.token; where none runs, it opens the store itself
(DATABASE_URL, or the embedded one in TOKENBILL_HOME).

  --deep   from the first transfer and usage event on, not only what is new

Exit code: 0 everything agrees, 1 something is broken, 2 it could not be done.
`;

function fail(lines: readonly string[]): never {
  process.stderr.write(lines.map((line) => `tokenbill audit: ${line}\n`).join(""));
  process.exit(EXIT_NOT_RUN);
}

function readArgs(): { deep: boolean } {
  try {
    const options = { deep: { type: "boolean", default: false }, help: { type: "boolean", short: "h" } } as const;
    const { values } = parseArgs({ args: process.argv.slice(2), options });
    if (values.help === true) {
      process.stdout.write(USAGE);
      process.exit(0);
    }
    return { deep: values.deep };
  } catch (error) {
    process.stderr.write(USAGE);
    return fail([(error as Error).message]);
  }
}

/** Progress is for a person who waits: one line that changes. */
function showProgress(report: AuditReport): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${progressLine(report)}`);
}

async function main(): Promise<void> {
  const { deep } = readArgs();
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop.abort());
  const random = (bytes: number): Uint8Array => new Uint8Array(randomBytes(bytes));
  try {
    const report = await auditCommand({
      env: process.env,
      deep,
      // What it finds is printed below; the log is for what goes wrong on the way.
      log: pino({ level: "fatal" }, pino.destination(2)),
      newId: (prefix) => newId(prefix, random),
      onPlace: (place) => process.stdout.write(`Auditing ${place}\n`),
      onProgress: showProgress,
      signal: stop.signal,
    });
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    process.stdout.write(reportText(report));
    process.exitCode = exitCodeOf(report);
  } catch (error) {
    if (error instanceof SettingsError) fail(error.problems);
    fail([(error as Error).message]);
  }
}

await main();
