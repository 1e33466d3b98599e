import { createHash, createHmac } from "node:crypto";
import { SignatureV4 } from "@smithy/signature-v4";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { awsAddress, awsDomain } from "./address.ts";
import { ClockSkew } from "./clock_skew.ts";
import { canonicalRequest, type Credentials, encodeSegment, signRequest, type SigningRequest } from "./sigv4.ts";

type SourceData = string | ArrayBuffer | ArrayBufferView;

function bytesOf(data: SourceData): Buffer {
  if (typeof data === "string") return Buffer.from(data);
  return ArrayBuffer.isView(data) ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data);
}

/** What smithy wants of a hash. */
class Sha256 {
  private readonly hash;
  constructor(secret?: SourceData) {
    this.hash = secret === undefined ? createHash("sha256") : createHmac("sha256", bytesOf(secret));
  }
  update(data: SourceData): void {
    this.hash.update(bytesOf(data));
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.hash.digest());
  }
  reset(): void {}
}

const KEYS: Credentials = {
  accessKeyId: "AKIDEXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
  sessionToken: "",
};
const WITH_TOKEN: Credentials = { ...KEYS, sessionToken: "TOKENEXAMPLE" };
const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 678);
const DATE = "20260102T030405Z";
const BASE: SigningRequest = {
  method: "POST",
  origin: "https://bedrock-runtime.us-east-1.amazonaws.com",
  path: "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse",
  headers: ["content-type", "application/json"],
  body: Buffer.from('{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'),
  region: "us-east-1",
  service: "bedrock",
  credentials: KEYS,
  nowMs: NOW_MS,
};

function mapOf(flat: readonly string[]): Record<string, string> {
  const map: Record<string, string> = {};
  for (let i = 0; i < flat.length; i += 2) map[flat[i]!] = flat[i + 1]!;
  return map;
}

/** reference/UPSTREAM-FORMATS.md D6. */
const VECTORS: readonly [string, Partial<SigningRequest>, string, string, string][] = [
  [
    "a model id with a colon",
    {},
    "content-type;host;x-amz-date",
    "07459c9fb9fedeb3df33d501fc9ca84caffcc80534156df2848136fd2d18b6f7",
    "6ad99c0cfcfea3857eb2998ce4df766725157ab11583c455a2ad31fff137fdb7",
  ],
  [
    "an ARN and a session token",
    {
      path: `/model/${encodeSegment("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123")}/converse-stream`,
      credentials: WITH_TOKEN,
    },
    "content-type;host;x-amz-date;x-amz-security-token",
    "ee01e3865368e100d022ab20a9fa9685d0a5514399558da30e386bd810bf80ee",
    "32c221fb96f677697a5bd48ef04c72f0e8231dd1b6ae3d5d4846a5a3c6d33c45",
  ],
  [
    "mantle",
    {
      origin: "https://bedrock-mantle.us-east-1.api.aws",
      path: "/v1/chat/completions",
      service: "bedrock-mantle",
    },
    "content-type;host;x-amz-date",
    "3166c7f88ff94a7d2d894247c8a97b25c42657f4078152225293b018dab3a529",
    "dcc58afeaf07694fde6c8b7124705b965a3050e9b73d75b3b3adaa71812038ac",
  ],
];

