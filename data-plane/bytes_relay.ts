/** Answers that are neither JSON nor frames, such as speech. */

import type { LongReading } from "./formats/format.ts";
import type { Delivered, Relay, RelayHost } from "./relay.ts";
import type { AnswerHead } from "./upstream_head.ts";

/** Passes bytes on as they come. The last ones wait for the settlement. */
export class BytesRelay implements Relay {
  committed = false;
  private readonly host: RelayHost;
  private readonly reading: LongReading;
  private readonly contentType: string;
  private last: Buffer | null = null;
  private stopped = false;

  constructor(host: RelayHost, reading: LongReading, head: AnswerHead) {
    this.host = host;
    this.reading = reading;
    this.contentType = head.contentType;
  }

  onChunk(chunk: Buffer): void {
    if (this.stopped || chunk.length === 0) return;
    this.reading.push(chunk);
    if (!this.committed) {
      this.committed = true;
      this.host.commit(this.contentType, null);
    }
    if (this.last !== null) this.host.write(this.last);
    this.last = chunk;
  }

  onEnd(): void {
    if (this.stopped) return;
    if (!this.committed) return this.host.badAnswer("empty");
    this.host.complete(this.last);
  }

  delivered(): Delivered {
    const { usage, counted } = this.reading;
    return { usage, counted, outputTokens: 0, pieces: 0, hasContent: this.committed, text: null };
  }

  lengthFrame(): null {
    return null;
  }

  stop(): void {
    this.stopped = true;
    this.last = null;
  }
}
