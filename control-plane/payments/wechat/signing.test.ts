/** Against what WeChat and its official SDKs have published, and against other ways to the same result. */

import { createPublicKey, createVerify, X509Certificate } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { beijingTime, cutText } from "./numbers.ts";
import {
  answerMessage,
  authorization,
  decryptPush,
  decryptResource,
  fromBase64,
  hmacHex,
  paySign,
  pushSignature,
  requestMessage,
  sameText,
  verifyBytes,
  virtualPaySig,
} from "./signing.ts";
import { keyPair, MESSAGE_ENCRYPTION_KEY } from "./testing_keys.ts";
import { makePush } from "./testing_push.ts";

const publicKeyOf = (base64: string) =>
  createPublicKey({ key: Buffer.from(base64, "base64"), format: "der", type: "spki" });
const SPKI_HEAD = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA";

/** Of the key that WeChat Pay's documentation signs its examples with (pay.weixin.qq.com/doc/v3/merchant/4012365334). */
const DOCUMENTED_MERCHANT = publicKeyOf(
  `${SPKI_HEAD}ptpm+qvIDCh/9wjU26SQCK26ogYkBhDrYxnAaw2JbbBsp1oDbHKk+1r381NeBUG2HEFAuU+Fr72u5ot3yKdzoF/FajAzQNKnm569/D3upKoi8mYBaST15Uig8j8qoUW1U217LL0jEHlSnHV3lcaDTXqDpTRR4Bfz9IqOgJgFZ8/oTfEomSrjrLYef81Eyxr7ZIMQXEKKEK7V4UXKS0+/fDsiG/cXidhzt8UbTL9vqXqxM2+IDImyO+FAc/tkBG55LmzxPto1Nq0WbnZzRM/wTzrd0I/8NlevxtFbphg4evlHjFNI7+GrqR87ViEwuAJJ9Je5QQjct5YJfFRWiZ5CMQIDAQAB`,
);

/** Of its example of an answer (pay.weixin.qq.com/docs/merchant/development/interface-rules/signature-verification.html). */
const DOCUMENTED_PLATFORM = publicKeyOf(
  `${SPKI_HEAD}wXNI6sdlknHBnK8Fu2U6Cwor9qY747jP8KAfeBMeveEt1TqaHkLfaSD07trZLhGpfs8/AHqjhgSMO1O10YQWOrrJ4hjIWPKqxbgrYMkBQc+mwdiWp4W3ByCqxBRagCveCXRWCmuJYovl9H/bsDI0iGbpVtEOghJtfciisYSgxcLufUDTRkvwxjIBK1pCRjk33jJ5YTBWTHMRtMAOcFLNF6hdEYdX8SPsgHHeLZ5Lv2T/686w1xtgCHef/sd4uSfWmyzsalQdHG/e4IyYmrhx+O3VBoNDzE3nx23bFeV/RVNCG7cV6VhmYokJNHa/erIPkEmEFID6A5wQOXuxUkmJWwIDAQAB`,
);

