/** HTTP to WeChat: never redirected, bounded in time and size. */

import type { IncomingHttpHeaders } from "node:http";
import { Agent, request } from "undici";
import { ProcessorError } from "../payment.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const CALL_TIMEOUT_MS = 15_000;
const ANSWER_BYTES_MAX = 256 * 1024;
const CONNECTIONS_MAX = 16;

export interface HttpCall {
  readonly method: "GET" | "POST";
  /** Its query may hold secrets: it is in no error. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Null: none. */
  readonly body: string | null;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

/** @throws ProcessorError unreachable */
export type Http = (call: HttpCall) => Promise<HttpAnswer>;

async function readCapped(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) {
      throw new ProcessorError("unreachable", "answer_too_long", "the answer of WeChat is longer than any should be");
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** The word that node has for what happened to the connection. */
function networkWord(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : "";
  if (error instanceof Error && error.name === "TimeoutError") return "timeout";
  return typeof code === "string" && code !== "" ? code.toLowerCase() : "network";
}

export function createHttp(timeoutMs: number = CALL_TIMEOUT_MS): Http {
  const dispatcher = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS }, connections: CONNECTIONS_MAX });
  return async ({ method, url, headers, body }) => {
    try {
      const response = await request(url, {
        dispatcher,
        method,
        headers: { ...headers },
        body,
        signal: AbortSignal.timeout(timeoutMs),
      });
      return { status: response.statusCode, headers: response.headers, body: await readCapped(response.body) };
    } catch (error) {
      if (error instanceof ProcessorError) throw error;
      throw new ProcessorError("unreachable", "unreachable", `WeChat could not be reached: ${networkWord(error)}`);
    }
  };
}

/** The first value of a header; empty: it is absent. */
export function headerOf(headers: IncomingHttpHeaders | Readonly<Record<string, string>>, name: string): string {
  const value = headers[name];
  return typeof value === "string" ? value : (value?.[0] ?? "");
}
