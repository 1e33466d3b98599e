import { generateKeyPairSync } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { PaymentCredentialsSchema } from "../../../proto/gen/tokenbill/v1/payment_account_pb.ts";
import { PaymentMethod } from "../../domain/checkout.ts";
import { DomainError } from "../../domain/errors.ts";
import { checkWechatCredentials, openCredentials } from "./credentials.ts";
import { makeCertificate } from "./testing_certificate.ts";
import {
  byPublicKey,
  type CredentialChanges,
  keyPair,
  MERCHANT,
  MESSAGE_ENCRYPTION_KEY,
  privatePem,
  publicPem,
  PUBLIC_KEY_ID,
  wechatCredentials,
} from "./testing_keys.ts";

const { WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM, WECHAT_VIRTUAL } = PaymentMethod;
const NO_VIRTUAL = { virtualOfferId: "", virtualAppKey: "", virtualProductId: "", messageToken: "" };
const NO_MINI = { ...NO_VIRTUAL, miniProgramAppId: "", miniProgramAppSecret: "" };

test.each<[string, CredentialChanges, PaymentMethod[]]>([
  ["everything", {}, [WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM, WECHAT_VIRTUAL]],
  ["with a public key", byPublicKey(), [WECHAT_NATIVE, WECHAT_JSAPI, WECHAT_MINI_PROGRAM, WECHAT_VIRTUAL]],
  ["an app without its secret", { ...NO_MINI, appSecret: "" }, [WECHAT_NATIVE]],
  ["an app", NO_MINI, [WECHAT_NATIVE, WECHAT_JSAPI]],
  ["a Mini Program", { ...NO_VIRTUAL, appId: "", appSecret: "" }, [WECHAT_MINI_PROGRAM]],
  ["the test environment", { virtualSandbox: true }, [WECHAT_VIRTUAL]],
])("allowed by %s", (_, changes, methods) => {
  const checked = checkWechatCredentials(wechatCredentials(changes));
  expect(checked).toMatchObject({ hint: "1900000109", methods, test: changes.virtualSandbox === true });
});

test("blanks around what was pasted are taken away, and a serial number is in capitals", () => {
  const serial = MERCHANT.certificateSerialNo;
  const pasted = {
    appId: ` ${MERCHANT.appId}\n`,
    certificateSerialNo: serial.toLowerCase(),
    privateKey: `\n${privatePem("merchant")}\n`,
  };
  const { credentials } = checkWechatCredentials(wechatCredentials(pasted));
  const { kind } = fromBinary(PaymentCredentialsSchema, credentials);
  expect(kind.value).toMatchObject({ appId: MERCHANT.appId, certificateSerialNo: serial });
  const opened = openCredentials(credentials);
  expect(opened.privateKey.equals(keyPair("merchant").privateKey)).toBe(true);
  expect(opened.platformPublicKey).toBeNull();
  expect(openCredentials(wechatCredentials(byPublicKey())).platformPublicKey?.id).toBe(PUBLIC_KEY_ID);
  const oldForm = keyPair("merchant").privateKey.export({ type: "pkcs1", format: "pem" }).toString();
  expect(checkWechatCredentials(wechatCredentials({ privateKey: oldForm })).hint).toBe("1900000109");
});

const small = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
const curve = generateKeyPairSync("ec", { namedCurve: "P-256" });
const pem = (key: typeof small): string => key.export({ type: "pkcs8", format: "pem" }).toString();
const locked = (): string =>
  keyPair("merchant")
    .privateKey.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" })
    .toString();
const certificate = (): string =>
  makeCertificate({ serial: "5157F09E", ...keyPair("platform"), fromMs: 0, untilMs: 1e12 });

