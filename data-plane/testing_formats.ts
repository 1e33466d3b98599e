/**
 * For tests only: imitations of upstreams on real sockets, one for each format. They are strict: what the real one would
 * refuse (credentials, paths, fields that it does not know) is refused here too, and remembered.
 */

import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type AwsKey, wrongSignature } from "./testing_aws.ts";
import { badHeader, badBody } from "./testing_strict.ts";
import {
  CHAT_WIRE,
  CONVERSE_WIRE,
  type Fields,
  MESSAGES_WIRE,
  RESPONSES_WIRE,
  type Turn,
  type Wire,
} from "./testing_turns.ts";

export const AWS_KEY: AwsKey = {
  accessKeyId: "AKIDEXAMPLE",
  secretAccessKey: "aws-secret-of-upstream",
  sessionToken: "",
};
export const AWS_REGION = "eu-central-1";
export const API_KEY = "upstream-api-key-1";

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly body: Fields;
}

/** How a call is answered, once it was found to be sound. */
export type Reply = (response: ServerResponse, call: Call, wire: Wire) => void;

export type FormatName =
  | "openai"
  | "responses"
  | "azure"
  | "azure_v1"
  | "anthropic"
  | "converse"
  | "bedrock_openai"
  | "bedrock_anthropic";

interface Auth {
  readonly kind: "bearer" | "x-api-key" | "api-key" | "sigv4";
}

/** What there is to know of a format. */
export interface FormatFacts {
  readonly wire: Wire;
  readonly auth: Auth["kind"];
  readonly model: string;
  /** The only path that is called for chat, streamed or not. */
  path(stream: boolean): string;
  /** Fields of the Provider and of the Physical Model. */
  provider(url: string): Fields;
  readonly pm: Fields;
  /** Usage says how many tokens were thought. */
  readonly countsReasoning: boolean;
  /** The field of the body that limits an answer. */
  limit(body: Fields): unknown;
}

const CLAUDE = "claude-sonnet-4-5-20250929";
const BEDROCK_CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const bedrock = (url: string, bedrockApi: number): Fields => ({
  format: 4,
  baseUrl: url,
  bedrockApi,
  region: AWS_REGION,
  credentials: { awsAccessKeyId: AWS_KEY.accessKeyId, awsSecretAccessKey: AWS_KEY.secretAccessKey },
});

