/** The files of the home that hold secrets. */

import { mkdirSync, readFileSync, renameSync, writeFileSync, chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { decodeMasterKey } from "./settings.ts";

export const MASTER_KEY_FILE = "master.key";
export const MERCHANT_TOKEN_FILE = "merchant.token";
export const OPERATOR_TOKEN_FILE = "operator.token";
export const NODE_TOKEN_FILE = "node.token";

const SECRET_MODE = 0o600;
const HOME_MODE = 0o700;

/** The home cannot be used as it is: the message is one clear line for the operator. */
export class HomeError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "HomeError";
  }
}

export function makeHome(home: string): void {
  try {
    mkdirSync(home, { recursive: true, mode: HOME_MODE });
  } catch (error) {
    throw new HomeError(`TOKENBILL_HOME: ${home} cannot be made: ${(error as Error).message}`);
  }
}

/** The trimmed text of a file, or null when there is none. @throws HomeError when it is there but cannot be read */
export function readHomeFile(home: string, file: string): string | null {
  try {
    return readFileSync(join(home, file), "utf8").trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new HomeError(`${join(home, file)} cannot be read: ${(error as Error).message}`);
  }
}

/** Writes a file whole or not at all, readable by the owner alone. */
export function writeHomeFile(home: string, file: string, text: string): void {
  const temporary = join(home, `.${file}.${process.pid}`);
  try {
    writeFileSync(temporary, `${text}\n`, { mode: SECRET_MODE, flush: true });
    chmodSync(temporary, SECRET_MODE);
    renameSync(temporary, join(home, file));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new HomeError(`${join(home, file)} cannot be written: ${(error as Error).message}`);
  }
}

/** The master key in the home, or null when there is none. @throws HomeError when the file is not one */
export function readMasterKey(home: string): Uint8Array | null {
  const text = readHomeFile(home, MASTER_KEY_FILE);
  if (text === null) return null;
  const key = decodeMasterKey(text);
  if (key === null)
    throw new HomeError(`${join(home, MASTER_KEY_FILE)} does not hold 32 bytes in base64: restore it from a backup`);
  return key;
}
