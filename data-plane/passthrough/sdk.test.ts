/** Files, uploads, batches and vector stores with OpenAI's SDK. */

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import OpenAI, { AzureOpenAI, BadRequestError, toFile } from "openai";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Endpoint } from "../endpoints.ts";
import { type Gateway, type GatewayOptions, KEY, startGateway } from "../testing.ts";
import { type Account, CONTENT, startAccount } from "./testing.ts";

const SECRET = "sk-upstream-secret-0";
let account: Account;
let gateway: Gateway;
let client: OpenAI;

async function start(options: GatewayOptions = {}): Promise<void> {
  gateway = await startGateway({
    ve: { passthroughProviderId: "prov_0" },
    ...options,
    provider: { baseUrl: `${account.url}/v1`, ...options.provider },
  });
  client = new OpenAI({ apiKey: KEY, baseURL: `${gateway.url}/v1`, maxRetries: 0 });
}

beforeEach(async () => {
  account = await startAccount();
});
afterEach(async () => {
  await gateway.close();
  await account.close();
});

const calls = () => account.seen.map(({ method, path }) => `${method} ${path}`);
const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

test("a file of 20 MB arrives byte for byte, in the client's own form", async () => {
  await start();
  const block = Buffer.alloc(1024 * 1024, "0123456789abcdef");
  const file = await toFile(Readable.from(Array.from({ length: 20 }, () => block)), "big.jsonl");
  const made = await client.files.create({
    file,
    purpose: "assistants",
    expires_after: { anchor: "created_at", seconds: 3600 },
  });
  expect(made.id).toBe("file-1");
  const [{ headers, body }] = account.seen as [Account["seen"][0]];
  const form = await new Response(body, { headers: { "content-type": headers["content-type"]! } }).formData();
  const sent = form.get("file") as File;
  expect(sent.name).toBe("big.jsonl");
  expect(sha(await sent.bytes())).toBe(sha(Buffer.concat(Array.from({ length: 20 }, () => block))));
  expect([form.get("purpose"), form.get("expires_after[seconds]")]).toEqual(["assistants", "3600"]);
});

test("files: list, retrieve, content, delete", async () => {
  await start();
  const ids: string[] = [];
  for await (const { id } of client.files.list({ purpose: "assistants", limit: 2, order: "asc" })) ids.push(id);
  expect(ids).toEqual(["file-1", "file-2"]);
  expect((await client.files.retrieve("file-abc")).id).toBe("file-abc");
  const content = await client.files.content("file-abc");
  expect(Buffer.from(await content.arrayBuffer())).toEqual(CONTENT);
  expect(Object.fromEntries(content.headers)).toMatchObject({
    "content-type": "application/octet-stream",
    "content-disposition": 'attachment; filename="a.bin"',
    "content-length": "300",
  });
  for (const name of ["set-cookie", "openai-organization"]) expect(content.headers.has(name)).toBe(false);
  expect(await client.files.delete("file-abc")).toMatchObject({ id: "file-abc", deleted: true });
  expect(calls()).toEqual([
    "GET /v1/files?limit=2&order=asc&purpose=assistants",
    "GET /v1/files/file-abc",
    "GET /v1/files/file-abc/content",
    "DELETE /v1/files/file-abc",
  ]);
});

test("uploads: create, parts, complete, cancel", async () => {
  await start();
  const upload = await client.uploads.create({
    bytes: 6,
    filename: "b",
    mime_type: "text/plain",
    purpose: "assistants",
  });
  const part = await client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from("abcdef"), "b") });
  const done = await client.uploads.complete(upload.id, { part_ids: [part.id] });
  expect(done.file!.id).toBe("file-9");
  expect((await client.uploads.cancel(upload.id)).status).toBe("cancelled");
  expect(calls()).toEqual([
    "POST /v1/uploads",
    "POST /v1/uploads/upload_1/parts",
    "POST /v1/uploads/upload_1/complete",
    "POST /v1/uploads/upload_1/cancel",
  ]);
  expect(account.seen[1]!.body.includes("abcdef")).toBe(true);
  expect(JSON.parse(account.seen[2]!.body.toString())).toEqual({ part_ids: ["part_1"] });
});

