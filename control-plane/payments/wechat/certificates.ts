/**
 * The keys that WeChat Pay signs with: its public key, which the merchant stores, and its certificates, which are fetched
 * and replaced every few years. While a merchant changes from one to the other both are used, notifications at random, so
 * both are always accepted. (pay.weixin.qq.com/doc/v3/merchant/4012068829, …/4012154180)
 */

import { type KeyObject, X509Certificate } from "node:crypto";
import type { Logger } from "pino";
import { ProcessorError } from "../payment.ts";
import { PUBLIC_KEY_ID_PREFIX, type WechatCredentials } from "./credentials.ts";
import { headerOf, type HttpAnswer } from "./http.ts";
import { fieldOf, type Json, listOf, objectOf, parseObject, textOf } from "./json.ts";
import { answerMessage, decryptResource, verifyBytes } from "./signing.ts";

/** WeChat Pay recommends to look at least every 12 hours. */
const REFRESH_MS = 12 * 3_600_000;
/** A serial number nobody knows, which anybody may send, makes us look no more often than this. */
const UNKNOWN_MS_MIN = 60_000;
const FAILURE_MS_MIN = 5_000;
const CERTIFICATES_MAX = 20;

/** How far the clock of a signature may be from ours: WeChat Pay's own bound. */
export const SKEW_S_MAX = 300;

interface Certificate {
  readonly key: KeyObject;
  readonly validUntilMs: number;
}

export interface PlatformKeys {
  /** Sees to it that there is a key to check answers with, before anything is asked. @throws ProcessorError */
  prepare(): Promise<void>;
  /**
   * By the serial number that a signature names. Null: WeChat Pay has no such key.
   * @throws ProcessorError when it could not be asked
   */
  find(serial: string): Promise<KeyObject | null>;
}

/** How a signature stands. `stale` is one of another time, whoever made it. */
export type Verdict = "good" | "stale" | "bad" | "unknown_serial" | "unsigned";

type Headers = HttpAnswer["headers"] | Readonly<Record<string, string>>;

/** Checks what WeChat Pay signed: an answer or a notification. @throws ProcessorError when its keys could not be fetched */
export async function verifySigned(
  find: (serial: string) => Promise<KeyObject | null>,
  headers: Headers,
  body: Uint8Array,
  nowMs: number,
): Promise<Verdict> {
  const [timestamp, nonce, signature, serial] = ["timestamp", "nonce", "signature", "serial"].map((name) =>
    headerOf(headers, `wechatpay-${name}`),
  ) as [string, string, string, string];
  if (timestamp === "" || nonce === "" || signature === "" || serial === "") return "unsigned";
  // First, because it costs nothing: what is old need not be checked.
  if (!/^[0-9]{1,11}$/.test(timestamp)) return "bad";
  if (Math.abs(nowMs / 1_000 - Number(timestamp)) > SKEW_S_MAX) return "stale";
  const key = await find(serial);
  if (key === null) return "unknown_serial";
  return verifyBytes(key, answerMessage(timestamp, nonce, body), signature) ? "good" : "bad";
}

/** How serial numbers are compared: in capitals, without zeros in front. Null: it is none. */
function serialOf(text: string): string | null {
  return /^[0-9A-Fa-f]{8,64}$/.test(text) ? text.toUpperCase().replace(/^0+/, "") : null;
}

function readCertificate(entry: Json | null, apiV3Key: string, nowMs: number): [string, Certificate] | null {
  const sealed = fieldOf(entry, "encrypt_certificate");
  const pem = decryptResource(apiV3Key, {
    nonce: textOf(sealed, "nonce"),
    associatedData: textOf(sealed, "associated_data"),
    ciphertext: textOf(sealed, "ciphertext"),
  });
  if (pem === null) {
    throw new ProcessorError(
      "misconfigured",
      "api_v3_key",
      "WeChat Pay's certificates cannot be decrypted: api_v3_key is not the one of the merchant platform",
    );
  }
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch {
    return null;
  }
  const serial = serialOf(certificate.serialNumber);
  const validUntilMs = Date.parse(certificate.validTo);
  const valid = Date.parse(certificate.validFrom) - SKEW_S_MAX * 1_000 <= nowMs && nowMs < validUntilMs;
  const named = serial !== null && serial === serialOf(textOf(entry, "serial_no"));
  if (!named || !valid || certificate.publicKey.asymmetricKeyType !== "rsa") return null;
  return [serial, { key: certificate.publicKey, validUntilMs }];
}

