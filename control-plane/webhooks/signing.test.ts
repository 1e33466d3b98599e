import fc from "fast-check";
import { Webhook } from "standardwebhooks";
import { expect, test } from "vitest";
import { secretText, signatureHeaders } from "./signing.ts";

const NOW_S = Math.floor(Date.now() / 1000);
const secret = fc.uint8Array({ minLength: 32, maxLength: 32 });

test("the official library verifies what is signed, with either secret", () => {
  const json = fc.record({ type: fc.string({ unit: "binary" }), data: fc.dictionary(fc.string(), fc.string()) });
  fc.assert(
    fc.property(secret, secret, json, (one, other, value) => {
      const body = JSON.stringify(value);
      const headers = signatureHeaders({ id: "evt_a", timestampS: NOW_S, body }, [one, other]);
      for (const key of [one, other]) {
        expect(new Webhook(secretText(key)).verify(body, headers)).toEqual(JSON.parse(body));
      }
    }),
    { numRuns: 50 },
  );
});

test("another secret, id, time or body is not verified", () => {
  const [right, wrong] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)];
  const body = '{"type":"wallet.low"}';
  const headers = signatureHeaders({ id: "evt_a", timestampS: NOW_S, body }, [right]);
  const verifies = (key: Uint8Array, text: string, more: Record<string, string> = {}) => {
    try {
      new Webhook(secretText(key)).verify(text, { ...headers, ...more });
      return true;
    } catch {
      return false;
    }
  };
  expect(verifies(right, body)).toBe(true);
  expect(verifies(wrong, body)).toBe(false);
  expect(verifies(right, `${body} `)).toBe(false);
  expect(verifies(right, body, { "webhook-id": "evt_b" })).toBe(false);
  expect(verifies(right, body, { "webhook-timestamp": String(NOW_S + 1) })).toBe(false);
});
