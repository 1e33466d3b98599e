/** For tests only: an account at an upstream that has files, uploads, batches and vector stores, on a real socket. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface SeenCall {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

export type OnCall = (request: IncomingMessage, response: ServerResponse) => void;

export interface Account {
  readonly url: string;
  /** Calls whose body was read whole. */
  readonly seen: SeenCall[];
  /** Answers the next calls in place of the account, before anything of their body is read. */
  readonly next: OnCall[];
  close(): Promise<void>;
}

export function reply(response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

const FILE = { object: "file", bytes: 3, created_at: 1, filename: "a.txt", purpose: "assistants", status: "processed" };
const UPLOAD = { id: "upload_1", object: "upload", bytes: 6, status: "pending", filename: "b", purpose: "assistants" };
const BATCH = {
  id: "batch_1",
  object: "batch",
  status: "completed",
  endpoint: "/v1/responses",
  input_file_id: "file-1",
};
const STORE = { id: "vs_1", object: "vector_store", name: "docs", status: "completed", usage_bytes: 10 };
const STORE_FILE = { id: "file-1", object: "vector_store.file", status: "completed", vector_store_id: "vs_1" };
const FILES_BATCH = { id: "vsfb_1", object: "vector_store.files_batch", status: "completed", vector_store_id: "vs_1" };
const list = (...data: unknown[]) => ({ object: "list", data, has_more: false, first_id: null, last_id: null });
const page = (data: unknown[]) => ({
  object: "vector_store.search_results.page",
  search_query: "q",
  data,
  has_more: false,
});

/** What each path answers. */
const ANSWERS: readonly [method: string, path: RegExp, answer: (path: string) => unknown][] = [
  ["POST", /^\/files$/, () => ({ ...FILE, id: "file-1" })],
  ["GET", /^\/files$/, () => list({ ...FILE, id: "file-1" }, { ...FILE, id: "file-2" })],
  ["GET", /^\/files\/[^/]+$/, (path) => ({ ...FILE, id: path.slice(7) })],
  ["DELETE", /^\/files\/[^/]+$/, (path) => ({ id: path.slice(7), object: "file", deleted: true })],
  ["POST", /^\/uploads$/, () => UPLOAD],
  ["POST", /^\/uploads\/[^/]+\/parts$/, () => ({ id: "part_1", object: "upload.part", upload_id: "upload_1" })],
  ["POST", /^\/uploads\/[^/]+\/complete$/, () => ({ ...UPLOAD, status: "completed", file: { ...FILE, id: "file-9" } })],
  ["POST", /^\/uploads\/[^/]+\/cancel$/, () => ({ ...UPLOAD, status: "cancelled" })],
  ["GET", /^\/batches$/, () => list(BATCH)],
  ["GET", /^\/batches\/[^/]+$/, () => BATCH],
  ["POST", /^\/batches\/[^/]+\/cancel$/, () => ({ ...BATCH, status: "cancelling" })],
  ["POST", /^\/vector_stores$/, () => STORE],
  ["GET", /^\/vector_stores$/, () => list(STORE)],
  ["GET", /^\/vector_stores\/[^/]+$/, () => STORE],
  ["POST", /^\/vector_stores\/[^/]+$/, () => ({ ...STORE, name: "renamed" })],
  ["DELETE", /^\/vector_stores\/[^/]+$/, () => ({ id: "vs_1", object: "vector_store.deleted", deleted: true })],
  [
    "POST",
    /\/search$/,
    () => page([{ file_id: "file-1", filename: "a.txt", score: 0.5, attributes: {}, content: [] }]),
  ],
  ["POST", /\/vs_1\/files$/, () => STORE_FILE],
  ["GET", /\/files$/, () => list(STORE_FILE)],
  ["GET", /\/vs_1\/files\/[^/]+$/, () => STORE_FILE],
  ["POST", /\/vs_1\/files\/[^/]+$/, () => ({ ...STORE_FILE, attributes: { a: "b" } })],
  ["DELETE", /\/vs_1\/files\/[^/]+$/, () => ({ id: "file-1", object: "vector_store.file.deleted", deleted: true })],
  ["GET", /\/vs_1\/files\/[^/]+\/content$/, () => page([{ type: "text", text: "abc" }])],
  ["POST", /\/file_batches$/, () => FILES_BATCH],
  ["GET", /\/file_batches\/[^/]+$/, () => FILES_BATCH],
  ["POST", /\/file_batches\/[^/]+\/cancel$/, () => ({ ...FILES_BATCH, status: "cancelled" })],
];

export const CONTENT = Buffer.from(Array.from({ length: 300 }, (_, i) => i & 255));

function answer(method: string, target: string, response: ServerResponse): void {
  const path = target.replace(/^(\/openai)?(\/v1)?/, "").replace(/\?.*/, "");
  if (method === "GET" && /^\/files\/[^/]+\/content$/.test(path)) {
    response.writeHead(200, {
      "content-type": "application/octet-stream",
      "content-disposition": 'attachment; filename="a.bin"',
      "content-length": String(CONTENT.length),
      "set-cookie": "session=of-the-upstream",
      "openai-organization": "org-of-the-merchant",
    });
    return void response.end(CONTENT);
  }
  const found = ANSWERS.find(([verb, pattern]) => verb === method && pattern.test(path));
  if (found === undefined) return reply(response, 404, { error: { message: "unknown", type: "x", code: null } });
  reply(response, 200, found[2](path));
}

export async function startAccount(): Promise<Account> {
  const seen: SeenCall[] = [];
  const next: OnCall[] = [];
  const server = createServer((request, response) => {
    response.on("error", () => undefined);
    request.on("error", () => undefined);
    const other = next.shift();
    if (other !== undefined) return other(request, response);
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      seen.push({ method, path: url, headers, body: Buffer.concat(chunks) });
      answer(method, url, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    next,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
