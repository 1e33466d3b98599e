/** For tests: self-signed X.509 certificates, which node:crypto reads but does not make. (RFC 5280) */

import { type KeyObject, sign } from "node:crypto";

function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  if (body.length < 128) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const hex = body.length.toString(16);
  const length = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, body]);
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(0x30, ...parts);
/** The first bit says negative, so a zero goes before it. */
const integer = (hex: string): Buffer => tlv(0x02, Buffer.from(/^[89A-Fa-f]/.test(hex) ? `00${hex}` : hex, "hex"));
const time = (ms: number): Buffer =>
  tlv(0x18, Buffer.from(`${new Date(ms).toISOString().replaceAll(/[-:T]/g, "").slice(0, 14)}Z`));

const SHA256_WITH_RSA = sequence(Buffer.from("06092a864886f70d01010b", "hex"), Buffer.from("0500", "hex"));
const COMMON_NAME = Buffer.from("0603550403", "hex");

export interface CertificateOptions {
  /** An even number of hexadecimal digits. */
  readonly serial: string;
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  readonly fromMs: number;
  readonly untilMs: number;
}

/** PEM. */
export function makeCertificate({ serial, privateKey, publicKey, fromMs, untilMs }: CertificateOptions): string {
  const name = sequence(tlv(0x31, sequence(COMMON_NAME, tlv(0x0c, Buffer.from("Tenpay.com imitation")))));
  const signed = sequence(
    tlv(0xa0, integer("02")),
    integer(serial),
    SHA256_WITH_RSA,
    name,
    sequence(time(fromMs), time(untilMs)),
    name,
    publicKey.export({ type: "spki", format: "der" }),
  );
  const signature = tlv(0x03, Buffer.from([0]), sign("sha256", signed, privateKey));
  const text = sequence(signed, SHA256_WITH_RSA, signature).toString("base64").replaceAll(/.{64}/g, "$&\n").trimEnd();
  return `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----\n`;
}