export interface PlatformKeysDeps {
  readonly credentials: Pick<WechatCredentials, "apiV3Key" | "platformPublicKey">;
  now(): number;
  /** `GET /v3/certificates`, signed, its answer not verified. @throws ProcessorError */
  download(): Promise<HttpAnswer>;
  readonly log: Logger;
}

/**
 * The certificates of an answer that one of them, or a key that was known before, has signed: only who has the APIv3 key can
 * have encrypted them. @throws ProcessorError
 */
async function fetchCertificates(
  { credentials, now, download }: PlatformKeysDeps,
  known: (serial: string) => KeyObject | null,
): Promise<Map<string, Certificate>> {
  const answer = await download();
  const nowMs = now();
  const body = parseObject(answer.body);
  if (answer.status !== 200 || body === null) throw notFetched(answer.status, textOf(body, "code"));
  const fresh = new Map<string, Certificate>();
  for (const entry of listOf(body, "data").slice(0, CERTIFICATES_MAX)) {
    const read = readCertificate(objectOf(entry), credentials.apiV3Key, nowMs);
    if (read !== null) fresh.set(...read);
  }
  const find = (text: string): Promise<KeyObject | null> => {
    const serial = serialOf(text);
    return Promise.resolve((serial === null ? null : fresh.get(serial)?.key) ?? known(text));
  };
  const verdict = await verifySigned(find, answer.headers, answer.body, nowMs);
  if (verdict === "good") return fresh;
  throw new ProcessorError(
    "unreachable",
    `certificates_${verdict}`,
    `WeChat Pay's certificates are not to be believed: ${verdict}`,
  );
}

export function createPlatformKeys(deps: PlatformKeysDeps): PlatformKeys {
  const { credentials, now, log } = deps;
  const certificates = new Map<string, Certificate>();
  let refreshedMs = -Infinity;
  let failed: { readonly atMs: number; readonly error: unknown } | null = null;
  let running: Promise<void> | null = null;

  function known(text: string): KeyObject | null {
    if (text.startsWith(PUBLIC_KEY_ID_PREFIX)) {
      return credentials.platformPublicKey?.id === text ? credentials.platformPublicKey.key : null;
    }
    const found = certificates.get(serialOf(text) ?? "");
    return found === undefined || found.validUntilMs <= now() ? null : found.key;
  }

  /** Certificates that are no longer listed stay until they expire: what they signed may still be under way. */
  async function refresh(): Promise<void> {
    const fresh = await fetchCertificates(deps, known);
    for (const [serial, certificate] of fresh) certificates.set(serial, certificate);
    for (const [serial, { validUntilMs }] of certificates) if (validUntilMs <= now()) certificates.delete(serial);
    while (certificates.size > CERTIFICATES_MAX) certificates.delete(certificates.keys().next().value!);
    refreshedMs = now();
  }

  /** One at a time; a failure is not repeated at once. */
  function refreshOnce(): Promise<void> {
    if (running !== null) return running;
    if (failed !== null && Math.abs(now() - failed.atMs) < FAILURE_MS_MIN) return Promise.reject(failed.error);
    running = refresh()
      .then(() => void (failed = null))
      .catch((error: unknown) => {
        failed = { atMs: now(), error };
        throw error;
      })
      .finally(() => void (running = null));
    return running;
  }

  return {
    async prepare() {
      const some =
        credentials.platformPublicKey !== null || [...certificates.keys()].some((one) => known(one) !== null);
      if (!some) await refreshOnce();
    },
    async find(text) {
      const found = known(text);
      if (serialOf(text) === null) return found;
      const ageMs = Math.abs(now() - refreshedMs);
      if (ageMs < (found === null ? UNKNOWN_MS_MIN : REFRESH_MS)) return found;
      try {
        await refreshOnce();
      } catch (error) {
        if (found === null) throw error;
        const failure = error instanceof ProcessorError ? error.failure : "unknown";
        log.warn({ failure }, "WeChat Pay's certificates are old and could not be fetched");
      }
      return known(text);
    },
  };
}

function notFetched(status: number, code: string): ProcessorError {
  if (status >= 500 || status === 429 || status === 200) {
    return new ProcessorError("unreachable", "certificates", `WeChat Pay did not give its certificates (${status})`);
  }
  if (status === 401) {
    return new ProcessorError(
      "misconfigured",
      "sign_error",
      "WeChat Pay does not accept our signature: merchant_number, certificate_serial_no and private_key do not fit together",
    );
  }
  return new ProcessorError(
    "misconfigured",
    "no_certificates",
    `WeChat Pay has no certificates for this merchant (${status}${/^\w{1,40}$/.test(code) ? ` ${code}` : ""}): set platform_public_key_id and platform_public_key`,
  );
}
