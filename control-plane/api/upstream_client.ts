/** Calls to an upstream from the control plane: to allowed addresses alone, never redirected, bounded in time and size. */

import { lookup as resolve, type LookupAddress } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import { Agent, request } from "undici";
import { addressAllowed } from "../../core/upstream_address.ts";
import { bareHost } from "../domain/upstream_address.ts";

const CONNECT_TIMEOUT_MS = 5_000;

export class AddressNotAllowedError extends Error {
  readonly code = "TOKENBILL_ADDRESS_NOT_ALLOWED";
  constructor() {
    super("the host name leads to an address that is not allowed");
    this.name = "AddressNotAllowedError";
  }
}

/** A resolver that leaves out what is not allowed, at the moment of the connection: a name cannot change its mind later. */
export function allowedLookup(allowPrivate: boolean): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, "", 0);
      const allowed: LookupAddress[] = found.filter(({ address }) => addressAllowed(address, allowPrivate));
      const [first] = allowed;
      if (first === undefined) return callback(new AddressNotAllowedError(), "", 0);
      if (options.all === true) return callback(null, allowed);
      return callback(null, first.address, first.family);
    });
  };
}

export interface UpstreamAnswer {
  readonly status: number;
  /** Null when it is longer than was asked for. */
  readonly body: Uint8Array | null;
}

export interface UpstreamCall {
  readonly method: "GET" | "POST";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly bodyBytesMax: number;
  readonly signal: AbortSignal;
}

export interface UpstreamClient {
  /** @throws AddressNotAllowedError, and whatever the network says */
  call(call: UpstreamCall): Promise<UpstreamAnswer>;
  close(): Promise<void>;
}

async function readCapped(body: AsyncIterable<Uint8Array>, max: number): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    // Leaving the loop ends the call.
    if (size > max) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function createUpstreamClient(allowPrivate: boolean): UpstreamClient {
  const dispatcher = new Agent({ connect: { lookup: allowedLookup(allowPrivate), timeout: CONNECT_TIMEOUT_MS } });
  return {
    async call({ method, url, headers, body, bodyBytesMax, signal }) {
      // An address in the URL itself is never resolved, so the resolver does not see it.
      const host = bareHost(new URL(url));
      if (isIP(host) !== 0 && !addressAllowed(host, allowPrivate)) throw new AddressNotAllowedError();
      const response = await request(url, { dispatcher, method, headers: { ...headers }, body, signal });
      return { status: response.statusCode, body: await readCapped(response.body, bodyBytesMax) };
    },
    close: () => dispatcher.destroy(),
  };
}