describe("what is published", () => {
  test("a request (documentation, building the signature)", () => {
    const message = requestMessage({
      method: "GET",
      target: "/v3/refund/domestic/refunds/123123123123",
      body: "",
      timestampS: 1_554_208_460,
      nonce: "593BEC0C930BF1AFEB40B4A08C8FB242",
    });
    expect(message).toBe(
      "GET\n/v3/refund/domestic/refunds/123123123123\n1554208460\n593BEC0C930BF1AFEB40B4A08C8FB242\n\n",
    );
    const signature =
      "Lc9VXxmeonkdV8Xk9tmigQFLhl0vRWTerdmoRu01aAnYwIrD/5nsSwE1WlmZGLRlAFTNQ3QsMa0+VRDlJp1Wp5p0nO8EK68b5sJBbjouxaFciIfq1zfDWWz+jqhcMoKXI1A6dPm1AW7D4d30WsMTNzp6g23OXakIsh9LO3lUmwvTuE0BY8ncf6tNGk4wKmvXwERd/ZpoQY3MAVKz+Nakwc+2XBmzT66KcUehU5kr4IvGa/lEU5RZb/q00zP9VLdBhC/jQSX3X1UcJLCtEc4gTmib4tnmAT+bHF/e17ZAuxDNcx6rqT8gNEXqaJGG+1OflMSTU2tpyG65G4dMKdFcoA==";
    expect(verifyBytes(DOCUMENTED_MERCHANT, Buffer.from(message), signature)).toBe(true);
    expect(verifyBytes(DOCUMENTED_MERCHANT, Buffer.from(message.replace("GET", "POST")), signature)).toBe(false);
  });

  test("an answer (documentation, checking with WeChat Pay's public key)", () => {
    const body = Buffer.from('{"code_url":"weixin://wxpay/bizpayurl?pr=JyC91EIz1"}');
    const message = answerMessage("1722850421", "d824f2e086d3c1df967785d13fcd22ef", body);
    const signature =
      "mfI1CPqvBrgcXfgXMFjdNIhBf27ACE2YyeWsWV9ZI7T7RU0vHvbQpu9Z32ogzc+k8ZC5n3kz7h70eWKjgqNdKQF0eRp8mVKlmfzMLBVHbssB9jEZEDXThOX1XFqX7s7ymia1hoHQxQagPGzkdWxtlZPZ4ZPvr1RiqkgAu6Is8MZgXXrRoBKqjmSdrP1N7uxzJ/cjfSiis9FiLjuADoqmQ1P7p2N876YPAol7Rn0+GswwAwxldbdLrmVSjfytfSBJFqTMHn4itojgxSWWN1byuckQt8hSTEv/Lg97QoeGniYP17T80pJeQyL3b+295FPHSO2AtvCgyIbKMZ0BALilAA==";
    expect(verifyBytes(DOCUMENTED_PLATFORM, message, signature)).toBe(true);
    expect(verifyBytes(DOCUMENTED_MERCHANT, message, signature)).toBe(false);
    expect(verifyBytes(DOCUMENTED_PLATFORM, message, `WECHATPAY/SIGNTEST/${signature.slice(19)}`)).toBe(false);
    for (const broken of ["", "x", `${signature} `, signature.replace("=", ""), signature.slice(4)]) {
      expect(verifyBytes(DOCUMENTED_PLATFORM, message, broken)).toBe(false);
    }
  });

  test("a certificate and what it has signed (wechatpay-go, sha256withrsa_verifier_test.go)", () => {
    const certificate = new X509Certificate(
      Buffer.from(
        "MIIDVzCCAj+gAwIBAgIJAPV2V1YAL913MA0GCSqGSIb3DQEBCwUAMEIxCzAJBgNVBAYTAlhYMRUwEwYDVQQHDAxEZWZhdWx0IENpdHkxHDAaBgNVBAoME0RlZmF1bHQgQ29tcGFueSBMdGQwHhcNMjEwNDI3MDg0MDMyWhcNMzEwNDI1MDg0MDMyWjBCMQswCQYDVQQGEwJYWDEVMBMGA1UEBwwMRGVmYXVsdCBDaXR5MRwwGgYDVQQKDBNEZWZhdWx0IENvbXBhbnkgTHRkMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2VCTd91fnUn73Xy9DLvt/V62TVxRTEEstVdeRaZ3B3leO0pldE806mXO4RwdHXagHQ4vGeZN0yqm++rDsGK+U3AH7kejyD2pXshNP9Cq5YwbptiLGtjcquw4HNxJQUOmDeJf2vg6byms9RUipiq4SzbJKqJFlUpbuIPDpSpWz10PYmyCNeDGUUK65E5h2B834uxl1zNLYQCrkdBzb8oUxwYeP5a2DNxmjL5lsJML7DGr5znsevnoqGRwTm9fxCGfy8wus7hwKz6clt3Whmmda7UAdb1c08hEQFVRbF14AR73xbnd8N0obCWJPCbzMCtkaSef4FdEEgEXJiw0VAJT8wIDAQABo1AwTjAdBgNVHQ4EFgQUT1c7nd/SUO76HSoZumNUJv1R5PwwHwYDVR0jBBgwFoAUT1c7nd/SUO76HSoZumNUJv1R5PwwDAYDVR0TBAUwAwEB/zANBgkqhkiG9w0BAQsFAAOCAQEAM+tslqBxYwqL9fdvGG6hfy69sjfXUhBtBLWYugKKQCOWWLeq5dDWm3i5Cx2Rgiy9uc7RfmJNxQfIKlcoCNP85BjDoG1BYnVc6znlcrT9uHgseha3987WwZsFAQbcy8TLUYHzVB8gmDgq8O08xdIe0eczatI8t3Rg8WXO6Gs66JJ4JR+rD01o3FiSOQCRWhn19NSyDydsgPlOR2t9B9L+MkJwlsMGKrn85TnwL3qcInzRnU8X86faXXJrI0IJi44tECKw8ftngCl6vyNwNNKPDwdkcuuV8y3iBixO5IuKxEKEp2wGPV/4W1AXO73Z3Gb7z/1oxdgeO0hVqz1hBasTCQ==",
        "base64",
      ),
    );
    const signature =
      "BKyAfU4iMCuvXMXS0Wzam3V/cnxZ+JaqigPM5OhljS2iOT95OO6Fsuml2JkFANJU9K6q9bLlDhPXuoVz+pp4hAm6pHU4ld815U4jsKu1RkyaII+1CYBUYC8TK0XtJ8FwUXXz8vZHh58rrAVN1XwNyvD1vfpxrMT4SL536GLwvpUHlCqIMzoZUguLli/K8V29QiOhuH6IEqLNJn8e9b3nwNcQ7be3CzYGpDAKBfDGPCqCv8Rw5zndhlffk2FEA70G4hvMwe51qMN/RAJbknXG23bSlObuTCN7Ndj1aJGH6/L+hdwfLpUtJm4QYVazzW7DFD27EpSQEqA8bX9+8m1rLg==";
    expect(certificate.serialNumber).toBe("F5765756002FDD77");
    expect(verifyBytes(certificate.publicKey, Buffer.from("source"), signature)).toBe(true);
    expect(verifyBytes(certificate.publicKey, Buffer.from("wrong source"), signature)).toBe(false);
  });

  test("an encrypted resource (wechatpay-go, utils/aes_test.go, whose key has 16 bytes)", () => {
    const resource = {
      ciphertext: "FsdXzxryWfKwvLJKf8LG/ToRPTRh8RN9wROC",
      nonce: "wCq51qZv4Yfg",
      associatedData: "Dl56FrqWQJF1t9LtC3vEUsniZKvbqdR8",
    };
    expect(decryptResource("testAPIv3Key0000", resource)?.toString()).toBe("Hello World");
    expect(decryptResource("testAPIv3Key1111", resource)).toBeNull();
    for (const change of [
      { nonce: "wCq51qZv4Yfh" },
      { nonce: "" },
      { associatedData: "" },
      { ciphertext: "invalid cipher" },
      { ciphertext: "SGVsbG8gV29ybGQK" },
    ]) {
      expect(decryptResource("testAPIv3Key0000", { ...resource, ...change })).toBeNull();
    }
  });

  test("an encrypted resource of AES-256, sealed by WebCrypto", async () => {
    const [key, nonce, aad] = ["0123456789abcdefghijklmnopqrstuv", "nonce-12byte", "transaction"];
    const imported = await crypto.subtle.importKey("raw", Buffer.from(key), "AES-GCM", false, ["encrypt"]);
    const sealed = await crypto.subtle.encrypt(
      { name: "AES-GCM", iv: Buffer.from(nonce), additionalData: Buffer.from(aad) },
      imported,
      Buffer.from("支付成功"),
    );
    const ciphertext = Buffer.from(sealed).toString("base64");
    expect(decryptResource(key, { nonce, associatedData: aad, ciphertext })?.toString()).toBe("支付成功");
  });

  test("Virtual Payment's signatures (its documentation, section 2.6)", () => {
    const body = '{"openid": "xxx", "user_ip": "127.0.0.1", "env": 0}';
    expect(virtualPaySig("12345", "/xpay/query_user_balance", body)).toBe(
      "c37809f27c6d7fd1837ad2500a04512b66b34fd793a39a385fade56dca89a4b5",
    );
    expect(hmacHex("9hAb/NEYUlkaMBEsmFgzig==", body)).toBe(
      "089d9e8dc5d308977360c4b79ec600a93d736802802a807d634192328032f6c7",
    );
  });

  test("what wx.requestVirtualPayment takes (WxJava's test of it)", () => {
    const signData =
      '{"offerId":"1450019686","buyQuantity":1,"env":0,"currencyType":"CNY","productId":"product_001","goodsPrice":100,"outTradeNo":"order12345","attach":"attach中文"}';
    expect(virtualPaySig("app_key_123", "requestVirtualPayment", signData)).toBe(
      "52b0abda3c933b0273d328b5c5102ee9ab9249309474ddcdf5e9ce0f80b23532",
    );
    expect(hmacHex("session_key_123", signData)).toBe(
      "602f76d9cadf36c232f7f6c1faa5fe295b0f955d188049997d0df699c0619c86",
    );
  });

  test("an encrypted push (WeChat's documentation of message pushes)", () => {
    const encrypted =
      "+qdx1OKCy+5JPCBFWw70tm0fJGb2Jmeia4FCB7kao+/Q5c/ohsOzQHi8khUOb05JCpj0JB4RvQMkUyus8TPxLKJGQqcvZqzDpVzazhZv6JsXUnnR8XGT740XgXZUXQ7vJVnAG+tE8NUd4yFyjPy7GgiaviNrlCTj+l5kdfMuFUPpRSrfMZuMcp3Fn2Pede2IuQrKEYwKSqFIZoNqJ4M8EajAsjLY2km32IIjdf8YL/P50F7mStwntrA2cPDrM1kb6mOcfBgRtWygb3VIYnSeOBrebufAlr7F9mFUPAJGj04=";
    expect(pushSignature("AAAAA", "1714112445", "415670741", encrypted)).toBe(
      "046e02f8204d34f8ba5fa3b1db94908f3df2e9b3",
    );
    const opened = decryptPush("A".repeat(43), encrypted);
    expect(opened?.appId).toBe("wxba5fad812f8e6fb9");
    expect(JSON.parse(opened!.message.toString())).toMatchObject({ Event: "debug_demo", debug_str: "hello world" });
    expect(decryptPush("B".repeat(43), encrypted)).toBeNull();
  });
});

