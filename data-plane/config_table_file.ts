/**
 * The last good route table on disk, so that a node serves before it hears from the control plane: the events of the feed
 * themselves, encrypted, since they hold credentials. A snapshot begins a new file; deltas are appended to it.
 *
 *     file    magic 8 bytes | salt 16 bytes | frame …
 *     frame   length u32 | nonce 12 bytes | ciphertext | tag 16 bytes; the frame's index is authenticated with it
 *     content of a frame: length-delimited WatchConfigResponse messages
 *
 * AES-256-GCM; the key comes from the node token and the salt by HKDF-SHA-256.
 */

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync, truncateSync } from "node:fs";
import { type FileHandle, mkdir, open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Logger } from "pino";
import {
  type WatchConfigResponse,
  WatchConfigResponseSchema,
} from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";

const MAGIC = Buffer.from("TBTABLE1", "latin1");
const SALT_BYTES = 16;
const HEADER_BYTES = MAGIC.length + SALT_BYTES;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const FRAME_HEADER_BYTES = 4 + NONCE_BYTES;
/** No frame is larger: a larger length is damage. */
const FRAME_BYTES_MAX = 64 * 1024 * 1024;
/** Events wait this long for others to share their frame, unless they are many. */
export const FLUSH_MS = 500;
const FRAME_TARGET_BYTES = 1024 * 1024;
/** Deltas beyond this, and beyond the snapshot they follow, call for a fresh snapshot. */
export const DELTA_BYTES_MIN = 16 * 1024 * 1024;

function deriveKey(nodeToken: string, salt: Uint8Array): Buffer {
  return Buffer.from(hkdfSync("sha256", nodeToken, salt, "tokenbill route table", 32));
}

function indexBytes(index: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(index));
  return bytes;
}

function seal(key: Buffer, index: number, content: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(indexBytes(index));
  const body = [cipher.update(content), cipher.final()];
  const length = Buffer.alloc(4);
  length.writeUInt32LE(content.length + TAG_BYTES);
  return Buffer.concat([length, nonce, ...body, cipher.getAuthTag()]);
}

/** @throws if the frame is not what was written */
function unseal(key: Buffer, index: number, nonce: Buffer, sealed: Buffer): Buffer {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES }).setAAD(indexBytes(index));
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES)), decipher.final()]);
}

/** Events that only count when they come. */
const PASSING: ReadonlySet<string> = new Set(["wallet", "checkpoint", "health"]);

interface Found {
  readonly key: Buffer;
  readonly frames: number;
  /** Where the last whole frame ends. */
  readonly bytes: number;
}

function readAt(fd: number, position: number, length: number): Buffer | null {
  const buffer = Buffer.allocUnsafe(length);
  let read = 0;
  while (read < length) {
    const got = readSync(fd, buffer, read, length - read, position + read);
    if (got === 0) return null;
    read += got;
  }
  return buffer;
}

/** Calls `onFrame` for every whole frame. A cut tail ends the file; @throws if a frame is damaged or the key is wrong. */
function readFrames(fd: number, nodeToken: string, onFrame: (content: Buffer) => void): Found {
  const header = readAt(fd, 0, HEADER_BYTES);
  if (header === null || !header.subarray(0, MAGIC.length).equals(MAGIC)) throw new Error("not a route table");
  const key = deriveKey(nodeToken, header.subarray(MAGIC.length));
  const size = fstatSync(fd).size;
  let at = HEADER_BYTES;
  for (let frames = 0; ; frames++) {
    const head = at + FRAME_HEADER_BYTES <= size ? readAt(fd, at, FRAME_HEADER_BYTES) : null;
    const length = head?.readUInt32LE(0) ?? 0;
    if (length > FRAME_BYTES_MAX) throw new Error("damaged");
    const end = at + FRAME_HEADER_BYTES + length;
    const sealed = head !== null && end <= size ? readAt(fd, at + FRAME_HEADER_BYTES, length) : null;
    if (head === null || sealed === null) return { key, frames, bytes: at };
    onFrame(unseal(key, frames, head.subarray(4), sealed));
    at = end;
  }
}

