/** What is kept secret at rest, and how secrets are recognised without being kept. */

import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from "node:crypto";
import { newSecret } from "./ids.ts";

/**
 * An envelope is: version (1 byte, 1), key id (8 bytes), nonce (12), tag (16), ciphertext; AES-256-GCM. The name of what
 * it belongs to is authenticated with it, so that envelopes cannot be swapped between rows.
 */
const VERSION = 1;
const KEY_ID_BYTES = 8;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const NONCE_AT = 1 + KEY_ID_BYTES;
const TAG_AT = NONCE_AT + NONCE_BYTES;
const CIPHERTEXT_AT = TAG_AT + TAG_BYTES;
const CIPHER = "aes-256-gcm";

export class SecretsError extends Error {
  readonly code: "wrong_key" | "broken_envelope";
  constructor(code: "wrong_key" | "broken_envelope", message: string) {
    super(message);
    this.name = "SecretsError";
    this.code = code;
  }
}

export interface Secrets {
  /** Encrypts `plain` for the resource `owner`: its id. */
  seal(plain: Uint8Array, owner: string): Uint8Array;
  /** @throws SecretsError when it was sealed with another key or for another resource, or was changed */
  open(envelope: Uint8Array, owner: string): Uint8Array;
  /** 32 bytes that only this master key, this purpose and this owner make, always the same ones. */
  derive(purpose: string, owner: string): Uint8Array;
  /** Tells this master key from others, and nothing about it. */
  readonly keyId: Uint8Array;
  /** A new bearer secret: the prefix (`tbk_`) and 52 characters of lower-case base32, 256 random bits. */
  newSecret(prefix: string): string;
}

/** SHA-256 of a whole secret, as stored and as sent to nodes. */
export function digest(secret: string): Uint8Array {
  return new Uint8Array(createHash("sha256").update(secret, "utf8").digest());
}

function keyIdOf(key: Uint8Array): Buffer {
  return createHash("sha256").update("tokenbill master key id\0").update(key).digest().subarray(0, KEY_ID_BYTES);
}

/** `key` has 32 bytes. */
export function createSecrets(key: Uint8Array, random: (count: number) => Uint8Array = randomBytes): Secrets {
  if (key.length !== 32) throw new RangeError("the master key must have 32 bytes");
  const keyId = keyIdOf(key);
  const head = Buffer.concat([Buffer.from([VERSION]), keyId]);
  return {
    keyId: new Uint8Array(keyId),
    seal(plain, owner) {
      const nonce = random(NONCE_BYTES);
      const cipher = createCipheriv(CIPHER, key, nonce).setAAD(Buffer.concat([head, Buffer.from(owner, "utf8")]));
      const body = Buffer.concat([cipher.update(plain), cipher.final()]);
      return new Uint8Array(Buffer.concat([head, nonce, cipher.getAuthTag(), body]));
    },
    open(envelope, owner) {
      if (envelope.length < CIPHERTEXT_AT || envelope[0] !== VERSION)
        throw new SecretsError("broken_envelope", "not an envelope");
      if (!head.equals(envelope.subarray(0, NONCE_AT)))
        throw new SecretsError("wrong_key", "sealed with another master key");
      const decipher = createDecipheriv(CIPHER, key, envelope.subarray(NONCE_AT, TAG_AT), { authTagLength: TAG_BYTES })
        .setAAD(Buffer.concat([head, Buffer.from(owner, "utf8")]))
        .setAuthTag(envelope.subarray(TAG_AT, CIPHERTEXT_AT));
      try {
        return new Uint8Array(Buffer.concat([decipher.update(envelope.subarray(CIPHERTEXT_AT)), decipher.final()]));
      } catch {
        throw new SecretsError("broken_envelope", "changed, or sealed for another resource");
      }
    },
    derive: (purpose, owner) =>
      new Uint8Array(createHmac("sha256", key).update(`${purpose}\0${owner}`, "utf8").digest()),
    newSecret: (prefix) => newSecret(prefix, random),
  };
}
