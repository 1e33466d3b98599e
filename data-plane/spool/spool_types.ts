/** What the parts of a spool share. */

/** Why a body cannot be read to its end. */
export type SpoolFailure =
  /** No space is left on the device, or none that this user may have. */
  | "disk_full"
  /** Everything else that a file system says. */
  | "disk_error"
  /** This process has as much spooled as it may. */
  | "no_room"
  /** The client did not send all of it. */
  | "cut"
  /** The spool was closed: its request is over. */
  | "closed";

export class SpoolError extends Error {
  readonly code: SpoolFailure;
  /** `detail`: the file system's code, for logs. */
  constructor(code: SpoolFailure, detail: string) {
    super(detail === "" ? `request body: ${code}` : `request body: ${code} (${detail})`);
    this.code = code;
  }
}

type Over = (error: NodeJS.ErrnoException | null) => void;
type Done<T> = (error: NodeJS.ErrnoException | null, result: T) => void;

/** The calls of `node:fs` that a spool makes, none of which blocks. */
export interface SpoolFs {
  open(path: string, flags: string, mode: number, done: Done<number>): void;
  write(fd: number, bytes: Uint8Array, from: number, length: number, at: number, done: Done<number>): void;
  read(fd: number, bytes: Uint8Array, from: number, length: number, at: number, done: Done<number>): void;
  unlink(path: string, done: Over): void;
  close(fd: number, done: Over): void;
}
