/** AWS's own client as a second opinion: it must send what our mapping makes, and read what our encoder makes. */

import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import {
  BedrockRuntimeClient,
  type BedrockRuntimeClientConfig,
  ConverseCommand,
  type ConverseCommandInput,
  ConverseStreamCommand,
  InvokeModelCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { signRequest } from "../../aws/sigv4.ts";
import type { HubTarget, Json } from "../hub.ts";
import { converseChat } from "./converse.ts";
import { bedrockEmbeddings } from "./invoke.ts";
import { type Event, frameOf } from "./testing.ts";

const REGION = "eu-west-1";
const CREDENTIALS = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret", sessionToken: "token" };
const FIXTURES = new URL("../../../test/fixtures/bedrock/", import.meta.url);

interface Seen {
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

let server: Server;
let client: BedrockRuntimeClient;
let seen: Seen[] = [];
let answer: { type: string; bytes: Buffer } = { type: "application/json", bytes: Buffer.alloc(0) };

/** Its own handler speaks HTTP/2, whose signatures are over other headers than ours. */
const HTTP1 = {
  metadata: { handlerProtocol: "http/1.1" },
  handle: async (sent: {
    method: string;
    path: string;
    headers: Record<string, string>;
    body?: Uint8Array | string;
  }) => {
    const { method, path, headers, body } = sent;
    const { port } = server.address() as AddressInfo;
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const call = request({ host: "127.0.0.1", port, method, path, headers }, resolve);
      call.on("error", reject);
      call.end(body);
    });
    return { response: { statusCode: response.statusCode!, headers: response.headers, body: response } };
  },
};

beforeAll(async () => {
  server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("end", () => {
      seen.push({ url: incoming.url!, headers: incoming.headers, body: Buffer.concat(chunks) });
      response.writeHead(200, { "content-type": answer.type });
      response.end(answer.bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  client = new BedrockRuntimeClient({
    region: REGION,
    endpoint,
    credentials: CREDENTIALS,
    maxAttempts: 1,
    requestHandler: HTTP1 as unknown as NonNullable<BedrockRuntimeClientConfig["requestHandler"]>,
  });
});
afterAll(() => {
  client.destroy();
  server.close();
});

function read<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, FIXTURES), "utf8")) as T;
}

/** What the client takes as bytes and sends as base64. */
function withBytes(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withBytes);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [
      name,
      (name === "bytes" || name === "redactedContent") && typeof each === "string"
        ? Buffer.from(each, "base64")
        : withBytes(each),
    ]),
  );
}

/** Signs what was seen as it was signed there, with the same headers at the same time. */
function expectSigned({ url, headers, body }: Seen): void {
  const authorization = headers["authorization"]!;
  const names = /SignedHeaders=([^,]+)/.exec(authorization)![1]!.split(";");
  const kept = names.filter((name) => name !== "host" && name !== "x-amz-date" && name !== "x-amz-security-token");
  const date = headers["x-amz-date"] as string;
  const signed = signRequest({
    method: "POST",
    origin: `http://${headers["host"]}`,
    path: url,
    headers: kept.flatMap((name) => [name, headers[name] as string]),
    body,
    region: REGION,
    service: "bedrock",
    credentials: { ...CREDENTIALS },
    nowMs: Date.parse(date.replace(/^(....)(..)(..T..)(..)(..Z)$/, "$1-$2-$3:$4:$5")),
  });
  expect(signed).toContain(authorization);
}

const TARGET: HubTarget = { model: "", family: "", maxOutputTokens: 0, apiVersion: "", stream: false };

describe("requests", () => {
  const names = readdirSync(new URL("requests/", FIXTURES));

  test.each(names)("%s", async (name) => {
    const pair = read<{ target: Pick<HubTarget, "model">; chat: Json }>(`requests/${name}`);
    const target = { ...TARGET, ...pair.target };
    const call = converseChat.request(pair.chat, target);
    const input = { ...(withBytes(call.body) as object), modelId: target.model } as ConverseCommandInput;
    seen = [];
    answer = target.stream
      ? { type: "application/vnd.amazon.eventstream", bytes: Buffer.alloc(0) }
      : { type: "application/json", bytes: Buffer.from("{}") };
    if (target.stream) await client.send(new ConverseStreamCommand(input));
    else await client.send(new ConverseCommand(input));
    const [sent] = seen as [Seen];
    expect(sent.url).toBe(call.path);
    expect(JSON.parse(sent.body.toString())).toEqual(call.body);
    expectSigned(sent);
  });

  test("of embeddings", async () => {
    const model = "amazon.titan-embed-text-v2:0";
    const [call] = bedrockEmbeddings.requests({ input: "a" }, { ...TARGET, model });
    seen = [];
    answer = { type: "application/json", bytes: Buffer.from("{}") };
    const body = JSON.stringify(call!.body);
    await client.send(new InvokeModelCommand({ modelId: model, body, contentType: "application/json" }));
    expect(seen[0]!.url).toBe(call!.path);
    expectSigned(seen[0]!);
  });
});

describe("streams", () => {
  test.each(readdirSync(new URL("streams/", FIXTURES)))("%s", async (name) => {
    const { events } = read<{ events: readonly Event[] }>(`streams/${name}`);
    // It does not pass over what it does not know.
    const known = events.filter(([, payload]) => payload !== null);
    answer = { type: "application/vnd.amazon.eventstream", bytes: Buffer.concat(known.map(frameOf)) };
    const { stream } = await client.send(new ConverseStreamCommand({ modelId: "m", messages: [] }));
    const found: Json[] = [];
    for await (const event of stream!) found.push(event as unknown as Json);
    const types = found.map((event) => Object.keys(event)[0]);
    const wanted = known.map(([type]) => type).filter((type) => type !== "newEvent");
    expect(types.filter((type) => type !== "$unknown")).toEqual(wanted);
    const text = found.map((event) => (event["contentBlockDelta"] as { delta?: Json })?.delta?.["text"] ?? "").join("");
    const sent = known.map(([, payload]) => ((payload as Json)["delta"] as Json | undefined)?.["text"] ?? "").join("");
    expect(text).toBe(sent);
  });

  test("that end with an exception", async () => {
    const events: Event[] = [
      ["messageStart", { role: "assistant" }],
      ["exception:throttlingException", { message: "slow" }],
    ];
    answer = { type: "application/vnd.amazon.eventstream", bytes: Buffer.concat(events.map(frameOf)) };
    const { stream } = await client.send(new ConverseStreamCommand({ modelId: "m", messages: [] }));
    const readAll = async () => {
      for await (const event of stream!) expect(event.messageStart).toBeDefined();
    };
    await expect(readAll()).rejects.toMatchObject({ name: "ThrottlingException", message: "slow" });
  });
});