export const FORMATS: Readonly<Record<FormatName, FormatFacts>> = {
  openai: {
    wire: CHAT_WIRE,
    auth: "bearer",
    model: "gpt-4.1",
    path: () => "/v1/chat/completions",
    provider: (url) => ({ format: 1, dialect: 2, baseUrl: `${url}/v1`, credentials: { apiKey: API_KEY } }),
    pm: { apis: [1] },
    countsReasoning: true,
    limit: (body) => body["max_completion_tokens"] ?? body["max_tokens"],
  },
  responses: {
    wire: RESPONSES_WIRE,
    auth: "bearer",
    model: "gpt-4.1",
    path: () => "/v1/responses",
    provider: (url) => ({ format: 1, dialect: 2, baseUrl: `${url}/v1`, credentials: { apiKey: API_KEY } }),
    pm: { apis: [2] },
    countsReasoning: true,
    limit: (body) => body["max_output_tokens"],
  },
  azure: {
    wire: CHAT_WIRE,
    auth: "api-key",
    model: "my-deployment",
    path: () => "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21",
    provider: (url) => ({ format: 2, apiVersion: "2024-10-21", baseUrl: url, credentials: { apiKey: API_KEY } }),
    pm: { family: "gpt-4.1" },
    countsReasoning: true,
    limit: (body) => body["max_completion_tokens"] ?? body["max_tokens"],
  },
  azure_v1: {
    wire: CHAT_WIRE,
    auth: "api-key",
    model: "my-deployment",
    path: () => "/openai/v1/chat/completions",
    provider: (url) => ({ format: 2, baseUrl: url, credentials: { apiKey: API_KEY } }),
    pm: { family: "gpt-4.1", apis: [1] },
    countsReasoning: true,
    limit: (body) => body["max_completion_tokens"] ?? body["max_tokens"],
  },
  anthropic: {
    wire: MESSAGES_WIRE,
    auth: "x-api-key",
    model: CLAUDE,
    path: () => "/v1/messages",
    provider: (url) => ({ format: 3, baseUrl: url, credentials: { apiKey: API_KEY } }),
    pm: {},
    countsReasoning: true,
    limit: (body) => body["max_tokens"],
  },
  converse: {
    wire: CONVERSE_WIRE,
    auth: "sigv4",
    model: BEDROCK_CLAUDE,
    path: (stream) => `/model/${encodeURIComponent(BEDROCK_CLAUDE)}/converse${stream ? "-stream" : ""}`,
    provider: (url) => bedrock(url, 1),
    pm: {},
    countsReasoning: false,
    limit: (body) => (body["inferenceConfig"] as Fields | undefined)?.["maxTokens"],
  },
  bedrock_openai: {
    wire: CHAT_WIRE,
    auth: "sigv4",
    model: "openai.gpt-oss-120b-1:0",
    path: () => "/openai/v1/chat/completions",
    provider: (url) => bedrock(url, 2),
    pm: { apis: [1] },
    countsReasoning: true,
    limit: (body) => body["max_completion_tokens"] ?? body["max_tokens"],
  },
  bedrock_anthropic: {
    wire: MESSAGES_WIRE,
    auth: "sigv4",
    model: CLAUDE,
    path: () => "/anthropic/v1/messages",
    provider: (url) => bedrock(url, 3),
    pm: {},
    countsReasoning: true,
    limit: (body) => body["max_tokens"],
  },
};

export const FORMAT_NAMES = Object.keys(FORMATS) as readonly FormatName[];

/** True if the call asks for a stream. */
export function streamed({ path, body }: Call): boolean {
  return body["stream"] === true || path.endsWith("/converse-stream");
}

/** Answers with what the model says, in one piece or as a stream. */
export function says(turn: Turn): Reply {
  return (response, call, wire) => {
    if (streamed(call)) return stream(wire.frames(turn, usageAsked(call)), wire)(response, call, wire);
    response.writeHead(200, { "content-type": "application/json", "x-request-id": "req_up", "request-id": "req_up" });
    response.end(JSON.stringify(wire.body(turn)));
  };
}

function usageAsked({ body }: Call): boolean {
  return (body["stream_options"] as Fields | undefined)?.["include_usage"] === true;
}

/** These frames, each in its own write; then the end, or the connection breaks. */
function stream(frames: readonly (string | Buffer)[], wire: Wire, end: "end" | "break" = "end"): Reply {
  return (response) => {
    response.writeHead(200, { "content-type": wire.streamType });
    let at = 0;
    const step = (): void => {
      if (at < frames.length) response.write(frames[at++]!, () => setImmediate(step));
      else if (end === "end") response.end();
      else response.socket?.destroy();
    };
    step();
  };
}

/** Of a stream the part up to and with the first text; then an error, the end of the connection, or just the end. */
export function breaksOff(turn: Turn, how: "error" | "break" | "end", message = "Overloaded"): Reply {
  return (response, call, wire) => {
    const frames = wire.frames({ ...turn, text: "Once upon a time" }, usageAsked(call));
    const first = frames.findIndex((frame) => frame.toString("latin1").includes("upon") || frame.includes("Once"));
    const sent = frames.slice(0, first + 1);
    if (how === "error") sent.push(wire.errorFrame(message));
    stream(sent, wire, how === "break" ? "break" : "end")(response, call, wire);
  };
}

/** A stream that ends before it begins. */
export const endsEmpty: Reply = (response, call, wire) => stream([], wire)(response, call, wire);

