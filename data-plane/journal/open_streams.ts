/** PURE. Streams that are live, with what would be billed if the node died now. */

import { FRAME_HEADER_BYTES, FrameType, sealFrame } from "./frame.ts";

interface OpenStream {
  readonly intent: Buffer;
  progress: Buffer | null;
}

export class OpenStreams {
  readonly #streams = new Map<string, OpenStream>();

  get size(): number {
    return this.#streams.size;
  }

  /** Payloads are copied: what they are views of is large and goes soon. */
  intent(id: string, payload: Buffer): void {
    this.#streams.set(id, { intent: Buffer.from(payload), progress: null });
  }

  progress(id: string, payload: Buffer): void {
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.progress = Buffer.from(payload);
  }

  settle(id: string): void {
    // Most requests are no streams: without any, the id need not be hashed.
    if (this.#streams.size > 0) this.#streams.delete(id);
  }

  entries(): Iterable<[string, { readonly intent: Buffer; readonly progress: Buffer | null }]> {
    return this.#streams;
  }

  /** All of them as frames, for the beginning of a segment. */
  encode(): Buffer {
    let bytes = 0;
    for (const { intent, progress } of this.#streams.values()) {
      bytes += FRAME_HEADER_BYTES + intent.length;
      if (progress !== null) bytes += FRAME_HEADER_BYTES + progress.length;
    }
    const buffer = Buffer.allocUnsafe(bytes);
    let at = 0;
    const put = (type: FrameType, payload: Buffer): void => {
      payload.copy(buffer, at + FRAME_HEADER_BYTES);
      at = sealFrame(buffer, at, type, payload.length);
    };
    for (const { intent, progress } of this.#streams.values()) {
      put(FrameType.INTENT, intent);
      if (progress !== null) put(FrameType.PROGRESS, progress);
    }
    return buffer;
  }
}
