/**
 * PURE. AWS Signature Version 4 for requests whose body is whole. Facts are from reference/UPSTREAM-FORMATS.md D6. All
 * services but S3 want each segment of the path encoded a second time in what is signed.
 */

import { createHash, createHmac } from "node:crypto";
import type { ClockSkew } from "./clock_skew.ts";

/** Give the same object for the same credentials: keys that are derived from them are kept with it. */
export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** "": there is none. */
  readonly sessionToken: string;
}

export interface SigningRequest {
  readonly method: string;
  /** Scheme, host and port. */
  readonly origin: string;
  /** As it goes over the wire, with its query. */
  readonly path: string;
  /** All that are sent, flat with lower-case names. Without host and content-length. */
  readonly headers: readonly string[];
  readonly body: Uint8Array;
  readonly region: string;
  /** Such as `bedrock` or `sts`. */
  readonly service: string;
  readonly credentials: Credentials;
  readonly nowMs: number;
  /** How far our clock is off for that upstream, if that is known. */
  readonly skew?: ClockSkew;
}

/** Headers that proxies and clients add or change on their way: a signature over them would break. */
const UNSIGNED = new Set([
  "authorization",
  "cache-control",
  "connection",
  "expect",
  "from",
  "keep-alive",
  "max-forwards",
  "pragma",
  "referer",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "user-agent",
  "x-amzn-trace-id",
]);
const UNSIGNED_PREFIXES = ["proxy-", "sec-"];
/** What is made here. */
const OURS = new Set(["host", "x-amz-date", "x-amz-security-token"]);

function signable(name: string): boolean {
  return !UNSIGNED.has(name) && !OURS.has(name) && !UNSIGNED_PREFIXES.some((prefix) => name.startsWith(prefix));
}

/** Percent-encodes all but letters, digits and `-_.~`: one segment of a path, strictly by RFC 3986. */
export function encodeSegment(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function canonicalPath(path: string): string {
  return path === "" ? "/" : path.split("/").map(encodeSegment).join("/");
}

function canonicalQuery(query: string): string {
  const pairs = query
    .split("&")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const equals = pair.indexOf("=");
      const [name, value] = equals === -1 ? [pair, ""] : [pair.slice(0, equals), pair.slice(equals + 1)];
      return [encodeSegment(decoded(name)), encodeSegment(decoded(value))] as const;
    });
  const sorted = pairs.toSorted(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x < y ? -1 : x > y ? 1 : 0));
  return sorted.map(([name, value]) => `${name}=${value}`).join("&");
}

function sha256(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

function hmac(key: Buffer | string, data: string): Buffer {
  return createHmac("sha256", key).update(data).digest();
}

/** Regions and services that credentials are used for at a time; more is a mistake. */
const KEYS_PER_CREDENTIALS_MAX = 32;
const keysOf = new WeakMap<Credentials, Map<string, Buffer>>();

/** The key of one day, region and service. `scope` names these three. */
function signingKey(credentials: Credentials, day: string, region: string, service: string, scope: string): Buffer {
  let keys = keysOf.get(credentials);
  if (keys === undefined) keysOf.set(credentials, (keys = new Map()));
  let key = keys.get(scope);
  if (key === undefined) {
    if (keys.size >= KEYS_PER_CREDENTIALS_MAX) keys.clear();
    key = [region, service, "aws4_request"].reduce(hmac, hmac(`AWS4${credentials.secretAccessKey}`, day));
    keys.set(scope, key);
  }
  return key;
}

function dateOf(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replaceAll(/[-:]/g, "")}Z`;
}

/** The default port of a scheme is not part of the host header. */
function hostOf(origin: string): string {
  return new URL(origin).host;
}

function canonicalHeaders(request: SigningRequest, date: string): [string, string][] {
  const values = new Map<string, string>([
    ["host", hostOf(request.origin)],
    ["x-amz-date", date],
  ]);
  if (request.credentials.sessionToken !== "") values.set("x-amz-security-token", request.credentials.sessionToken);
  const { headers } = request;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!.toLowerCase();
    if (!signable(name)) continue;
    const value = headers[i + 1]!.trim().replaceAll(/\s+/g, " ");
    const before = values.get(name);
    values.set(name, before === undefined ? value : `${before},${value}`);
  }
  return [...values].toSorted(([a], [b]) => (a < b ? -1 : 1));
}

/** The text that a signature is made of, and what else it needs. Exported for vectors. */
export function canonicalRequest(request: SigningRequest, date: string): { text: string; signedHeaders: string } {
  const question = request.path.indexOf("?");
  const path = question === -1 ? request.path : request.path.slice(0, question);
  const query = question === -1 ? "" : request.path.slice(question + 1);
  const headers = canonicalHeaders(request, date);
  const signedHeaders = headers.map(([name]) => name).join(";");
  const text = [
    request.method,
    canonicalPath(path),
    canonicalQuery(query),
    ...headers.map(([name, value]) => `${name}:${value}`),
    "",
    signedHeaders,
    sha256(request.body),
  ].join("\n");
  return { text, signedHeaders };
}

/**
 * The headers to add, flat with lower-case names: `x-amz-date`, `x-amz-security-token` for temporary credentials,
 * `authorization`. Headers of these names that are given already must be left out. Sign again for every attempt.
 */
export function signRequest(request: SigningRequest): string[] {
  const { credentials, region, service } = request;
  const date = dateOf(request.nowMs + (request.skew?.offsetMs ?? 0));
  const day = date.slice(0, 8);
  const scope = `${day}/${region}/${service}/aws4_request`;
  const { text, signedHeaders } = canonicalRequest(request, date);
  const key = signingKey(credentials, day, region, service, scope);
  const signature = hmac(key, `AWS4-HMAC-SHA256\n${date}\n${scope}\n${sha256(text)}`).toString("hex");
  const added = ["x-amz-date", date];
  if (credentials.sessionToken !== "") added.push("x-amz-security-token", credentials.sessionToken);
  added.push(
    "authorization",
    `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${signedHeaders}, Signature=${signature}`,
  );
  return added;
}
