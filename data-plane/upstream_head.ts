/** What matters of the head of an upstream's answer. */

import type { AnswerHeaders } from "./formats/format.ts";
import { RETRY_AFTER_MS_MAX } from "./health.ts";

/** Bodies of refusals are read up to this size. */
export const REFUSAL_BYTES_MAX = 64 * 1024;
const REQUEST_ID = /^[\x21-\x7e]{1,128}$/;
const REQUEST_ID_HEADERS = ["x-request-id", "request-id", "x-amzn-requestid"];

function first(headers: AnswerHeaders, name: string): string {
  const value = headers[name];
  return (Array.isArray(value) ? value[0] : value) ?? "";
}

/** Seconds, a date, or `retry-after-ms`, which wins; 0 if there is none. */
export function retryAfterMs(headers: AnswerHeaders, now: number): number {
  const ms = Number.parseFloat(first(headers, "retry-after-ms"));
  if (ms > 0) return Math.min(ms, RETRY_AFTER_MS_MAX);
  const text = first(headers, "retry-after");
  if (text === "") return 0;
  const wish = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return wish > 0 ? Math.min(wish, RETRY_AFTER_MS_MAX) : 0;
}

export class AnswerHead {
  readonly status: number;
  readonly headers: AnswerHeaders;
  readonly contentType: string;

  constructor(status: number, headers: AnswerHeaders) {
    this.status = status;
    this.headers = headers;
    this.contentType = first(headers, "content-type");
  }

  /** A header by its lower-case name; the first one if it came several times, "" if absent. */
  header(name: string): string {
    return first(this.headers, name);
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** False: compressed although that was not asked for, JSON in place of a stream, or a stream in place of JSON. */
  fits(stream: boolean): boolean {
    const encoding = first(this.headers, "content-encoding");
    if (encoding !== "" && encoding !== "identity") return false;
    return stream ? !this.contentType.includes("json") : !this.contentType.includes("event-stream");
  }

  retryAfterMs(now: number): number {
    return retryAfterMs(this.headers, now);
  }

  /** The upstream's own id of the call, for its support; "" if it gave none. */
  requestId(): string {
    for (const name of REQUEST_ID_HEADERS) {
      const id = first(this.headers, name);
      if (REQUEST_ID.test(id)) return id;
    }
    return "";
  }
}

/** Collects the body of a refusal. */
export class StatusBody {
  private chunks: Buffer[] = [];
  private size = 0;

  add(chunk: Buffer): void {
    if (this.size >= REFUSAL_BYTES_MAX) return;
    this.chunks.push(chunk.subarray(0, REFUSAL_BYTES_MAX - this.size));
    this.size += chunk.length;
  }

  bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
}