function decodeEvents(content: Buffer, onEvent: (event: WatchConfigResponse) => void): void {
  for (let at = 0; at < content.length;) {
    const length = content.readUInt32LE(at);
    onEvent(fromBinary(WatchConfigResponseSchema, content.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
}

export interface TableFileOptions {
  readonly path: string;
  readonly nodeToken: string;
  readonly log: Logger;
  /** False: another worker writes the file, this one only reads it. */
  readonly writes: boolean;
  readonly deltaBytesMin?: number;
}

export class TableFile {
  readonly #options: TableFileOptions;
  #writes: boolean;
  /** The file was written by somebody else since it was read: only a snapshot can follow. */
  #foreign = false;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  /** Writes happen one after the other. */
  #queue: Promise<void> = Promise.resolve();
  #file: {
    handle: FileHandle;
    key: Buffer;
    frames: number;
    isNew: boolean;
    snapshotBytes: number;
    deltaBytes: number;
  } | null = null;
  #found: Found | null = null;

  constructor(options: TableFileOptions) {
    this.#options = options;
    this.#writes = options.writes;
  }

  /** Who wrote the file is gone; from now on it is written here, beginning with the next snapshot. */
  takeOver(): void {
    if (this.#writes) return;
    this.#writes = true;
    this.#foreign = true;
    this.#found = null;
  }

  /** Gives every event in the file to `onEvent`. A file that is damaged or was written with another token gives none. */
  load(onEvent: (event: WatchConfigResponse) => void): void {
    const { path, nodeToken, log } = this.#options;
    let fd: number;
    try {
      fd = openSync(path, "r");
    } catch {
      return;
    }
    try {
      // Read twice, so that nothing of a file counts unless all of it is sound.
      const found = readFrames(fd, nodeToken, () => undefined);
      readFrames(fd, nodeToken, (content) => decodeEvents(content, onEvent));
      this.#found = found;
      if (this.#writes && fstatSync(fd).size > found.bytes) truncateSync(path, found.bytes);
    } catch (error) {
      log.warn(
        { reason: (error as Error).message },
        "the stored route table cannot be used; waiting for the control plane",
      );
    } finally {
      closeSync(fd);
    }
  }

  /** Keeps an event of the feed. Resolves when there is room for the next. */
  async keep(event: WatchConfigResponse): Promise<void> {
    const kind = event.event.case;
    if (!this.#writes || kind === undefined || PASSING.has(kind)) return;
    if (kind === "snapshotBegin") {
      this.#foreign = false;
      this.flush();
      this.#enqueue(() => this.#begin());
    }
    const bytes = toBinary(WatchConfigResponseSchema, event);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    this.#pending.push(length, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    this.#pendingBytes += 4 + bytes.length;
    if (kind === "snapshotEnd") {
      this.flush();
      this.#enqueue(() => this.#finish());
    } else if (this.#pendingBytes >= FRAME_TARGET_BYTES) {
      this.flush();
      await this.#queue;
    } else {
      this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
    }
  }

  /** True when only a fresh snapshot can be written, or the file has grown so much that one would be shorter to read. */
  get wantsSnapshot(): boolean {
    if (this.#foreign) return true;
    if (this.#file === null || this.#file.isNew) return false;
    const { deltaBytes, snapshotBytes } = this.#file;
    return deltaBytes > Math.max(snapshotBytes, this.#options.deltaBytesMin ?? DELTA_BYTES_MIN);
  }

  /** Writes what is waiting. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#pending.length === 0) return;
    const content = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#enqueue(() => this.#append(content));
  }

  async close(): Promise<void> {
    this.flush();
    this.#enqueue(async () => {
      await this.#file?.handle.close();
      this.#file = null;
    });
    await this.#queue;
  }

  #enqueue(step: () => Promise<void>): void {
    this.#queue = this.#queue.then(step).catch((error: unknown) => {
      this.#options.log.warn(
        { reason: (error as Error).message },
        "the route table could not be stored; a restart will need the control plane",
      );
      this.#file = null;
      this.#found = null;
    });
  }

  async #begin(): Promise<void> {
    await this.#file?.handle.close();
    this.#file = null;
    this.#found = null;
    const { path, nodeToken } = this.#options;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const handle = await open(`${path}.new`, "w", 0o600);
    const salt = randomBytes(SALT_BYTES);
    await handle.write(Buffer.concat([MAGIC, salt]));
    this.#file = { handle, key: deriveKey(nodeToken, salt), frames: 0, isNew: true, snapshotBytes: 0, deltaBytes: 0 };
  }

  /** A delta after a restart goes to the end of the file that was loaded. */
  async #reopen(): Promise<void> {
    if (this.#found === null) return;
    const { key, frames, bytes } = this.#found;
    const handle = await open(this.#options.path, "a", 0o600);
    this.#file = { handle, key, frames, isNew: false, snapshotBytes: bytes, deltaBytes: 0 };
  }

  async #append(content: Buffer): Promise<void> {
    if (this.#file === null) await this.#reopen();
    const file = this.#file;
    // Without a snapshot to follow, a delta is of no use.
    if (file === null) return;
    const frame = seal(file.key, file.frames, content);
    await file.handle.write(frame);
    file.frames++;
    if (file.isNew) file.snapshotBytes += frame.length;
    else file.deltaBytes += frame.length;
  }

  async #finish(): Promise<void> {
    if (this.#file === null) return;
    await this.#file.handle.sync();
    await rename(`${this.#options.path}.new`, this.#options.path);
    this.#file.isNew = false;
  }
}
