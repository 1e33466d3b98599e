/**
 * A disk as strict as POSIX allows: what was written survives the death of the process, what was not synced may be lost or
 * torn with the machine, names too. After a sync that failed nobody has what was not on disk, as Linux does it.
 */

import { dirname } from "node:path";
import type { JournalDisk } from "../../data-plane/journal/journal_disk.ts";
import type { Random } from "./random.ts";
import { type Actor, DeadProcessError, type Scheduler } from "./scheduler.ts";

class Inode {
  readonly isDir: boolean;
  bytes = 0;
  data: Buffer = EMPTY;
  /** What the disk has for good. */
  durable: Buffer = EMPTY;
  dirty: [start: number, end: number][] = [];
  mtimeMs: number;

  constructor(isDir: boolean, mtimeMs: number) {
    this.isDir = isDir;
    this.mtimeMs = mtimeMs;
  }

  write(source: Buffer, from: number, to: number, position: number): void {
    const end = position + to - from;
    if (end > this.data.length) {
      const larger = Buffer.alloc(Math.max(1024, end * 2));
      this.data.copy(larger, 0, 0, this.bytes);
      this.data = larger;
    }
    source.copy(this.data, position, from, to);
    this.bytes = Math.max(this.bytes, end);
    if (to > from) this.dirty.push([position, end]);
  }

  keep(start: number, end: number): void {
    if (end > this.durable.length)
      this.durable = Buffer.concat([this.durable, Buffer.alloc(end - this.durable.length)]);
    this.data.copy(this.durable, start, start, end);
  }
}

const EMPTY = Buffer.alloc(0);

