/** For tests: a merchant at WeChat, with keys that are made once in a process, since that is slow. */

import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  PaymentCredentialsSchema,
  type WechatPayCredentialsSchema,
} from "../../../proto/gen/tokenbill/v1/payment_account_pb.ts";

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

const pairs = new Map<string, KeyPair>();

/** Those that a merchant stores, whose length is checked; the others may be made faster. */
const STORED: readonly string[] = ["merchant", "platform"];

/** The same for the same name. */
export function keyPair(name: string): KeyPair {
  const known = pairs.get(name) ?? generateKeyPairSync("rsa", { modulusLength: STORED.includes(name) ? 2048 : 1024 });
  pairs.set(name, known);
  return known;
}

export const privatePem = (name: string): string =>
  keyPair(name).privateKey.export({ type: "pkcs8", format: "pem" }).toString();
export const publicPem = (name: string): string =>
  keyPair(name).publicKey.export({ type: "spki", format: "pem" }).toString();

export const MERCHANT = {
  merchantNumber: "1900000109",
  certificateSerialNo: "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C",
  apiV3Key: "0123456789abcdefghijklmnopqrstuv",
  appId: "wx8888888888888888",
  appSecret: "5f4dcc3b5aa765d61d8327deb882cf99",
  miniProgramAppId: "wx9999999999999999",
  miniProgramAppSecret: "7c6a180b36896a0a8c02787eeafb0e4c",
  virtualOfferId: "1450012345",
  virtualAppKey: "virtualkey0123456789virtualkey01",
  virtualProductId: "credit_fen",
  messageToken: "PushToken42",
} as const;

export const PUBLIC_KEY_ID = "PUB_KEY_ID_0119000001092024101500345600000001";
export const MESSAGE_ENCRYPTION_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

export type CredentialChanges = MessageInitShape<typeof WechatPayCredentialsSchema>;

/** Serialized credentials of the merchant above, by certificates unless `changes` says otherwise. */
export function wechatCredentials(changes: CredentialChanges = {}): Uint8Array {
  const value = { ...MERCHANT, privateKey: privatePem("merchant"), ...changes };
  return toBinary(PaymentCredentialsSchema, create(PaymentCredentialsSchema, { kind: { case: "wechatPay", value } }));
}

/** What makes an account of the public key's kind. */
export const byPublicKey = (): CredentialChanges => ({
  platformPublicKeyId: PUBLIC_KEY_ID,
  platformPublicKey: publicPem("platform"),
});