describe("signatures", () => {
  test.each(VECTORS)("of %s", (_, changes, signedHeaders, canonical, signature) => {
    const request = { ...BASE, ...changes };
    const made = canonicalRequest(request, DATE);
    expect(made.signedHeaders).toBe(signedHeaders);
    expect(createHash("sha256").update(made.text).digest("hex")).toBe(canonical);
    // The second time the signing key is a kept one.
    for (let i = 0; i < 2; i++) {
      const added = mapOf(signRequest(request));
      expect(added["x-amz-date"]).toBe(DATE);
      expect(added["x-amz-security-token"]).toBe(request.credentials.sessionToken || undefined);
      expect(added["authorization"]).toBe(
        `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/${request.service}/aws4_request, ` +
          `SignedHeaders=${signedHeaders}, Signature=${signature}`,
      );
    }
  });

  test("leave out what changes on the way and what is made here", () => {
    const headers = [
      ...["user-agent", "x", "connection", "close", "x-amzn-trace-id", "1", "proxy-x", "1", "sec-y", "1"],
      ...[
        "x-amz-date",
        "old",
        "authorization",
        "Bearer x",
        "X-Amz-Other",
        " a  b ",
        "content-type",
        "application/json",
      ],
    ];
    const { text, signedHeaders } = canonicalRequest({ ...BASE, headers }, DATE);
    expect(signedHeaders).toBe("content-type;host;x-amz-date;x-amz-other");
    expect(text).toContain(`x-amz-date:${DATE}\nx-amz-other:a b\n`);
  });

  test("equal smithy's", async () => {
    const segment = fc.string({ minLength: 1, maxLength: 12 }).filter((text) => text !== "." && text !== "..");
    const token = fc.stringMatching(/^[a-z0-9]{1,12}$/);
    const value = fc.stringMatching(/^[\x20-\x7e]{0,20}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.array(segment, { minLength: 1, maxLength: 4 }),
        fc.dictionary(token, segment, { maxKeys: 4 }),
        fc.dictionary(
          token.map((name) => `x-${name}`),
          value,
          { maxKeys: 4 },
        ),
        fc.uint8Array({ maxLength: 64 }),
        fc.constantFrom("", "TOKEN"),
        fc.integer({ min: 0, max: 4_000_000_000 }),
        async (segments, query, headers, body, sessionToken, seconds) => {
          const credentials = { ...KEYS, sessionToken };
          const path = `/${segments.map(encodeSegment).join("/")}`;
          const queryText = Object.entries(query)
            .map(([name, each]) => `${name}=${encodeSegment(each)}`)
            .join("&");
          const added = signRequest({
            ...BASE,
            path: queryText === "" ? path : `${path}?${queryText}`,
            headers: Object.entries(headers).flat(),
            body,
            credentials,
            nowMs: seconds * 1000,
          });
          const signer = new SignatureV4({
            credentials: { ...KEYS, ...(sessionToken === "" ? {} : { sessionToken }) },
            region: "us-east-1",
            service: "bedrock",
            sha256: Sha256,
            applyChecksum: false,
          });
          const host = "bedrock-runtime.us-east-1.amazonaws.com";
          const signed = await signer.sign(
            { method: "POST", protocol: "https:", hostname: host, path, query, headers: { ...headers, host }, body },
            { signingDate: new Date(seconds * 1000) },
          );
          expect(mapOf(added)["authorization"]).toBe(signed.headers["authorization"]);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe("clocks", () => {
  const theirs = new Date(NOW_MS + 3_600_000).toUTCString();

  test("are learned from a refusal, and used", () => {
    const skew = new ClockSkew();
    expect(skew.learn(403, "InvalidSignatureException", theirs, NOW_MS)).toBe(true);
    expect(mapOf(signRequest({ ...BASE, skew }))["x-amz-date"]).toBe("20260102T040405Z");
    // It did not help, so it is the secret that is wrong.
    expect(skew.learn(403, "InvalidSignatureException", theirs, NOW_MS)).toBe(false);
    expect(skew.learn(403, "RequestExpired", new Date(NOW_MS).toUTCString(), NOW_MS)).toBe(true);
    expect(Math.abs(skew.offsetMs)).toBeLessThan(1000);
  });

  test.each([
    ["another status", 400, "InvalidSignatureException", theirs],
    ["another error", 403, "AccessDeniedException", theirs],
    ["no date", 403, "InvalidSignatureException", undefined],
    ["no date that can be read", 403, "InvalidSignatureException", "soon"],
    ["a clock that is right", 403, "InvalidSignatureException", new Date(NOW_MS + 60_000).toUTCString()],
  ])("not from %s", (_, status, type, date) => {
    const skew = new ClockSkew();
    expect(skew.learn(status, type, date, NOW_MS)).toBe(false);
    expect(skew.offsetMs).toBe(0);
  });
});

describe("addresses", () => {
  test.each([
    ["https://bedrock-runtime.us-east-1.amazonaws.com", "", "us-east-1", "bedrock"],
    ["https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "", "us-gov-west-1", "bedrock"],
    ["https://bedrock-runtime.eu-central-1.api.aws", "", "eu-central-1", "bedrock"],
    ["https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "", "cn-north-1", "bedrock"],
    ["https://bedrock-mantle.us-west-2.api.aws", "", "us-west-2", "bedrock-mantle"],
    ["https://vpce-0a1.bedrock-runtime.us-east-2.vpce.amazonaws.com", "", "us-east-2", "bedrock"],
    ["https://bedrock-mantle.us-west-2.api.aws", "eu-west-1", "eu-west-1", "bedrock-mantle"],
    ["https://proxy.example:8443", "eu-west-1", "eu-west-1", "bedrock"],
    ["https://proxy.example", "", "", "bedrock"],
    ["https://bedrock-runtime.example", "", "", "bedrock"],
  ])("%s %s", (origin, given, region, service) => {
    expect(awsAddress(origin, given)).toEqual({ region, service });
  });

  test("partitions have domains of their own", () => {
    expect(["us-east-1", "cn-north-1", "eusc-de-east-1"].map(awsDomain)).toEqual([
      "amazonaws.com",
      "amazonaws.com.cn",
      "amazonaws.eu",
    ]);
  });
});
