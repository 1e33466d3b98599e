/**
 * Directories of boots under `journal/`, and who owns them. Each has claims `owner.<n>.json`; the highest number counts.
 * A claim is made with its content in one step and never changed, so that of several who want a dead boot's directory
 * exactly one gets it.
 */

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type JournalDisk, NODE_DISK } from "./journal_disk.ts";

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

/** The disk with the directories, and how the processes of this machine are seen. */
export interface Host {
  readonly disk: JournalDisk;
  /** As `processStart`. */
  processStart(pid: number): string | null;
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

export const THIS_HOST: Host = { disk: NODE_DISK, processStart };

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

function readOwner(disk: JournalDisk, path: string): Owner | null {
  try {
    const { pid, start, machine, nodeId } = JSON.parse(disk.readFileSync(path, "utf8")) as Partial<Owner>;
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
function claimsOf(disk: JournalDisk, dir: string): Claim[] {
  return disk
    .readdirSync(dir)
    .map((name) => ({ name, n: Number(/^owner\.(\d+)\.json$/.exec(name)?.[1] ?? Number.NaN) }))
    .filter(({ n }) => Number.isInteger(n))
    .toSorted((a, b) => a.n - b.n)
    .map(({ name, n }) => ({ n, path: join(dir, name), owner: readOwner(disk, join(dir, name)) }));
}

function isAlive(host: Host, claim: Claim, self: Owner, nowMs: number): boolean {
  const { owner } = claim;
  if (owner === null) return false;
  if (owner.machine === self.machine) return host.processStart(owner.pid) === owner.start;
  return nowMs - host.disk.statSync(claim.path).mtimeMs < FOREIGN_DEAD_MS;
}

/** False if somebody else has made claim number `n` first. */
function makeClaim(disk: JournalDisk, dir: string, n: number, owner: Owner): boolean {
  const draft = join(dir, `draft.${randomBytes(8).toString("hex")}`);
  disk.writeFileSync(draft, JSON.stringify(owner), { mode: 0o600 });
  try {
    disk.linkSync(draft, join(dir, `owner.${n}.json`));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  } finally {
    disk.unlinkSync(draft);
  }
}

/** Makes the directory of a new boot, owned from the moment it can be seen. */
export function createBootDir(root: string, bootId: string, owner: Owner, disk = NODE_DISK): string {
  const first = disk.mkdirSync(root, { recursive: true, mode: 0o700 });
  const draft = join(root, `.new-${bootId}`);
  disk.mkdirSync(draft, { mode: 0o700 });
  makeClaim(disk, draft, 0, owner);
  const dir = join(root, bootId);
  disk.renameSync(draft, dir);
  // Synced files are worth nothing while the way to them can be lost with the machine.
  const kept = dirname(resolve(first ?? dir));
  for (let made = resolve(dir); made !== kept; made = dirname(made)) syncDir(disk, made);
  syncDir(disk, kept);
  return dir;
}

function syncDir(disk: JournalDisk, path: string): void {
  const fd = disk.openSync(path, "r");
  try {
    disk.fsyncSync(fd);
  } finally {
    disk.closeSync(fd);
  }
}

/** The boots that have a directory. */
export function listBoots(root: string, disk = NODE_DISK): string[] {
  try {
    return disk.readdirSync(root).filter((name) => name.startsWith("boot_"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/**
 * Takes the directory of a dead boot over. Null if its owner lives, or another was faster, or it is gone; else the node
 * that the boot belonged to.
 */
export function takeOver(
  dir: string,
  self: Owner,
  nowMs: number,
  host = THIS_HOST,
): { readonly nodeId: string } | null {
  try {
    const claims = claimsOf(host.disk, dir);
    const last = claims.at(-1);
    if (last !== undefined && isAlive(host, last, self, nowMs)) return null;
    if (!makeClaim(host.disk, dir, (last?.n ?? -1) + 1, self)) return null;
    return { nodeId: claims[0]?.owner?.nodeId ?? self.nodeId };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Shows that the owner lives, to those who cannot see its process. False: the directory or its claims are gone. */
export function touchClaim(dir: string, nowMs: number, disk = NODE_DISK): boolean {
  try {
    const last = claimsOf(disk, dir).at(-1);
    if (last === undefined) return false;
    disk.utimesSync(last.path, nowMs / 1000, nowMs / 1000);
    return true;
  } catch (error) {
    // A directory that cannot be touched for another reason cannot be written either, which the journal tells.
    const { code } = error as NodeJS.ErrnoException;
    return code !== "ENOENT" && code !== "ENOTDIR";
  }
}

/** Deletes a directory whose records the ledger has. Out of sight first, so that nobody recovers the half of it. */
export function removeBootDir(root: string, bootId: string, disk = NODE_DISK): void {
  const gone = join(root, `.done-${bootId}`);
  try {
    disk.renameSync(join(root, bootId), gone);
  } catch (error) {
    // Somebody removed it before: that is what was wanted.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  disk.rmSync(gone, { recursive: true, force: true });
}

/** Clears away what crashed processes left half made or half deleted. */
export function removeLeftovers(root: string, nowMs: number, disk = NODE_DISK): void {
  for (const name of disk.readdirSync(root)) {
    if (!/^\.(new|done)-/.test(name)) continue;
    const path = join(root, name);
    const isOld = (): boolean => nowMs - disk.statSync(path).mtimeMs > LEFTOVER_MS;
    try {
      if (name.startsWith(".done-") || isOld()) disk.rmSync(path, { recursive: true, force: true });
    } catch {
      // Another process clears it away at the same time.
    }
  }
}
