/** The client of an admitted request, as its answer sees it: whether it is there and reads, and what it gets last. */

import { addAnswerHeaders, type Last, replyLast } from "./reply.ts";
import type { Exchange } from "./transport.ts";

export class Client {
  readonly exchange: Exchange;
  /** It left; the answer is only read for its usage. */
  gone = false;
  /** It reads more slowly than the upstream sends, which waits meanwhile. */
  paused = false;
  /** What goes out last, once the settlement is journaled. */
  last: Last = null;
  private readonly headers: string[];

  /** `headers` are those that the answer has in any case. */
  constructor(exchange: Exchange, headers: string[]) {
    this.exchange = exchange;
    this.headers = headers;
  }

  /** The head of an answer that a target gave. `bytes` is the length of the answer if it is known. */
  writeHead(status: number, stream: boolean, contentType: string, bytes: number | null, attempts: number): void {
    if (this.gone) return;
    addAnswerHeaders(this.headers, stream, contentType, bytes, attempts);
    this.exchange.writeHead(status, this.headers);
  }

  /** False: it is full, and the upstream should wait. */
  write(bytes: Uint8Array): boolean {
    if (this.gone || this.exchange.write(bytes)) return true;
    this.paused = true;
    return false;
  }

  finish(): void {
    if (!this.gone) replyLast(this.exchange, this.headers, this.last);
  }

  /** The answer breaks off without a word. */
  destroy(): void {
    if (!this.gone) this.exchange.destroy();
  }
}
