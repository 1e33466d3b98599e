/** For tests only: what AWS does with signed calls. Signatures are made anew by AWS's own library and compared. */

import { createHash, createHmac } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { SignatureV4 } from "@smithy/signature-v4";

type SourceData = string | ArrayBuffer | ArrayBufferView;

function bytesOf(data: SourceData): Buffer {
  if (typeof data === "string") return Buffer.from(data);
  return ArrayBuffer.isView(data) ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data);
}

/** What smithy wants of a hash. */
class Sha256 {
  private readonly hash;
  constructor(secret?: SourceData) {
    this.hash = secret === undefined ? createHash("sha256") : createHmac("sha256", bytesOf(secret));
  }
  update(data: SourceData): void {
    this.hash.update(bytesOf(data));
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.hash.digest());
  }
  reset(): void {}
}

export interface AwsKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** "": none. */
  readonly sessionToken: string;
}

export interface SignedCall {
  readonly method: string;
  /** With its query, as it arrived. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/;

function dateOf(text: string): Date {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text) ?? [];
  return new Date(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`);
}

/** What is wrong with the signature of a call; null: nothing. */
export async function wrongSignature(
  call: SignedCall,
  key: AwsKey,
  region: string,
  service: string,
): Promise<string | null> {
  const { method, headers, body } = call;
  const match = AUTHORIZATION.exec(headers.authorization ?? "");
  if (match === null) return `no signature: ${headers.authorization}`;
  const [, id, , where, what, names] = match;
  if (id !== key.accessKeyId) return `access key ${id}`;
  if (where !== region || what !== service) return `scope ${where}/${what}`;
  const signed = names!.split(";");
  for (const name of ["host", "x-amz-date", "content-type"]) if (!signed.includes(name)) return `${name} is not signed`;
  if (key.sessionToken !== "" && headers["x-amz-security-token"] !== key.sessionToken) return "security token";
  const [path = "", query = ""] = call.path.split("?");
  const made = new SignatureV4({
    credentials: { ...key, ...(key.sessionToken === "" ? { sessionToken: undefined } : {}) } as never,
    region,
    service,
    sha256: Sha256 as never,
    uriEscapePath: true,
    applyChecksum: false,
  });
  const own = signed.filter((name) => name !== "x-amz-date" && name !== "x-amz-security-token");
  const request = {
    method,
    protocol: "http:",
    hostname: headers.host!,
    path,
    query: Object.fromEntries(new URLSearchParams(query)),
    headers: Object.fromEntries(own.map((name) => [name, headers[name] as string])),
    body,
  };
  const signingDate = dateOf(headers["x-amz-date"] as string);
  const again = (await made.sign(request as never, { signingDate })) as unknown as { headers: Record<string, string> };
  return again.headers["authorization"] === headers.authorization ? null : "signature";
}
