/**
 * Connect's handlers on Node's HTTP servers. Errors that the protocol library makes before any interceptor runs (a body
 * that cannot be read, an unknown path) get their ErrorInfo here, so that no failed call is without one.
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import { constants, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ContextValues,
  createConnectRouter,
  createContextValues,
} from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { codeFromHttpStatus, errorFromJsonBytes, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { findTrailerError, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerParse, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { authenticationGate, callInterceptor } from "./interceptors.ts";
import type { Throttle } from "../checkout/throttle.ts";
import { clientAddress } from "../domain/client_address.ts";
import { clientAddressKey, type Deps } from "./context.ts";
import { completeConnectError, toConnectError, withInfo } from "./errors.ts";

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;

/** The largest request message, after decompression. Services that need more say so where they are routed. */
export const REQUEST_BYTES_MAX = 4 * 1024 * 1024;

const COMPRESSIONS = [compressionGzip, compressionBrotli];

const GRPC_TRAILER_FLAG = 0x80;
const ENVELOPE_BYTES = 5;

async function* bytesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function collect(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Trailers in place of those of an error without details. */
function completeTrailers(trailers: Headers): void {
  const error = findTrailerError(trailers);
  if (error !== undefined) setTrailerStatus(trailers, completeConnectError(error));
}

async function* completeGrpc(body: AsyncIterable<Uint8Array>, trailers: Headers): AsyncGenerator<Uint8Array> {
  yield* body;
  completeTrailers(trailers);
}

/** gRPC-Web carries its trailers as the last envelope of the body. */
async function* completeGrpcWeb(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    if (chunk[0] !== GRPC_TRAILER_FLAG) {
      yield chunk;
      continue;
    }
    const trailers = trailerParse(chunk.subarray(ENVELOPE_BYTES));
    completeTrailers(trailers);
    const text = trailerSerialize(trailers);
    const envelope = Buffer.alloc(ENVELOPE_BYTES + text.length);
    envelope[0] = GRPC_TRAILER_FLAG;
    envelope.writeUInt32BE(text.length, 1);
    envelope.set(text, ENVELOPE_BYTES);
    yield envelope;
  }
}

function errorResponse(status: number, error: ConnectError): UniversalServerResponse {
  const bytes = errorToJsonBytes(error, undefined);
  const header = new Headers(error.metadata);
  header.set("content-type", "application/json");
  header.set("content-length", String(bytes.length));
  return { status, header, body: bytesOf(bytes) };
}

/** What plain HTTP statuses of the protocol library mean. */
function plainError(status: number): ConnectError {
  if (status === 405)
    return withInfo("this path takes POST, and GET where nothing is changed", Code.Unimplemented, "not_available", {});
  if (status === 415) {
    return withInfo(
      "send content-type application/json or application/proto (or a gRPC type)",
      Code.InvalidArgument,
      "invalid_field",
      {
        field: "",
        rule: "content_type",
      },
    );
  }
  return withInfo("there is no such call", codeFromHttpStatus(status), "not_available", {});
}

async function completeConnect(response: UniversalServerResponse): Promise<UniversalServerResponse> {
  const body = response.body === undefined || response.body === null ? new Uint8Array() : await collect(response.body);
  if (body.length === 0) return errorResponse(response.status, plainError(response.status));
  const header = new Headers(response.header);
  const compression = COMPRESSIONS.find(({ name }) => name === header.get("content-encoding"));
  const plain = compression === undefined ? body : await compression.decompress(body, REQUEST_BYTES_MAX);
  const error = errorFromJsonBytes(plain, undefined, new ConnectError("", codeFromHttpStatus(response.status)));
  if (error.details.length > 0) return { ...response, body: bytesOf(body) };
  return errorResponse(response.status, completeConnectError(error));
}

async function complete(response: UniversalServerResponse): Promise<UniversalServerResponse> {
  const type = response.header === undefined ? "" : (new Headers(response.header).get("content-type") ?? "");
  const body = response.body ?? undefined;
  if (type.startsWith("application/grpc-web"))
    return body === undefined ? response : { ...response, body: completeGrpcWeb(body) };
  if (type.startsWith("application/grpc") && response.trailer !== undefined && body !== undefined) {
    const trailers = response.trailer as Headers;
    return { ...response, body: completeGrpc(body, trailers), trailer: trailers };
  }
  return response.status === 200 ? response : completeConnect(response);
}

