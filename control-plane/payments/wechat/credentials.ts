/** PURE: a merchant's credentials at WeChat: what they must be, and what they allow. */

import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  PaymentCredentialsSchema,
  type WechatPayCredentials,
  WechatPayCredentialsSchema,
} from "../../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { PaymentMethod } from "../../domain/checkout.ts";
import { type DomainError, invalidField } from "../../domain/errors.ts";
import { type CheckedCredentials, ProcessorError } from "../payment.ts";

/** Opened: keys are parsed, and what is not set is empty. */
export interface WechatCredentials {
  readonly merchantNumber: string;
  readonly certificateSerialNo: string;
  readonly privateKey: KeyObject;
  readonly apiV3Key: string;
  /** WeChat Pay's own public key; null: only its certificates are known. */
  readonly platformPublicKey: { readonly id: string; readonly key: KeyObject } | null;
  readonly appId: string;
  readonly appSecret: string;
  readonly miniProgramAppId: string;
  readonly miniProgramAppSecret: string;
  readonly virtualOfferId: string;
  readonly virtualAppKey: string;
  readonly virtualProductId: string;
  readonly virtualSandbox: boolean;
  readonly messageToken: string;
  readonly messageEncryptionKey: string;
}

export const PUBLIC_KEY_ID_PREFIX = "PUB_KEY_ID_";
const API_V3_KEY_BYTES = 32;
const RSA_BITS_MIN = 2048;

const wrong = (field: string, message: string): DomainError => invalidField(`credentials.wechat_pay.${field}`, message);

function parsed(credentials: Uint8Array): WechatPayCredentials | null {
  const { kind } = fromBinary(PaymentCredentialsSchema, credentials);
  return kind.case === "wechatPay" ? kind.value : null;
}

/** Null: it is none. */
function keyOf(parse: (pem: string) => KeyObject, pem: string): KeyObject | null {
  try {
    const key = parse(pem);
    return key.asymmetricKeyType === "rsa" ? key : null;
  } catch {
    // What node:crypto says may quote the text.
    return null;
  }
}

function privateKey(pem: string): KeyObject {
  const field = "private_key";
  if (/ENCRYPTED/.test(pem)) throw wrong(field, "it has a password: store it without one");
  if (!/-----BEGIN (RSA )?PRIVATE KEY-----/.test(pem)) {
    throw wrong(field, "it is no private key: take the whole text of apiclient_key.pem");
  }
  const key = keyOf(createPrivateKey, pem);
  if (key === null) throw wrong(field, "it is no RSA key in PEM: take the whole text of apiclient_key.pem");
  if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN) throw wrong(field, "it has fewer than 2048 bits");
  return key;
}

function platformPublicKey(id: string, pem: string, own: KeyObject): KeyObject {
  const field = "platform_public_key";
  // node:crypto makes a public key of a private one and of a certificate too, and neither is meant.
  if (!/-----BEGIN (RSA )?PUBLIC KEY-----/.test(pem) || /PRIVATE KEY|CERTIFICATE/.test(pem)) {
    throw wrong(field, "it is no public key: take the whole text of pub_key.pem");
  }
  const key = keyOf(createPublicKey, pem);
  if (key === null) throw wrong(field, "it is no RSA key in PEM: take the whole text of pub_key.pem");
  if (key.equals(createPublicKey(own))) {
    throw wrong(field, "it belongs to private_key: WeChat Pay's own is wanted");
  }
  if (!id.startsWith(PUBLIC_KEY_ID_PREFIX))
    throw wrong("platform_public_key_id", `begins with ${PUBLIC_KEY_ID_PREFIX}`);
  return key;
}

function checkKeys(from: WechatPayCredentials): void {
  if (!/^[0-9]{6,32}$/.test(from.merchantNumber)) throw wrong("merchant_number", "is 6 to 32 digits");
  if (!/^[0-9A-F]{8,64}$/.test(from.certificateSerialNo)) {
    throw wrong("certificate_serial_no", "is 8 to 64 hexadecimal digits, as the merchant platform shows them");
  }
  const key = privateKey(from.privateKey);
  if (Buffer.byteLength(from.apiV3Key) !== API_V3_KEY_BYTES) throw wrong("api_v3_key", "is 32 bytes");
  if (from.platformPublicKeyId !== "" && from.platformPublicKey === "") {
    throw wrong("platform_public_key", "is needed with platform_public_key_id");
  }
  if (from.platformPublicKey !== "") platformPublicKey(from.platformPublicKeyId, from.platformPublicKey, key);
}

