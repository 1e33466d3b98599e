/** The spools of one process, and their directory. */

import fs from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { SpoolRoom } from "./spool_room.ts";
import { Spool } from "./spool.ts";
import type { SpoolFs } from "./spool_types.ts";

/** Of all spools together in memory; beyond it bodies go to the disk at once. */
export const SPOOLS_MEMORY_BYTES_MAX = 128 * 1024 * 1024;
/** Of all spools together on the disk; beyond it further bodies fail. */
export const SPOOLS_DISK_BYTES_MAX = 16 * 1024 * 1024 * 1024;
/** Bodies at a time. Each may have a file open. */
export const SPOOLS_MAX = 4096;

export interface SpoolsOptions {
  /** Of this deployment's own; workers of one node share it. */
  readonly dir: string;
  /** A name that no other process uses. */
  newId(): string;
  readonly memoryBytesMax?: number;
  readonly diskBytesMax?: number;
  readonly spoolsMax?: number;
  readonly fs?: SpoolFs;
}

/** The names of files: others that stand in the directory are left alone. */
const SUFFIX = ".body";

export class Spools {
  /** Spools that are not closed to the last descriptor. */
  live = 0;
  private readonly options: SpoolsOptions;
  private readonly room: SpoolRoom;

  private constructor(options: SpoolsOptions) {
    this.options = options;
    const { memoryBytesMax = SPOOLS_MEMORY_BYTES_MAX, diskBytesMax = SPOOLS_DISK_BYTES_MAX } = options;
    this.room = new SpoolRoom(memoryBytesMax, diskBytesMax);
  }

  /**
   * Makes the directory, for this user alone, and removes what a crash left there. A file of another worker that is just
   * being opened may be among it: that one loses its name a little early.
   * @throws when the directory cannot be used
   */
  static async open(options: SpoolsOptions): Promise<Spools> {
    await mkdir(options.dir, { recursive: true, mode: 0o700 });
    for (const name of await readdir(options.dir)) {
      if (name.endsWith(SUFFIX)) await rm(join(options.dir, name), { force: true });
    }
    return new Spools(options);
  }

  get memoryBytes(): number {
    return this.room.memoryBytes;
  }

  get diskBytes(): number {
    return this.room.diskBytes;
  }

  /** A spool for one body, of so many bytes if the client said; null: there are too many. */
  create(announced: number | null): Spool | null {
    const { dir, newId, spoolsMax = SPOOLS_MAX } = this.options;
    if (this.live >= spoolsMax) return null;
    this.live++;
    const path = join(dir, newId() + SUFFIX);
    return new Spool(this.room, this.options.fs ?? fs, path, announced, () => void this.live--);
  }
}