/**
 * On HTTP/2, an answer that is whole ends the call, even if the client still sends: its window is used up, so it would
 * wait for ever (RFC 9113, 8.1). The stream's trailers are its last word, and are always asked for.
 * Resolves when that has happened: the stream's own end comes only when what had arrived is read.
 */
function endWithAnswer(response: NodeResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (!("stream" in response)) return promise;
  const { stream } = response;
  stream.once("wantTrailers", () => {
    setImmediate(() => {
      if (stream.readableEnded) return;
      stream.close(constants.NGHTTP2_NO_ERROR);
      resolve();
    });
  });
  return promise;
}

export interface RpcOptions {
  /** Registers the services. */
  readonly routes: (router: ConnectRouter) => void;
  /** Aborts long streams when the server stops. */
  readonly shutdownSignal: AbortSignal;
  /** Counts wrong secrets. */
  readonly throttle: Throttle;
}

export interface RpcHandler {
  /** True if `path` is that of a call. */
  knows(path: string): boolean;
  /** Resolves when the answer has been written, or cannot be. Never rejects. */
  handle(path: string, request: NodeRequest, response: NodeResponse): Promise<void>;
}

/** What handlers cannot learn from a request's headers alone. */
function valuesOf(request: NodeRequest, trustedHops: number): ContextValues {
  const header = request.headers["x-forwarded-for"];
  const forwardedFor = Array.isArray(header) ? header.join(",") : (header ?? null);
  const address = clientAddress(request.socket.remoteAddress ?? "", forwardedFor, trustedHops);
  return createContextValues().set(clientAddressKey, address);
}

export function createRpcHandler(deps: Deps, { routes, shutdownSignal, throttle }: RpcOptions): RpcHandler {
  const router = createConnectRouter({
    acceptCompression: COMPRESSIONS,
    readMaxBytes: REQUEST_BYTES_MAX,
    // A misspelt field must not be ignored silently: it might have been a price.
    jsonOptions: { ignoreUnknownFields: false },
    requestGate: authenticationGate(deps, throttle),
    interceptors: [callInterceptor(deps)],
    shutdownSignal,
  });
  routes(router);
  const handlers = new Map<string, UniversalHandler>(router.handlers.map((handler) => [handler.requestPath, handler]));

  async function respond(handler: UniversalHandler, request: NodeRequest, response: NodeResponse): Promise<void> {
    // Connect's own promise for the written answer does not always settle; the end of the response always comes.
    const closed = new Promise<void>((resolve) => response.once("close", resolve));
    const incoming = universalRequestFromNodeRequest(
      request,
      response,
      undefined,
      valuesOf(request, deps.settings.trustedProxyHops),
    );
    const answer = await handler({ ...incoming, body: request.iterator({ destroyOnReturn: false }) });
    await Promise.race([universalResponseToNodeResponse(await complete(answer), response), closed]);
  }

  return {
    knows: (path) => handlers.has(path),
    async handle(path, request, response) {
      const cut = endWithAnswer(response);
      try {
        await Promise.race([respond(handlers.get(path)!, request, response), cut]);
      } catch (error) {
        // The client went away, or sent what is no request; there is nobody to tell more.
        deps.log.debug({ path, reason: ConnectError.from(error).rawMessage }, "answer not delivered");
        writeError(response, 400, toConnectError(new ConnectError("", Code.InvalidArgument)));
      } finally {
        // Whatever was not read of the request must not stand in the way of the next one on this connection.
        request.resume();
      }
    },
  };
}

/** Answers with an error in Connect's JSON form, unless an answer has begun. */
export function writeError(response: NodeResponse, status: number, error: ConnectError): void {
  if (response.headersSent || response.destroyed) return;
  const bytes = errorToJsonBytes(error, undefined);
  // HTTP/2's responses have the same two methods; only their declared overloads differ.
  const out = response as ServerResponse;
  out.writeHead(status, {
    ...Object.fromEntries(error.metadata),
    "content-type": "application/json",
    "content-length": String(bytes.length),
  });
  out.end(bytes);
}