describe("by another way", () => {
  test("the header of a request is what the standard verifier accepts", () => {
    const { privateKey, publicKey } = keyPair("merchant");
    const signer = { merchantNumber: "1900000109", certificateSerialNo: "1DDE55AD", privateKey };
    const request = { method: "POST", target: "/v3/x?a=b", body: '{"a":"支"}', timestampS: 1, nonce: "n1" } as const;
    const header = authorization(signer, request);
    const signature = /signature="([^"]+)"/.exec(header)?.[1] ?? "";
    const text = 'POST\n/v3/x?a=b\n1\nn1\n{"a":"支"}\n';
    expect(header).toMatch(
      /^WECHATPAY2-SHA256-RSA2048 mchid="1900000109",nonce_str="n1",timestamp="1",serial_no="1DDE55AD",signature="/,
    );
    expect(createVerify("RSA-SHA256").update(text).verify(publicKey, signature, "base64")).toBe(true);
    const paid = paySign(
      privateKey,
      "wx8888888888888888",
      "1414561699",
      "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
      "prepay_id=wx2",
    );
    const lines = "wx8888888888888888\n1414561699\n5K8264ILTKCH16CQ2502SI8ZNMTM67VS\nprepay_id=wx2\n";
    expect(createVerify("RSA-SHA256").update(lines).verify(publicKey, paid, "base64")).toBe(true);
  });

  test("pushes of any text come out as they went in, and nothing else does", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), fc.nat(), (text, at) => {
        const { body } = makePush(1, { text }, { encrypted: true, appId: "wx1" });
        const { Encrypt: sealed } = JSON.parse(body) as { Encrypt: string };
        const opened = decryptPush(MESSAGE_ENCRYPTION_KEY, sealed)!;
        expect(JSON.parse(opened.message.toString())).toMatchObject({ text });
        expect(opened.appId).toBe("wx1");
        // Cut or changed, it is refused or is something else, and never an accident.
        const bytes = Buffer.from(sealed, "base64");
        bytes[at % bytes.length]! ^= 1;
        decryptPush(MESSAGE_ENCRYPTION_KEY, bytes.toString("base64"));
        expect(decryptPush(MESSAGE_ENCRYPTION_KEY, sealed.slice(0, -4))).toBeNull();
      }),
      { numRuns: 50 },
    );
  });

  test("base64 is taken in its one form only", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const text = Buffer.from(bytes).toString("base64");
        expect(fromBase64(text)).toEqual(Buffer.from(bytes));
        expect(fromBase64(`${text}!`)).toBeNull();
      }),
      { numRuns: 50 },
    );
    expect(sameText("a", "a")).toBe(true);
    expect([sameText("a", "b"), sameText("a", "aa"), sameText("", "a")]).toEqual([false, false, false]);
  });
});

test("times and texts as WeChat wants them", () => {
  expect(beijingTime(Date.UTC(2018, 5, 8, 2, 34, 56, 789))).toBe("2018-06-08T10:34:56+08:00");
  expect(beijingTime(Date.UTC(2018, 11, 31, 20))).toBe("2019-01-01T04:00:00+08:00");
  expect(cutText("  a\nb\u0000  ", 10)).toBe("a b");
  expect(cutText("支付👛宝", 10)).toBe("支付👛");
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 80 }), fc.nat(200), (text, max) => {
      expect(Buffer.byteLength(cutText(text, max))).toBeLessThanOrEqual(max);
    }),
  );
});
