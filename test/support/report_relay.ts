/**
 * Stands between nodes and the replicas of the control plane, at the level of HTTP/2: everything passes, but each usage
 * report is sent on several times, to replicas drawn at random, late and out of order, and the node gets the answer to one
 * of them, or none at all although the report was applied.
 */

import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const REPORT_PATH = "/tokenbill.node.v1.UsageReportService/ReportUsage";
/** A copy that a replica could not take is tried again, so that every report really is sent so often. */
const COPY_TRIES_MAX = 20;
const COPY_RETRY_MS = 250;

export interface RelayOptions {
  /** host:port of each replica. */
  readonly replicas: readonly string[];
  /** How often each report is sent on. */
  readonly copies: number;
  /** The copies come up to this much later than the report. */
  readonly delayMsMax: number;
  /** Of the answers, in [0, 1]: so many never come, after the report was applied. */
  readonly lostAnswers: number;
  /** In [0, 1). */
  random(): number;
}

export interface RelayStats {
  reports: number;
  copies: number;
  answersLost: number;
  /** Copies of an older report of the same node that came behind a newer one. */
  late: number;
}

interface Answer {
  readonly headers: http2.IncomingHttpHeaders;
  readonly body: Buffer;
}

function withoutPseudo(headers: http2.IncomingHttpHeaders): http2.OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(":") || name === ":status"));
}

export class ReportRelay {
  readonly url: string;
  readonly stats: RelayStats = { reports: 0, copies: 0, answersLost: 0, late: 0 };
  #options: RelayOptions;
  readonly #server: http2.Http2Server;
  readonly #inbound = new Set<http2.ServerHttp2Session>();
  readonly #outbound = new Map<string, http2.ClientHttp2Session>();
  /** Copies that are still on their way. */
  readonly #flying = new Set<Promise<unknown>>();
  #newest = 0;
  #closed = false;

  private constructor(server: http2.Http2Server, options: RelayOptions) {
    this.#server = server;
    this.#options = options;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("session", (session) => {
      this.#inbound.add(session);
      session.on("close", () => this.#inbound.delete(session)).on("error", () => {});
    });
    server.on("stream", (stream: http2.ServerHttp2Stream, headers) => {
      stream.on("error", () => {});
      if (headers[":path"] === REPORT_PATH) void this.#onReport(stream, headers);
      else this.#pass(stream, headers);
    });
  }

  static async start(options: RelayOptions): Promise<ReportRelay> {
    const server = http2.createServer();
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
    return new ReportRelay(server, options);
  }

  /** From here on reports are treated otherwise. */
  change(options: Partial<RelayOptions>): void {
    this.#options = { ...this.#options, ...options };
  }

  /** Waits for all copies that are on their way now. */
  async settle(): Promise<void> {
    await Promise.allSettled([...this.#flying]);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const session of [...this.#inbound, ...this.#outbound.values()]) session.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #replica(): http2.ClientHttp2Session {
    const { replicas, random } = this.#options;
    const address = replicas[Math.floor(random() * replicas.length)]!;
    const known = this.#outbound.get(address);
    if (known !== undefined && !known.closed && !known.destroyed) return known;
    const session = http2.connect(`http://${address}`);
    session.on("error", () => {});
    this.#outbound.set(address, session);
    return session;
  }

  /** Calls that are not reports go to one replica and back, as they come. */
  #pass(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    const call = this.#replica().request({ ...headers, ":authority": "relay" });
    call.on("error", () => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR));
    call.on("response", (answer) => {
      if (stream.destroyed) return;
      stream.respond(withoutPseudo(answer));
      call.pipe(stream);
    });
    call.on("close", () => {
      if (call.rstCode !== 0) stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    });
    stream.on("close", () => call.close(http2.constants.NGHTTP2_CANCEL));
    stream.pipe(call);
  }

  async #onReport(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): Promise<void> {
    const parts: Buffer[] = [];
    stream.on("data", (part: Buffer) => parts.push(part));
    await new Promise((resolve) => stream.once("end", resolve).once("close", resolve));
    const body = Buffer.concat(parts);
    const { copies, delayMsMax, random, lostAnswers } = this.#options;
    const number = ++this.#newest;
    this.stats.reports++;
    // One at once, which keeps the nodes going; the others whenever they come.
    const sent = Array.from({ length: copies }, async (_, copy) => {
      if (copy > 0) await delay(random() * delayMsMax);
      if (copy > 0 && number < this.#newest) this.stats.late++;
      return this.#copy(headers, body);
    });
    for (const one of sent) {
      this.#flying.add(one);
      one.catch(() => {}).finally(() => this.#flying.delete(one));
    }
    const loses = random() < lostAnswers;
    const chosen = random() < 0.5 ? sent[0]! : sent[Math.floor(random() * copies)]!;
    const answer = await chosen.catch(() => null);
    if (stream.destroyed) return;
    if (loses || answer === null) {
      this.stats.answersLost++;
      stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      return;
    }
    stream.respond(withoutPseudo(answer.headers));
    stream.end(answer.body);
  }

  async #copy(headers: http2.IncomingHttpHeaders, body: Buffer): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      try {
        const answer = await this.#send(headers, body);
        if (Number(answer.headers[":status"]) !== 200 && tries < COPY_TRIES_MAX)
          throw new Error(`status ${answer.headers[":status"]}`);
        this.stats.copies++;
        return answer;
      } catch (error) {
        if (tries >= COPY_TRIES_MAX || this.#closed) throw error;
        await delay(COPY_RETRY_MS);
      }
    }
  }

  #send(headers: http2.IncomingHttpHeaders, body: Buffer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      // Its own deadline would refuse copies that come late.
      const { "connect-timeout-ms": _, ...kept } = headers;
      const call = this.#replica().request({ ...kept, ":authority": "relay" });
      const parts: Buffer[] = [];
      let head: http2.IncomingHttpHeaders = {};
      call.on("response", (answer) => (head = answer));
      call.on("data", (part: Buffer) => parts.push(part));
      call.on("error", reject);
      call.on("close", () => {
        if (call.rstCode === 0 && head[":status"] !== undefined) resolve({ headers: head, body: Buffer.concat(parts) });
        else reject(new Error("the call was cut"));
      });
      call.end(body);
    });
  }
}
