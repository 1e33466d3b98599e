/** A `BodySource` as the stream that undici takes. */

import { Readable } from "node:stream";
import type { BodyReading, BodySource } from "./transport.ts";

/** Code of the error that a call fails with when its own body could not be read. */
export const BODY_FAILED = "REQUEST_BODY_FAILED";
/** So much of a body waits here for its connection. */
const WAITING_BYTES_MAX = 64 * 1024;

/** Opens its source with the first read, and closes it when it is destroyed, whoever does that. */
export class SourceReadable extends Readable {
  private readonly source: BodySource;
  private readonly onSent: () => void;
  private reading: BodyReading | null = null;

  /** `onSent` is called when the source was read to its end. */
  constructor(source: BodySource, onSent: () => void) {
    super({ highWaterMark: WAITING_BYTES_MAX });
    this.source = source;
    this.onSent = onSent;
    // A call that is over takes its listeners away, and an error that nobody hears would end the process.
    this.on("error", () => undefined);
    this.on("end", () => this.onSent());
  }

  override _read(): void {
    if (this.reading !== null) return this.reading.resume();
    this.reading = this.source.open({
      onChunk: (chunk) => {
        if (!this.push(chunk)) this.reading?.pause();
      },
      onEnd: () => void this.push(null),
      onError: (cause) => void this.destroy(Object.assign(new Error(cause.message, { cause }), { code: BODY_FAILED })),
    });
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.reading?.close();
    done(error);
  }
}
