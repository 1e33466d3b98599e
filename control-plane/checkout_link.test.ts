import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { signCheckoutLink, verifyCheckoutLink } from "./checkout_link.ts";
import { createSecrets } from "./secrets.ts";

const secrets = createSecrets(new Uint8Array(32).fill(7));
const NOW = 1_790_000_000_500;
const NOW_S = 1_790_000_000;

/** As a node does it, written out. */
function signed(veId: string, expiresAtS: number): string {
  const key = secrets.derive("tokenbill pin secret", veId);
  const mac = createHmac("sha256", key).update(`tokenbill checkout link\0${veId}\0${expiresAtS}`, "utf8").digest();
  return `${expiresAtS}.${mac.subarray(0, 16).toString("base64url")}`;
}

test("a link is good for an hour", () => {
  const link = signCheckoutLink(secrets, "ve_a", NOW);
  expect(link).toBe(signed("ve_a", NOW_S + 3600));
  expect(link).toMatch(/^\d{10}\.[A-Za-z0-9_-]{22}$/);
  expect(verifyCheckoutLink(secrets, "ve_a", link, NOW)).toBe(true);
});

test.each([
  ["just before its end", 0, true],
  ["a clock that is behind", -300, false],
  ["almost that", -299, true],
  ["signed by a clock that is ahead", 3900, true],
  ["too far ahead", 3902, false],
])("%s", (_name, leftS, good) => {
  expect(verifyCheckoutLink(secrets, "ve_a", signed("ve_a", NOW_S + leftS), NOW_S * 1000)).toBe(good);
});

test("anything else is no link", () => {
  const link = signCheckoutLink(secrets, "ve_a", NOW);
  const [seconds, mac] = link.split(".") as [string, string];
  const other = mac.endsWith("A") ? `${mac.slice(0, -1)}Q` : `${mac.slice(0, -1)}A`;
  // The last character has four bits that mean nothing.
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const twin = mac.slice(0, -1) + alphabet[alphabet.indexOf(mac.at(-1)!) + 1]!;
  const wrong = [
    "",
    ".",
    seconds,
    mac,
    `${seconds}.`,
    `${seconds}.${mac.slice(1)}`,
    `${seconds}.${mac}A`,
    `${seconds}.${other}`,
    `${seconds}.${twin}`,
    `${Number(seconds) + 1}.${mac}`,
    `0${seconds}.${mac}`,
    ` ${link}`,
    `${link}\n`,
    `9999999999.${mac}`,
    `NaN.${mac}`,
    signed("ve_b", NOW_S + 3600),
  ];
  for (const text of wrong) expect(verifyCheckoutLink(secrets, "ve_a", text, NOW), text).toBe(false);
  expect(verifyCheckoutLink(createSecrets(new Uint8Array(32).fill(8)), "ve_a", link, NOW)).toBe(false);
});