/** Every secret has its app, and what belongs together is complete. */
function checkApps(from: WechatPayCredentials): void {
  if (from.appSecret !== "" && from.appId === "") throw wrong("app_id", "is needed with app_secret");
  if (from.miniProgramAppId !== "" && from.miniProgramAppSecret === "") {
    throw wrong("mini_program_app_secret", "is needed with mini_program_app_id");
  }
  if (from.miniProgramAppSecret !== "" && from.miniProgramAppId === "") {
    throw wrong("mini_program_app_id", "is needed with mini_program_app_secret");
  }
  const virtual: readonly (readonly [string, string])[] = [
    ["virtual_offer_id", from.virtualOfferId],
    ["virtual_app_key", from.virtualAppKey],
    ["virtual_product_id", from.virtualProductId],
  ];
  const missing = virtual.find(([, value]) => value === "");
  const wanted = from.virtualSandbox || virtual.some(([, value]) => value !== "");
  if (wanted && missing !== undefined) throw wrong(missing[0], "is needed for Virtual Payment");
  if (wanted && from.miniProgramAppId === "") throw wrong("mini_program_app_id", "is needed for Virtual Payment");
  if (from.messageToken !== "" && !/^[0-9A-Za-z]{3,32}$/.test(from.messageToken)) {
    throw wrong("message_token", "is 3 to 32 letters and digits");
  }
  if (from.messageEncryptionKey !== "" && !/^[0-9A-Za-z]{43}$/.test(from.messageEncryptionKey)) {
    throw wrong("message_encryption_key", "is 43 letters and digits");
  }
  if (from.messageEncryptionKey !== "" && from.messageToken === "") {
    throw wrong("message_token", "is needed with message_encryption_key");
  }
}

/** The test environment is Virtual Payment's alone: by the other methods real money would move. */
function methodsOf(from: WechatPayCredentials): PaymentMethod[] {
  if (from.virtualSandbox) return [PaymentMethod.WECHAT_VIRTUAL];
  const methods: PaymentMethod[] = [];
  if (from.appId !== "") methods.push(PaymentMethod.WECHAT_NATIVE);
  if (from.appId !== "" && from.appSecret !== "") methods.push(PaymentMethod.WECHAT_JSAPI);
  if (from.miniProgramAppId !== "") methods.push(PaymentMethod.WECHAT_MINI_PROGRAM);
  if (from.virtualOfferId !== "") methods.push(PaymentMethod.WECHAT_VIRTUAL);
  return methods;
}

/** Without the blanks around what was pasted; serial numbers in capitals. */
function normalized(from: WechatPayCredentials): WechatPayCredentials {
  const trimmed = create(WechatPayCredentialsSchema, from);
  for (const { localName } of WechatPayCredentialsSchema.fields) {
    const name = localName as keyof WechatPayCredentials;
    const value = trimmed[name];
    if (typeof value === "string") (trimmed as unknown as Record<string, string>)[name] = value.trim();
  }
  trimmed.certificateSerialNo = trimmed.certificateSerialNo.toUpperCase();
  return trimmed;
}

/** @throws DomainError invalid_field, without anything secret in it */
export function checkWechatCredentials(credentials: Uint8Array): CheckedCredentials {
  const sent = parsed(credentials);
  if (sent === null) throw invalidField("credentials", "are not those of WeChat Pay");
  const from = normalized(sent);
  checkKeys(from);
  checkApps(from);
  const methods = methodsOf(from);
  if (methods.length === 0)
    throw wrong("app_id", "is needed, or mini_program_app_id and its secret: nothing could be paid");
  return {
    credentials: toBinary(
      PaymentCredentialsSchema,
      create(PaymentCredentialsSchema, { kind: { case: "wechatPay", value: from } }),
    ),
    hint: from.merchantNumber,
    test: from.virtualSandbox,
    methods,
  };
}

/** Of credentials that were checked when they were stored. @throws ProcessorError misconfigured */
export function openCredentials(credentials: Uint8Array): WechatCredentials {
  const from = parsed(credentials);
  const key = from === null ? null : keyOf(createPrivateKey, from.privateKey);
  if (from === null || key === null) {
    throw new ProcessorError("misconfigured", "credentials", "the stored credentials are not those of WeChat Pay");
  }
  const { $typeName: _, $unknown: __, privateKey: ___, platformPublicKeyId, platformPublicKey: pem, ...rest } = from;
  const platform = pem === "" ? null : keyOf(createPublicKey, pem);
  return {
    ...rest,
    privateKey: key,
    platformPublicKey: platform === null ? null : { id: platformPublicKeyId, key: platform },
  };
}