test.each<[string, CredentialChanges, RegExp]>([
  ["merchant_number", { merchantNumber: "19x" }, /digits/],
  ["certificate_serial_no", { certificateSerialNo: "xyz" }, /hexadecimal/],
  ["private_key", { privateKey: "MIIE" }, /apiclient_key\.pem/],
  ["private_key", { privateKey: publicPem("merchant") }, /no private key/],
  ["private_key", { privateKey: certificate() }, /no private key/],
  ["private_key", { privateKey: locked() }, /password/],
  ["private_key", { privateKey: privatePem("merchant").slice(0, 400) }, /no private key|no RSA key/],
  ["private_key", { privateKey: privatePem("merchant").replace(/\n\w{4}/, "\nAAAA") }, /no RSA key/],
  ["private_key", { privateKey: pem(small) }, /2048/],
  ["private_key", { privateKey: pem(curve.privateKey) }, /no RSA key/],
  ["api_v3_key", { apiV3Key: "short" }, /32 bytes/],
  ["api_v3_key", { apiV3Key: "支".repeat(32) }, /32 bytes/],
  ["platform_public_key", { platformPublicKeyId: PUBLIC_KEY_ID }, /needed/],
  ["platform_public_key_id", { platformPublicKey: publicPem("platform") }, /PUB_KEY_ID_/],
  [
    "platform_public_key_id",
    { platformPublicKeyId: "5157F09E", platformPublicKey: publicPem("platform") },
    /PUB_KEY_ID_/,
  ],
  ["platform_public_key", { ...byPublicKey(), platformPublicKey: privatePem("platform") }, /pub_key\.pem/],
  ["platform_public_key", { ...byPublicKey(), platformPublicKey: certificate() }, /pub_key\.pem/],
  ["platform_public_key", { ...byPublicKey(), platformPublicKey: publicPem("merchant") }, /belongs to private_key/],
  ["app_id", { ...NO_MINI, appId: "" }, /needed/],
  ["app_id", { ...NO_MINI, appId: "", appSecret: "" }, /nothing could be paid/],
  ["mini_program_app_secret", { ...NO_VIRTUAL, miniProgramAppSecret: "" }, /needed/],
  ["mini_program_app_id", { ...NO_VIRTUAL, miniProgramAppId: "" }, /needed/],
  ["mini_program_app_id", { ...NO_MINI, virtualOfferId: "1", virtualAppKey: "2", virtualProductId: "3" }, /Virtual/],
  ["virtual_app_key", { virtualAppKey: "" }, /Virtual/],
  ["virtual_offer_id", { ...NO_VIRTUAL, virtualSandbox: true }, /Virtual/],
  ["message_token", { messageToken: "a b" }, /letters/],
  ["message_token", { messageToken: "", messageEncryptionKey: MESSAGE_ENCRYPTION_KEY }, /needed/],
  ["message_encryption_key", { messageEncryptionKey: "short" }, /43/],
])("%s is refused, and says why without telling it", (field, changes, message) => {
  let refused: unknown;
  try {
    checkWechatCredentials(wechatCredentials(changes));
  } catch (error) {
    refused = error;
  }
  expect(refused).toBeInstanceOf(DomainError);
  expect(refused).toMatchObject({ code: "invalid_field", field: `credentials.wechat_pay.${field}` });
  const text = String(refused) + JSON.stringify(refused);
  expect(text).toMatch(message);
  for (const line of privatePem("merchant").split("\n").slice(1, 5)) expect(text).not.toContain(line);
  for (const secret of [MERCHANT.apiV3Key, MERCHANT.appSecret, MERCHANT.virtualAppKey])
    expect(text).not.toContain(secret);
});

test("credentials of another processor are refused", () => {
  const stripe = create(PaymentCredentialsSchema, { kind: { case: "stripe", value: { secretKey: "sk_test_1" } } });
  const bytes = toBinary(PaymentCredentialsSchema, stripe);
  expect(() => checkWechatCredentials(bytes)).toThrow(/not those of WeChat Pay/);
  expect(() => openCredentials(bytes)).toThrow(/not those of WeChat Pay/);
  expect(() => openCredentials(new Uint8Array(0))).toThrow(/not those of WeChat Pay/);
});