function failure(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

export type DiskTrouble = "ENOSPC" | "EIO" | "sync" | null;

export class SimDisk {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  #names = new Map<string, Inode>();
  /** Names that a machine death may take back, and names that it may bring back. */
  #fresh = new Set<string>();
  #ghosts = new Map<string, Inode>();
  readonly #open = new Map<number, { inode: Inode; path: string; actor: Actor }>();
  #nextFd = 3;
  trouble: DiskTrouble = null;
  /** The next write is torn, and this called in the middle of it. */
  dieAtWrite: (() => void) | null = null;
  syncs = 0;
  torn = 0;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#names.set("/", new Inode(true, 0));
  }

  /** The machine dies: everything unsynced may be lost, whole or in part. */
  loseUnsynced(): void {
    const random = this.#random;
    for (const [path, inode] of this.#ghosts) if (random.chance(0.5)) this.#names.set(path, inode);
    for (const path of [...this.#fresh]) if (random.chance(0.5)) this.#drop(path);
    for (const inode of this.#names.values()) {
      for (const [start, end] of inode.dirty) {
        if (random.chance(0.4)) continue;
        const reached = random.chance(0.5) ? end : random.int(start, end);
        if (reached < end) this.torn++;
        inode.keep(start, reached);
      }
      inode.dirty = [];
      inode.data = Buffer.from(inode.durable);
      inode.bytes = inode.data.length;
    }
    // Where a directory is lost, so is everything in it.
    for (const path of [...this.#names.keys()]) if (!this.#reachable(path)) this.#names.delete(path);
    this.#fresh.clear();
    this.#ghosts.clear();
    this.#open.clear();
    this.trouble = null;
    this.dieAtWrite = null;
  }

  /** A new, empty disk. */
  wipe(): void {
    this.#names = new Map([["/", new Inode(true, 0)]]);
    this.#fresh.clear();
    this.#ghosts.clear();
    this.#open.clear();
    this.trouble = null;
  }

  /** Files whose path ends with `suffix`. */
  files(suffix: string): { readonly path: string; readonly bytes: Buffer }[] {
    return [...this.#names]
      .filter(([path, { isDir }]) => !isDir && path.endsWith(suffix))
      .map(([path, inode]) => ({ path, bytes: inode.data.subarray(0, inode.bytes) }));
  }

  /** A bit rots, in memory and on disk. */
  flip(path: string, at: number, bit: number): void {
    const inode = this.#names.get(path)!;
    inode.data[at]! ^= 1 << bit;
    if (at < inode.durable.length) inode.durable[at]! ^= 1 << bit;
  }

  #reachable(path: string): boolean {
    for (let up = path; up !== "/"; up = dirname(up)) if (!this.#names.has(up)) return false;
    return true;
  }

  #drop(path: string): void {
    for (const name of [...this.#names.keys()])
      if (name === path || name.startsWith(`${path}/`)) this.#names.delete(name);
  }

  #get(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw failure("ENOENT", path);
    return inode;
  }

  #add(path: string, inode: Inode): void {
    if (this.#names.get(dirname(path))?.isDir !== true) throw failure("ENOENT", path);
    this.#names.set(path, inode);
    this.#fresh.add(path);
  }

  #remove(path: string): void {
    this.#ghosts.set(path, this.#get(path));
    if (this.#fresh.delete(path)) this.#ghosts.delete(path);
    this.#names.delete(path);
  }

  #syncNames(dir: string): void {
    const inside = (path: string): boolean => dirname(path) === dir;
    for (const path of [...this.#fresh]) if (inside(path)) this.#fresh.delete(path);
    for (const path of [...this.#ghosts.keys()]) if (inside(path)) this.#ghosts.delete(path);
  }

  /** The disk as one process sees it. */
  view(actor: Actor): JournalDisk {
    const scheduler = this.#scheduler;
    const alive = (): void => {
      if (!actor.alive) throw new DeadProcessError();
    };
    const later = (run: () => void): void => {
      const slow = this.#random.chance(0.02) ? 200 : 0;
      scheduler.after(this.#random.between(0.1, 3) + slow, run, actor);
    };
    const write = (fd: number, buffer: Buffer, at: number, length: number, position: number): number => {
      alive();
      const file = this.#open.get(fd);
      if (file === undefined) throw failure("EBADF", String(fd));
      if (this.dieAtWrite !== null) {
        file.inode.write(buffer, at, at + this.#random.int(0, length), position);
        this.torn++;
        const die = this.dieAtWrite;
        this.dieAtWrite = null;
        die();
        throw new DeadProcessError();
      }
      if (this.trouble === "ENOSPC" || this.trouble === "EIO") {
        if (length > 8 && this.#random.chance(0.5)) {
          file.inode.write(buffer, at, at + 8, position);
          return 8;
        }
        throw failure(this.trouble, file.path);
      }
      file.inode.write(buffer, at, at + length, position);
      return length;
    };
    const sync = (fd: number, done: (error: Error | null) => void): void => {
      alive();
      const file = this.#open.get(fd);
      if (file === undefined) return later(() => done(failure("EBADF", String(fd))));
      const { inode, path } = file;
      const ranges = inode.dirty;
      later(() => {
        this.syncs++;
        if (this.trouble === "sync" || this.trouble === "EIO") {
          inode.dirty = inode.dirty.filter((range) => !ranges.includes(range));
          return done(failure("EIO", path));
        }
        for (const [start, end] of ranges) inode.keep(start, end);
        inode.dirty = inode.dirty.filter((range) => !ranges.includes(range));
        if (inode.isDir) this.#syncNames(path);
        done(null);
      });
    };
    return { ...this.#namesOf(actor, alive), writeSync: write, fdatasync: sync, fsync: sync };
  }

  #namesOf(actor: Actor, alive: () => void): Omit<JournalDisk, "writeSync" | "fdatasync" | "fsync"> {
    const scheduler = this.#scheduler;
    const make = (isDir: boolean): Inode => new Inode(isDir, scheduler.wall(actor));
    const full = (path: string): void => {
      if (this.trouble === "ENOSPC") throw failure("ENOSPC", path);
    };
    const moved = (path: string, from: string, to: string): string => to + path.slice(from.length);
    return {
      openSync: (path, flags) => {
        alive();
        if (flags === "wx") {
          if (this.#names.has(path)) throw failure("EEXIST", path);
          full(path);
          this.#add(path, make(false));
        }
        this.#open.set(this.#nextFd, { inode: this.#get(path), path, actor });
        return this.#nextFd++;
      },
      closeSync: (fd) => void this.#open.delete(fd),
      fsyncSync: (fd) => {
        alive();
        this.#syncNames(this.#open.get(fd)!.path);
      },
      unlink: (path, done) => {
        alive();
        if (this.#names.has(path)) this.#remove(path);
        scheduler.after(0.1, () => done(null), actor);
      },
      unlinkSync: (path) => (alive(), this.#remove(path)),
      readFile: (path, done) => {
        alive();
        scheduler.after(
          this.#random.between(0.1, 2),
          () => {
            const inode = this.#names.get(path);
            if (inode === undefined) done(failure("ENOENT", path), EMPTY);
            else done(null, Buffer.from(inode.data.subarray(0, inode.bytes)));
          },
          actor,
        );
      },
      readFileSync: (path) => {
        alive();
        const { data, bytes } = this.#get(path);
        return data.toString("utf8", 0, bytes);
      },
      writeFileSync: (path, text) => {
        alive();
        full(path);
        const inode = make(false);
        inode.write(Buffer.from(text), 0, Buffer.byteLength(text), 0);
        this.#add(path, inode);
      },
      linkSync: (from, to) => {
        alive();
        if (this.#names.has(to)) throw failure("EEXIST", to);
        this.#add(to, this.#get(from));
      },
      renameSync: (from, to) => {
        alive();
        this.#get(from);
        for (const path of [...this.#names.keys()]) {
          if (path !== from && !path.startsWith(`${from}/`)) continue;
          const inode = this.#get(path);
          this.#remove(path);
          this.#add(moved(path, from, to), inode);
        }
      },
      rmSync: (path) => {
        alive();
        for (const name of [...this.#names.keys()])
          if (name === path || name.startsWith(`${path}/`)) this.#remove(name);
      },
      mkdirSync: (path) => {
        alive();
        const missing: string[] = [];
        for (let up = path; !this.#names.has(up); up = dirname(up)) missing.unshift(up);
        for (const each of missing) this.#add(each, make(true));
        return missing[0];
      },
      readdirSync: (path) => {
        alive();
        this.#get(path);
        return [...this.#names.keys()]
          .filter((name) => name !== "/" && dirname(name) === path)
          .map((name) => name.slice(name.lastIndexOf("/") + 1));
      },
      truncateSync: (path, bytes) => {
        alive();
        const inode = this.#get(path);
        inode.bytes = bytes;
        inode.data = Buffer.from(inode.data.subarray(0, bytes));
        inode.durable = inode.durable.subarray(0, bytes);
        inode.dirty = inode.dirty.map(([start, end]) => [Math.min(start, bytes), Math.min(end, bytes)]);
      },
      statSync: (path) => {
        alive();
        const { mtimeMs, isDir } = this.#get(path);
        return { mtimeMs, isDirectory: () => isDir };
      },
      utimesSync: (path, _atimeS, mtimeS) => {
        alive();
        this.#get(path).mtimeMs = mtimeS * 1000;
      },
    };
  }
}
