/** For tests: WeChat Pay's own keys: what it signs and encrypts with them, and its certificates. */

import { createCipheriv, randomBytes, sign } from "node:crypto";
import { beijingTime } from "./numbers.ts";
import { makeCertificate } from "./testing_certificate.ts";
import { keyPair, MERCHANT, PUBLIC_KEY_ID } from "./testing_keys.ts";

const DAY_MS = 86_400_000;
const YEARS_MS = 5 * 365 * DAY_MS;

/** Who signs: the current certificate, the one before, the public key's, or somebody else under its serial number. */
export type PlatformSigner = "current" | "old" | "public_key" | "attacker";

export interface EnvelopeOptions {
  readonly id?: string;
  readonly timestampS?: number;
  readonly apiV3Key?: string;
  readonly signer?: PlatformSigner;
  /** Instead of what is true. */
  readonly content?: Record<string, unknown>;
}

export interface Envelope {
  readonly headers: Record<string, string>;
  readonly body: string;
}

export interface RotateOptions {
  /** False: the certificate before is listed no more. */
  readonly listed?: boolean;
  /** It is valid for so long from now. */
  readonly oldValidMs?: number;
}

export interface Platform {
  /** False: an account of the public key's kind, which has no certificates. */
  certificates: boolean;
  /** Added to the time of its signatures. */
  skewMs: number;
  sign(body: string, signer: PlatformSigner, timestampS?: number): Record<string, string>;
  /** The answer to `GET /v3/certificates`. */
  list(): object;
  /** Another certificate signs from now on. */
  rotate(options?: RotateOptions): void;
  /** A notification. */
  envelope(type: string, original: string, content: object, options: EnvelopeOptions): Envelope;
}

interface Certificate {
  readonly serial: string;
  readonly pair: string;
  readonly pem: string;
}

function encrypt(plain: string, associatedData: string, key: string = MERCHANT.apiV3Key): object {
  const nonce = randomBytes(6).toString("hex");
  const cipher = createCipheriv("aes-256-gcm", Buffer.from(key), Buffer.from(nonce)).setAAD(
    Buffer.from(associatedData),
  );
  const sealed = Buffer.concat([cipher.update(plain, "utf8"), cipher.final(), cipher.getAuthTag()]);
  return {
    algorithm: "AEAD_AES_256_GCM",
    nonce,
    associated_data: associatedData,
    ciphertext: sealed.toString("base64"),
  };
}

export function createPlatform(now: () => number): Platform {
  function newCertificate(pair: string, validMs: number, serial?: string): Certificate {
    const named = serial ?? `5${randomBytes(20).toString("hex").toUpperCase().slice(1)}`;
    const times = { fromMs: now() - DAY_MS, untilMs: now() + validMs };
    return { serial: named, pair, pem: makeCertificate({ serial: named, ...keyPair(pair), ...times }) };
  }
  let current = newCertificate("platform-1", YEARS_MS);
  let old = current;
  const listed = [current];

  const platform: Platform = {
    certificates: true,
    skewMs: 0,
    sign(body, signer, timestampS) {
      const timestamp = String(timestampS ?? Math.floor((now() + platform.skewMs) / 1_000));
      const nonce = randomBytes(16).toString("hex");
      const certificate = signer === "old" ? old : current;
      const pair = signer === "public_key" ? "platform" : signer === "attacker" ? "attacker" : certificate.pair;
      const signature = sign("sha256", Buffer.from(`${timestamp}\n${nonce}\n${body}\n`), keyPair(pair).privateKey);
      return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": nonce,
        "wechatpay-signature": signature.toString("base64"),
        "wechatpay-serial": signer === "public_key" ? PUBLIC_KEY_ID : certificate.serial,
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
      };
    },
    list: () => ({
      data: listed.map(({ serial, pem }) => ({
        serial_no: serial,
        effective_time: beijingTime(now() - DAY_MS),
        expire_time: beijingTime(now() + DAY_MS),
        encrypt_certificate: encrypt(pem, "certificate"),
      })),
    }),
    rotate({ listed: stays = true, oldValidMs } = {}) {
      if (oldValidMs !== undefined) current = newCertificate(current.pair, oldValidMs, current.serial);
      old = current;
      current = newCertificate(old.pair === "platform-1" ? "platform-2" : "platform-1", YEARS_MS);
      listed.splice(0, listed.length, ...(stays ? [old] : []), current);
    },
    envelope(type, original, content, options) {
      const plain = JSON.stringify({ ...content, ...options.content });
      const body = JSON.stringify({
        id: options.id ?? `EV-${randomBytes(16).toString("hex")}`,
        create_time: beijingTime(now()),
        resource_type: "encrypt-resource",
        event_type: type,
        summary: type,
        resource: { original_type: original, ...encrypt(plain, original, options.apiV3Key) },
      });
      const signer = options.signer ?? (platform.certificates ? "current" : "public_key");
      const headers = platform.sign(body, signer, options.timestampS);
      return { body, headers: { "content-type": "application/json", ...headers } };
    },
  };
  return platform;
}
