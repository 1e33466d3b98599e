/** What Vite made of clients/console, in memory: only what was there at the start can be asked for. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import type { Encoding } from "./accept.ts";

/** A build above these is none of ours. */
const FILES_MAX = 1_000;
const FILE_BYTES_MAX = 16 * 1024 * 1024;

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  json: "application/json",
  svg: "image/svg+xml",
  txt: "text/plain; charset=utf-8",
  webmanifest: "application/manifest+json",
  ico: "image/x-icon",
  png: "image/png",
  jpg: "image/jpeg",
  webp: "image/webp",
  woff2: "font/woff2",
};
/** Two levels more take ten to thirty times as long and save a tenth; the first payer waits for it. */
const BROTLI_QUALITY = 9;
const COMPRESSED = /^(text\/|application\/|image\/svg)/;

const compressWith: Readonly<Record<Encoding, (bytes: Uint8Array) => Promise<Uint8Array>>> = {
  br: (bytes) =>
    promisify(brotliCompress)(bytes, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY,
        [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
      },
    }),
  gzip: (bytes) => promisify(gzip)(bytes, { level: 9 }),
};

export class ConsoleFile {
  readonly type: string;
  readonly bytes: Uint8Array;
  readonly #compressed = new Map<Encoding, Promise<Uint8Array>>();

  constructor(type: string, bytes: Uint8Array) {
    this.type = type;
    this.bytes = bytes;
  }

  get compressible(): boolean {
    return COMPRESSED.test(this.type);
  }

  /** Compressed when it is first asked for, beside the event loop. */
  in(encoding: Encoding): Promise<Uint8Array> {
    let done = this.#compressed.get(encoding);
    if (done === undefined) {
      done = compressWith[encoding](this.bytes);
      this.#compressed.set(encoding, done);
    }
    return done;
  }
}

/** Files by their path below `dist`, with slashes: `assets/checkout-a1b2.js`. */
export type ConsoleFiles = ReadonlyMap<string, ConsoleFile>;

/**
 * Reads a build. Hidden files and those of unknown types, source maps among them, are left out. Null: there is none.
 * @throws the file system's error when it is there and cannot be read
 */
export function readConsoleFiles(dist: string): ConsoleFiles | null {
  if (statSync(join(dist, "checkout.html"), { throwIfNoEntry: false })?.isFile() !== true) return null;
  const files = new Map<string, ConsoleFile>();
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const name = relative(dist, path).split(sep).join("/");
    const type = TYPES[/\.([a-z0-9]+)$/.exec(name)?.[1] ?? ""];
    if (type === undefined || /(^|\/)\./.test(name)) continue;
    const bytes = readFileSync(path);
    if (bytes.length > FILE_BYTES_MAX || files.size >= FILES_MAX) throw new RangeError(`${dist} is too large`);
    files.set(name, new ConsoleFile(type, bytes));
  }
  return files;
}
