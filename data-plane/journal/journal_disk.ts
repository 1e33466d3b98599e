/** What the journal needs of a disk and of the processes around it. The simulator gives others, which fail. */

import * as nodeFs from "node:fs";

type Done = (error: Error | null) => void;

/** What writes segments; a part of node:fs. */
export interface JournalFs {
  openSync(path: string, flags: string, mode?: number): number;
  writeSync(fd: number, buffer: Buffer, offset: number, length: number, position: number): number;
  closeSync(fd: number): void;
  fdatasync(fd: number, done: Done): void;
  fsync(fd: number, done: Done): void;
  unlink(path: string, done: Done): void;
}

/** What reads segments. */
export interface SegmentFs {
  readFile(path: string, done: (error: Error | null, bytes: Buffer) => void): void;
}

/** Everything, directories included. */
export interface JournalDisk extends JournalFs, SegmentFs {
  fsyncSync(fd: number): void;
  mkdirSync(path: string, options: { readonly recursive?: boolean; readonly mode: number }): string | undefined;
  readdirSync(path: string): string[];
  readFileSync(path: string, encoding: "utf8"): string;
  writeFileSync(path: string, text: string, options: { readonly mode: number }): void;
  linkSync(from: string, to: string): void;
  unlinkSync(path: string): void;
  renameSync(from: string, to: string): void;
  rmSync(path: string, options: { readonly recursive: boolean; readonly force: boolean }): void;
  truncateSync(path: string, bytes: number): void;
  statSync(path: string): { readonly mtimeMs: number; isDirectory(): boolean };
  utimesSync(path: string, atimeS: number, mtimeS: number): void;
}

export const NODE_DISK: JournalDisk = nodeFs;

export function readSegment(fs: SegmentFs, path: string): Promise<Buffer> {
  return new Promise((done, fail) => fs.readFile(path, (error, bytes) => (error === null ? done(bytes) : fail(error))));
}