test("vector stores, their files and batches of files", async () => {
  await start();
  const { vectorStores } = client;
  const { id } = await vectorStores.create({ name: "docs" });
  expect((await vectorStores.update(id, { name: "renamed" })).name).toBe("renamed");
  expect((await vectorStores.list()).data[0]!.id).toBe(id);
  expect((await vectorStores.retrieve(id)).usage_bytes).toBe(10);
  expect((await vectorStores.search(id, { query: "q" })).data[0]!.score).toBe(0.5);
  expect((await vectorStores.files.create(id, { file_id: "file-1" })).id).toBe("file-1");
  expect((await vectorStores.files.list(id, { filter: "completed", before: "x" })).data).toHaveLength(1);
  const ofStore = { vector_store_id: id };
  await vectorStores.files.retrieve("file-1", ofStore);
  await vectorStores.files.update("file-1", { ...ofStore, attributes: { a: "b" } });
  expect((await vectorStores.files.content("file-1", ofStore)).data[0]!.text).toBe("abc");
  await vectorStores.files.delete("file-1", ofStore);
  const { id: batch } = await vectorStores.fileBatches.create(id, { file_ids: ["file-1"] });
  await vectorStores.fileBatches.retrieve(batch, ofStore);
  expect((await vectorStores.fileBatches.listFiles(batch, ofStore)).data).toHaveLength(1);
  expect((await vectorStores.fileBatches.cancel(batch, ofStore)).status).toBe("cancelled");
  expect((await vectorStores.delete(id)).deleted).toBe(true);
  expect(calls()).toHaveLength(16);
  expect(calls()[6]).toBe("GET /v1/vector_stores/vs_1/files?before=x&filter=completed");
  expect(new Set(account.seen.map(({ headers }) => headers["openai-beta"]))).toEqual(new Set(["assistants=v2"]));
});

test("batches are read and cancelled, but not created", async () => {
  await start();
  expect((await client.batches.list({ after: "batch_0" })).data[0]!.id).toBe("batch_1");
  expect((await client.batches.retrieve("batch_1")).status).toBe("completed");
  expect((await client.batches.cancel("batch_1")).status).toBe("cancelling");
  const create = client.batches.create({
    input_file_id: "file-1",
    endpoint: "/v1/responses",
    completion_window: "24h",
  });
  const refused: BadRequestError = await create.then(
    () => expect.fail("it was created"),
    (error) => error,
  );
  expect(refused).toBeInstanceOf(BadRequestError);
  expect(refused.code).toBe("batches_not_priced");
  expect(calls()).toEqual([
    "GET /v1/batches?after=batch_0",
    "GET /v1/batches/batch_1",
    "POST /v1/batches/batch_1/cancel",
  ]);
  // Nothing has a price: nothing is held, journaled or billed, and everything is counted.
  expect([gateway.budget.reservations, gateway.journal.settlements]).toEqual([[], []]);
  expect(gateway.metrics.requests.map(({ endpoint, status }) => [endpoint, status])).toEqual(
    [200, 200, 200, 400].map((status) => [Endpoint.PASSTHROUGH, status]),
  );
});

test("the client's credentials and headers stay here; those of the Provider are sent", async () => {
  await start({ provider: { headers: { "x-merchant": "m" } } });
  const own = { cookie: "a=b", "x-api-key": KEY, "openai-organization": "org-client", "openai-project": "proj_client" };
  await client.files.list(
    {},
    { headers: { ...own, "x-forwarded-for": "10.0.0.1" }, query: { "api-version": "1", a: "b" } },
  );
  await client.uploads.create(
    { bytes: 6, filename: "b", mime_type: "text/plain", purpose: "assistants" },
    { headers: own },
  );
  const [read, written] = account.seen as [Account["seen"][0], Account["seen"][0]];
  expect(read.path).toBe("/v1/files");
  const names = ["accept", "accept-encoding", "authorization", "connection", "host", "user-agent"];
  expect(
    Object.keys(read.headers)
      .filter((name) => name !== "x-merchant")
      .sort(),
  ).toEqual(names);
  expect(
    Object.keys(written.headers)
      .filter((name) => name !== "x-merchant")
      .sort(),
  ).toEqual([...names, "content-length", "content-type"].sort());
  for (const { headers } of account.seen) {
    expect(headers).toMatchObject({ authorization: `Bearer ${SECRET}`, "x-merchant": "m" });
    expect(JSON.stringify(headers)).not.toContain(KEY);
  }
});

test.each([
  ["the v1 API", "/openai/v1", "", "/openai/v1/files?limit=1", "/openai/v1/batches"],
  [
    "an API version",
    "",
    "2024-10-21",
    "/openai/files?limit=1&api-version=2024-10-21",
    "/openai/batches?api-version=2024-10-21",
  ],
  [
    "a deployment in its address",
    "/openai/deployments/d?api-version=2024-10-21",
    "",
    "/openai/files?limit=1&api-version=2024-10-21",
    "/openai/batches?api-version=2024-10-21",
  ],
])("Azure OpenAI with %s", async (_, base, apiVersion, files, batches) => {
  await start({ provider: { format: 2, baseUrl: account.url + base, apiVersion } });
  const azure = new AzureOpenAI({
    apiKey: KEY,
    baseURL: `${gateway.url}/v1`,
    apiVersion: "of-the-client",
    maxRetries: 0,
  });
  for await (const file of azure.files.list({ limit: 1 })) void file;
  await client.batches.list();
  expect(calls()).toEqual([`GET ${files}`, `GET ${batches}`]);
  for (const { headers } of account.seen) {
    expect(headers["api-key"]).toBe(SECRET);
    expect(headers.authorization).toBeUndefined();
  }
});
