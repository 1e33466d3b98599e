import { createHash, createHmac, randomBytes } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { base32, newId, newSecret, pooledRandom, secretPrefix } from "./ids.ts";
import { createSecrets, digest, SecretsError } from "./secrets.ts";

const KEY = new Uint8Array(32).fill(1);
const bytes = fc.uint8Array({ maxLength: 300 });

describe("envelopes", () => {
  test("open to what was sealed, with the same key and owner alone", () => {
    const secrets = createSecrets(KEY);
    const other = createSecrets(new Uint8Array(32).fill(2));
    fc.assert(
      fc.property(bytes, fc.string(), fc.string(), (plain, owner, stranger) => {
        const sealed = secrets.seal(plain, owner);
        expect(secrets.open(sealed, owner)).toStrictEqual(new Uint8Array(plain));
        expect(() => other.open(sealed, owner)).toThrow(SecretsError);
        if (stranger !== owner) expect(() => secrets.open(sealed, stranger)).toThrow(SecretsError);
      }),
    );
  });

  test("any changed byte is noticed, and so is a cut", () => {
    const secrets = createSecrets(KEY);
    const sealed = secrets.seal(Buffer.from("credentials"), "prov_a");
    for (let at = 0; at < sealed.length; at += 1) {
      const changed = Uint8Array.from(sealed);
      changed[at]! ^= 1;
      expect(() => secrets.open(changed, "prov_a")).toThrow(SecretsError);
      expect(() => secrets.open(sealed.subarray(0, at), "prov_a")).toThrow(SecretsError);
    }
  });

  test("the same plain text is never sealed alike", () => {
    const secrets = createSecrets(KEY);
    const plain = Buffer.from("same");
    expect(secrets.seal(plain, "a")).not.toStrictEqual(secrets.seal(plain, "a"));
  });

  test("keys are told apart by an id that does not show them", () => {
    expect(createSecrets(KEY).keyId).toStrictEqual(createSecrets(KEY).keyId);
    expect(createSecrets(KEY).keyId).not.toStrictEqual(createSecrets(new Uint8Array(32).fill(2)).keyId);
    expect(createSecrets(KEY).keyId).toHaveLength(8);
  });

  test("what is derived is the same for good, and another for each key, purpose and owner", () => {
    const derived = createSecrets(KEY).derive("pins", "ve_a");
    // Ids that were signed with it must lead back for as long as they live.
    expect(Buffer.from(derived).toString("hex")).toBe(
      createHmac("sha256", KEY).update("pins\0ve_a").digest().toString("hex"),
    );
    expect(createSecrets(KEY).derive("pins", "ve_b")).not.toStrictEqual(derived);
    expect(createSecrets(KEY).derive("pin", "sve_a")).not.toStrictEqual(derived);
    expect(createSecrets(new Uint8Array(32).fill(2)).derive("pins", "ve_a")).not.toStrictEqual(derived);
  });

  test("a key of another length is refused", () => {
    expect(() => createSecrets(new Uint8Array(16))).toThrow(RangeError);
  });
});

describe("ids and secrets", () => {
  test.each([
    ["", ""],
    ["f", "my"],
    ["fo", "mzxq"],
    ["foo", "mzxw6"],
    ["foob", "mzxw6yq"],
    ["fooba", "mzxw6ytb"],
    ["foobar", "mzxw6ytboi"],
  ])("base32 of '%s' is %s (RFC 4648)", (text, expected) => {
    expect(base32(Buffer.from(text))).toBe(expected);
  });

  test("have their form, and all their bits", () => {
    const ids = new Set(Array.from({ length: 1000 }, () => newId("ve_", randomBytes)));
    expect(ids.size).toBe(1000);
    for (const id of ids) expect(id).toMatch(/^ve_[a-z2-7]{26}$/);
    expect(newSecret("tbk_", randomBytes)).toMatch(/^tbk_[a-z2-7]{52}$/);
    expect(newId("x_", (count) => new Uint8Array(count).fill(255))).toBe("x_77777777777777777777777774");
    expect(secretPrefix("tbk_abcdefghijkl")).toBe("tbk_abcdefgh");
  });

  test("of a pool share no bytes, and are of the randomness given", () => {
    let drawn = 0;
    const random = pooledRandom((count) => {
      drawn += 1;
      return new Uint8Array(randomBytes(count));
    });
    const parts = [...Array.from({ length: 600 }, () => random(16)), random(5000), random(3)];
    expect(parts.map(({ length }) => length)).toEqual([...Array.from({ length: 600 }, () => 16), 5000, 3]);
    expect(new Set(parts.slice(0, 601).map((part) => Buffer.from(part).toString("hex"))).size).toBe(601);
    expect(drawn).toBeLessThan(10);
    for (const part of parts) part.fill(0);
    expect(random(16)).not.toEqual(new Uint8Array(16));
  });

  test("the digest is SHA-256 of the UTF-8 text", () => {
    expect(Buffer.from(digest("tbk_ä")).toString("hex")).toBe(
      createHash("sha256").update("tbk_ä", "utf8").digest("hex"),
    );
  });
});
