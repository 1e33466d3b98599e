/** HTTP calls for credentials: few, small and short. */

import { AwsCredentialsError } from "./credentials_error.ts";

/** No answer with credentials is larger. */
const ANSWER_BYTES_MAX = 64 * 1024;

export interface AwsFetchInit {
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
  readonly redirect: "error";
  readonly signal: AbortSignal;
}

export interface AwsFetchAnswer {
  readonly status: number;
  readonly body: AsyncIterable<Uint8Array> | null;
}

/** What is used of `fetch`. */
export type AwsFetch = (url: string, init: AwsFetchInit) => Promise<AwsFetchAnswer>;

export interface AwsCall {
  readonly url: string;
  readonly method: "GET" | "PUT" | "POST";
  readonly headers: Record<string, string>;
  readonly body?: string;
  readonly timeoutMs: number;
  /** Who is asked, for errors: its address may hold secrets. */
  readonly who: string;
}

/**
 * Status and text of an answer. Errors name who was asked, never what was sent or came back.
 * @throws AwsCredentialsError `aws_credentials_unreachable`
 */
export async function callAws(fetch: AwsFetch, call: AwsCall): Promise<{ status: number; text: string }> {
  const { url, method, headers, body, timeoutMs, who } = call;
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await fetch(url, { method, headers, body, redirect: "error", signal });
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body ?? []) {
      bytes += chunk.length;
      if (bytes > ANSWER_BYTES_MAX) throw new Error("the answer is too large");
      chunks.push(chunk);
    }
    return { status: answer.status, text: Buffer.concat(chunks).toString("utf8") };
  } catch (error) {
    const how = signal.aborted ? `did not answer within ${timeoutMs} ms` : "could not be reached";
    throw new AwsCredentialsError("aws_credentials_unreachable", `${who} ${how}`, { cause: codeOf(error) });
  }
}

/** What is safe to keep of an error: messages of URL and header errors repeat what they were given. */
function codeOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = typeof inner === "object" && inner !== null && "code" in inner ? inner.code : undefined;
  return typeof code === "string" ? code : "unknown";
}
