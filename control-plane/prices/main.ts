/** The command line of `npm run prices`. Exit code 0: done, or nothing to do, 1: not wanted, 2: it could not be done. */

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { parseArgs } from "node:util";
import { MERCHANT_TOKEN_FILE } from "../home.ts";
import { EXIT_FAILED, importCommand, PricesCommandError } from "./command.ts";
import { PriceFileError } from "./json_fields.ts";

const URL_DEFAULT = "http://127.0.0.1:8080";
const HOME_DEFAULT = "./.tokenbill";
const FILE_BYTES_MAX = 16 * 1024 * 1024;

const USAGE = `Usage: npm run prices -- import FILE [--preview] [--yes] [--url URL] [--token-file FILE]

Sets the prices of a merchant's Physical Models from a file, after showing what it would change. The README says what
the file looks like.

  --preview           show it, and change nothing
  --yes               change it without asking
  --url URL           the control plane (default ${URL_DEFAULT})
  --token-file FILE   the merchant's API token (default $TOKENBILL_HOME/merchant.token)

Exit code: 0 done, or nothing to do; 1 not wanted; 2 it could not be done, and nothing was changed.
`;

function fail(message: string): never {
  process.stderr.write(`tokenbill prices: ${message}\n`);
  process.exit(EXIT_FAILED);
}

interface Args {
  readonly file: string;
  readonly preview: boolean;
  readonly yes: boolean;
  readonly url: string;
  readonly tokenFile: string;
}

function readArgs(): Args {
  const options = {
    preview: { type: "boolean", default: false },
    yes: { type: "boolean", default: false },
    url: { type: "string", default: URL_DEFAULT },
    "token-file": { type: "string", default: join(process.env["TOKENBILL_HOME"] || HOME_DEFAULT, MERCHANT_TOKEN_FILE) },
    help: { type: "boolean", short: "h", default: false },
  } as const;
  try {
    const { values, positionals } = parseArgs({ args: process.argv.slice(2), options, allowPositionals: true });
    if (values.help) {
      process.stdout.write(USAGE);
      process.exit(0);
    }
    const [verb, file, ...more] = positionals;
    if (verb !== "import" || file === undefined || more.length > 0) throw new Error("say: import FILE");
    const { preview, yes, "token-file": tokenFile } = values;
    const url = values.url.replace(/\/+$/, "");
    if (!/^https?:$/.test(URL.parse(url)?.protocol ?? "")) throw new Error(`--url: ${url} is no http URL`);
    return { file, preview, yes, url, tokenFile };
  } catch (error) {
    process.stderr.write(USAGE);
    return fail((error as Error).message);
  }
}

function readText(path: string, what: string): string {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > FILE_BYTES_MAX) return fail(`${path} is larger than ${FILE_BYTES_MAX} bytes`);
    return bytes.toString("utf8").replace(/^\ufeff/, "");
  } catch (error) {
    return fail(`${what} ${path} cannot be read: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`);
  }
}

async function ask(question: string): Promise<boolean | null> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) return null;
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `)).trim());
  } finally {
    lines.close();
  }
}

async function main(): Promise<void> {
  const { file, preview, yes, url, tokenFile } = readArgs();
  try {
    process.exitCode = await importCommand({
      url,
      token: readText(tokenFile, "the token in").trim(),
      text: readText(file, "the file"),
      preview,
      newRequestId: () => `prices-${randomBytes(16).toString("hex")}`,
      print: (text) => void process.stdout.write(text),
      confirm: (question) => (yes ? Promise.resolve(true) : ask(question)),
    });
  } catch (error) {
    if (error instanceof PriceFileError) fail(`${file}: ${error.message}`);
    if (error instanceof PricesCommandError) fail(error.message);
    fail((error as Error).stack ?? String(error));
  }
}

await main();
