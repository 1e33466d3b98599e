/**
 * Directories of boots under `journal/`, and who owns them. Each has claims `owner.<n>.json`; the highest number counts.
 * A claim is made with its content in one step and never changed, so that of several who want a dead boot's directory
 * exactly one gets it.
 */

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

/** Owners touch their claim this often. */
export const HEARTBEAT_MS = 5_000;
/** A claim from another machine or container, whose processes cannot be seen, is dead after this long without a touch. */
export const FOREIGN_DEAD_MS = 60_000;
/** Directories that were begun and never finished, or are half deleted, are cleared away after this long. */
const LEFTOVER_MS = 3_600_000;

export interface Owner {
  readonly pid: number;
  /** When the process began, as the system tells it: process ids are used again. */
  readonly start: string;
  /** Processes can be seen from each other where this is equal. */
  readonly machine: string;
  /** The node that the boot belongs to. */
  readonly nodeId: string;
}

interface Claim {
  readonly n: number;
  readonly path: string;
  readonly owner: Owner | null;
}

/** When a process began, in a form that only has to be equal for the same process; null if there is none. */
export function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may hold anything; the start time is the 20th field after it, the state the first.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? null : fields[19]!;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" && process.platform === "linux") return null;
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim() || null;
  } catch {
    return null;
  }
}

function machineName(): string {
  try {
    return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}

export function thisProcess(nodeId: string): Owner {
  return { pid: process.pid, start: processStart(process.pid) ?? "", machine: machineName(), nodeId };
}

function readOwner(path: string): Owner | null {
  try {
    const { pid, start, machine, nodeId } = JSON.parse(readFileSync(path, "utf8")) as Partial<Owner>;
    if (
      typeof pid !== "number" ||
      typeof start !== "string" ||
      typeof machine !== "string" ||
      typeof nodeId !== "string"
    )
      return null;
    return { pid, start, machine, nodeId };
  } catch {
    return null;
  }
}

/** The claims of a directory, the latest last. */
function claimsOf(dir: string): Claim[] {
  return readdirSync(dir)
    .map((name) => ({ name, n: Number(/^owner\.(\d+)\.json$/.exec(name)?.[1] ?? Number.NaN) }))
    .filter(({ n }) => Number.isInteger(n))
    .toSorted((a, b) => a.n - b.n)
    .map(({ name, n }) => ({ n, path: join(dir, name), owner: readOwner(join(dir, name)) }));
}

function isAlive(claim: Claim, self: Owner, nowMs: number): boolean {
  const { owner } = claim;
  if (owner === null) return false;
  if (owner.machine === self.machine) return processStart(owner.pid) === owner.start;
  return nowMs - statSync(claim.path).mtimeMs < FOREIGN_DEAD_MS;
}

/** False if somebody else has made claim number `n` first. */
function makeClaim(dir: string, n: number, owner: Owner): boolean {
  const draft = join(dir, `draft.${randomBytes(8).toString("hex")}`);
  writeFileSync(draft, JSON.stringify(owner), { mode: 0o600 });
  try {
    linkSync(draft, join(dir, `owner.${n}.json`));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    unlinkSync(draft);
  }
}

/** Makes the directory of a new boot, owned from the moment it can be seen. */
export function createBootDir(root: string, bootId: string, owner: Owner): string {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const draft = join(root, `.new-${bootId}`);
  mkdirSync(draft, { mode: 0o700 });
  makeClaim(draft, 0, owner);
  const dir = join(root, bootId);
  renameSync(draft, dir);
  return dir;
}

/** The boots that have a directory. */
export function listBoots(root: string): string[] {
  try {
    return readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name.startsWith("boot_"))
      .map(({ name }) => name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/**
 * Takes the directory of a dead boot over. Null if its owner lives, or another was faster, or it is gone; else the node
 * that the boot belonged to.
 */
export function takeOver(dir: string, self: Owner, nowMs: number): { readonly nodeId: string } | null {
  try {
    const claims = claimsOf(dir);
    const last = claims.at(-1);
    if (last !== undefined && isAlive(last, self, nowMs)) return null;
    if (!makeClaim(dir, (last?.n ?? -1) + 1, self)) return null;
    return { nodeId: claims[0]?.owner?.nodeId ?? self.nodeId };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Shows that the owner lives, to those who cannot see its process. */
export function touchClaim(dir: string, nowMs: number): void {
  try {
    const last = claimsOf(dir).at(-1);
    if (last !== undefined) utimesSync(last.path, nowMs / 1000, nowMs / 1000);
  } catch {
    // A directory that cannot be touched cannot be written either, which the journal tells.
  }
}

/** Deletes a directory whose records the ledger has. Out of sight first, so that nobody recovers the half of it. */
export function removeBootDir(root: string, bootId: string): void {
  const gone = join(root, `.done-${bootId}`);
  renameSync(join(root, bootId), gone);
  rmSync(gone, { recursive: true, force: true });
}

/** Clears away what crashed processes left half made or half deleted. */
export function removeLeftovers(root: string, nowMs: number): void {
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (!entry.isDirectory() || !/^\.(new|done)-/.test(entry.name)) continue;
    const path = join(root, entry.name);
    const isOld = (): boolean => nowMs - statSync(path).mtimeMs > LEFTOVER_MS;
    try {
      if (entry.name.startsWith(".done-") || isOld()) rmSync(path, { recursive: true, force: true });
    } catch {
      // Another process clears it away at the same time.
    }
  }
}
