/**
 * PURE: WeChat's cryptography. Requests and answers of WeChat Pay APIv3 (`WECHATPAY2-SHA256-RSA2048`: RSA with PKCS#1 v1.5
 * over SHA-256, base64), its encrypted resources (AES-256-GCM), the two HMACs of Virtual Payment, and message pushes (SHA-1,
 * AES-256-CBC). Facts: pay.weixin.qq.com/doc/v3/merchant/4012365342, …/4012071382,
 * developers.weixin.qq.com/miniprogram/dev/platform-capabilities/business-capabilities/virtual-payment.html.
 */

import { createDecipheriv, createHash, createHmac, type KeyObject, sign, timingSafeEqual, verify } from "node:crypto";

export const SCHEME = "WECHATPAY2-SHA256-RSA2048";

/** WeChat Pay sends signatures that begin like this and are wrong, to see whether they are checked. */
export const PROBE_PREFIX = "WECHATPAY/SIGNTEST/";

const BASE64 = /^(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?$/;
const TAG_BYTES = 16;
const GCM_NONCE_BYTES = 12;

/** Null: not canonical base64. */
export function fromBase64(text: string): Buffer | null {
  return BASE64.test(text) ? Buffer.from(text, "base64") : null;
}

export function signText(key: KeyObject, text: string): string {
  return sign("sha256", Buffer.from(text, "utf8"), key).toString("base64");
}

/** False for everything that is no signature, probes included. */
export function verifyBytes(key: KeyObject, bytes: Uint8Array, signature: string): boolean {
  if (signature.startsWith(PROBE_PREFIX)) return false;
  const raw = fromBase64(signature);
  return raw !== null && raw.length > 0 && verify("sha256", bytes, key, raw);
}

const lines = (...parts: readonly string[]): string => parts.map((part) => `${part}\n`).join("");

export interface Signer {
  readonly merchantNumber: string;
  readonly certificateSerialNo: string;
  readonly privateKey: KeyObject;
}

export interface SignedRequest {
  readonly method: "GET" | "POST";
  /** Path and query, as they are sent. */
  readonly target: string;
  /** Exactly the bytes that are sent; empty for GET. */
  readonly body: string;
  /** Seconds since 1970. */
  readonly timestampS: number;
  readonly nonce: string;
}

/** What is signed of a request. */
export function requestMessage({ method, target, body, timestampS, nonce }: SignedRequest): string {
  return lines(method, target, String(timestampS), nonce, body);
}

/** The value of the header `Authorization`. */
export function authorization(signer: Signer, request: SignedRequest): string {
  const fields = {
    mchid: signer.merchantNumber,
    nonce_str: request.nonce,
    timestamp: String(request.timestampS),
    serial_no: signer.certificateSerialNo,
    signature: signText(signer.privateKey, requestMessage(request)),
  };
  const list = Object.entries(fields).map(([name, value]) => `${name}="${value}"`);
  return `${SCHEME} ${list.join(",")}`;
}

/** What is signed of an answer or a notification: the raw body, whatever it holds. */
export function answerMessage(timestamp: string, nonce: string, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(lines(timestamp, nonce), "utf8"), body, Buffer.from("\n")]);
}

/** `paySign` of JSAPI and of `wx.requestPayment`; `packageValue` is `prepay_id=…`. */
export function paySign(key: KeyObject, appId: string, timeStamp: string, nonce: string, packageValue: string): string {
  return signText(key, lines(appId, timeStamp, nonce, packageValue));
}

export interface EncryptedResource {
  readonly nonce: string;
  readonly associatedData: string;
  /** Base64 of the ciphertext and, behind it, the tag. */
  readonly ciphertext: string;
}

/** Null: it was not encrypted with this key, or was changed. */
export function decryptResource(apiV3Key: string, resource: EncryptedResource): Buffer | null {
  const sealed = fromBase64(resource.ciphertext);
  const nonce = Buffer.from(resource.nonce, "utf8");
  if (sealed === null || sealed.length < TAG_BYTES || nonce.length !== GCM_NONCE_BYTES) return null;
  const key = Buffer.from(apiV3Key, "utf8");
  // The official SDKs' own vectors have a key of 16 bytes; merchants' keys have 32.
  const decipher = createDecipheriv(key.length === 16 ? "aes-128-gcm" : "aes-256-gcm", key, nonce, {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(Buffer.from(resource.associatedData, "utf8")).setAuthTag(sealed.subarray(-TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(0, -TAG_BYTES)), decipher.final()]);
  } catch {
    return null;
  }
}

/** `paySig`, `pay_sig` and `signature` of Virtual Payment: lower-case hex. */
export function hmacHex(key: string, text: string): string {
  return createHmac("sha256", key).update(text, "utf8").digest("hex");
}

/** `uri` without its query, or `requestVirtualPayment` for what `wx.requestVirtualPayment` takes. */
export function virtualPaySig(appKey: string, uri: string, body: string): string {
  return hmacHex(appKey, `${uri}&${body}`);
}

/** Of a message push: over token, timestamp, nonce, and the encrypted message if there is one. */
export function pushSignature(...parts: readonly string[]): string {
  const sorted = [...parts].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return createHash("sha1").update(sorted.join(""), "utf8").digest("hex");
}

/** Takes the same time whatever the difference. */
export function sameText(a: string, b: string): boolean {
  const left = Buffer.from(a, "utf8");
  const right = Buffer.from(b, "utf8");
  return left.length === right.length && timingSafeEqual(left, right);
}

const PUSH_RANDOM_BYTES = 16;
const PUSH_LENGTH_BYTES = 4;
const PUSH_BLOCK_BYTES = 32;

/** The message of an encrypted push, and the app it is for. Null: it was not encrypted with this key. */
export function decryptPush(encodingAesKey: string, encrypted: string): { message: Buffer; appId: string } | null {
  const key = fromBase64(`${encodingAesKey}=`);
  const sealed = fromBase64(encrypted);
  if (key?.length !== 32 || sealed === null || sealed.length === 0 || sealed.length % 16 !== 0) return null;
  const decipher = createDecipheriv("aes-256-cbc", key, key.subarray(0, 16)).setAutoPadding(false);
  const padded = Buffer.concat([decipher.update(sealed), decipher.final()]);
  // PKCS#7 to blocks of 32 bytes, which node:crypto does not know.
  const padding = padded.at(-1)!;
  const end = padded.length - padding;
  const head = PUSH_RANDOM_BYTES + PUSH_LENGTH_BYTES;
  if (padding < 1 || padding > PUSH_BLOCK_BYTES || end < head) return null;
  const messageEnd = head + padded.readUInt32BE(PUSH_RANDOM_BYTES);
  if (messageEnd > end) return null;
  return { message: padded.subarray(head, messageEnd), appId: padded.subarray(messageEnd, end).toString("utf8") };
}