export function refuses(
  status: number,
  code: string | null,
  message: string,
  headers: Record<string, string> = {},
): Reply {
  return (response, _call, wire) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(wire.error(code, message)));
  };
}

/** A JSON answer of any kind. */
export function answers(body: unknown, headers: Record<string, string> = {}): Reply {
  return (response) => {
    response.writeHead(200, { "content-type": "application/json", ...headers });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
}

export interface Imitation {
  readonly name: FormatName;
  readonly facts: FormatFacts;
  readonly url: string;
  readonly calls: Call[];
  /** What the real upstream would have refused. */
  readonly wrong: string[];
  /** Fields of a Provider that leads here, and of its Physical Model. */
  readonly provider: Fields;
  readonly pm: Fields;
  /** Answers the next calls; those after them get `always`. */
  next(...replies: Reply[]): void;
  always(reply: Reply): void;
  close(): Promise<void>;
}

export interface ImitationOptions {
  /** Paths besides that of chat. */
  readonly paths?: RegExp;
  /** The credentials that are accepted; default: those of the format. @returns what is wrong */
  readonly auth?: (call: Call, body: Buffer) => Promise<string | null> | string | null;
}

async function wrongAuth({ auth }: FormatFacts, { method, path, headers }: Call, body: Buffer): Promise<string | null> {
  if (auth === "sigv4") return await wrongSignature({ method, path, headers, body }, AWS_KEY, AWS_REGION, "bedrock");
  const name = auth === "bearer" ? "authorization" : auth;
  const others = ["authorization", "x-api-key", "api-key"].filter((other) => other !== name);
  if (others.some((other) => headers[other] !== undefined)) return "more than one credential";
  return headers[name] === (auth === "bearer" ? `Bearer ${API_KEY}` : API_KEY) ? null : `credential ${headers[name]}`;
}

async function wrongWith(
  facts: FormatFacts,
  call: Call,
  body: Buffer,
  { paths, auth }: ImitationOptions,
): Promise<[number, string] | null> {
  const unauthorized = await (auth === undefined ? wrongAuth(facts, call, body) : auth(call, body));
  if (unauthorized !== null) return [facts.auth === "sigv4" ? 403 : 401, unauthorized];
  const header = badHeader(call.headers, facts.wire);
  if (header !== null) return [400, header];
  if (paths?.test(call.path)) return null;
  if (call.method !== "POST" || call.path !== facts.path(streamed(call))) return [404, `${call.method} ${call.path}`];
  const field = badBody(call.body, facts.wire, facts.model);
  return field === null ? null : [400, field];
}

/** Starts an upstream of a format. */
export async function imitate(name: FormatName, options: ImitationOptions = {}): Promise<Imitation> {
  const facts = FORMATS[name];
  const calls: Call[] = [];
  const wrong: string[] = [];
  const queue: Reply[] = [];
  let constant: Reply = refuses(500, null, "nothing to say");
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    const text = bytes.toString("utf8");
    const { method = "", url: path = "", headers } = request;
    const call = { method, path, headers, text, body: (text === "" ? {} : JSON.parse(text)) as Fields };
    calls.push(call);
    const fault = await wrongWith(facts, call, bytes, options);
    if (fault === null) return (queue.shift() ?? constant)(response, call, facts.wire);
    wrong.push(`${name}: ${fault[1]}`);
    refuses(fault[0], null, fault[1])(response, call, facts.wire);
  };
  const server = createServer((request, response) => {
    response.on("error", () => undefined);
    handle(request, response).catch((error: unknown) => {
      wrong.push(String(error));
      response.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    name,
    facts,
    url,
    calls,
    wrong,
    provider: facts.provider(url),
    pm: { upstreamName: facts.model, ...facts.pm },
    next: (...replies) => void queue.push(...replies),
    always: (reply) => void (constant = reply),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
