/** Whatever is sent to any call: an error of the right shape, never INTERNAL, and the server goes on. */

import { connect, constants } from "node:http2";
import { once } from "node:events";
import type { DescField, DescMethod } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { REQUEST_BYTES_MAX } from "./adapter.ts";
import { NODE_SERVICES, PUBLIC_SERVICES } from "./routes.ts";

const METHODS = [...PUBLIC_SERVICES, ...NODE_SERVICES].flatMap((service) => service.methods as readonly DescMethod[]);

const LONG = "x".repeat(20_000);
const JUNK_TEXT = [
  "",
  " ",
  LONG,
  "\u0000",
  "a\u0000b",
  "\ud800",
  "💥",
  "../../etc/passwd",
  "'; drop table merchant; --",
  "%00",
  "-1",
  "NaN",
];
const JUNK_NUMBERS = [
  -1,
  1.5,
  1e30,
  2_147_483_648,
  "9999999999999999999999",
  "-9223372036854775808",
  "9223372036854775807",
  "abc",
];

/** Values that no field, or hardly one, is meant to have. `alsoTypes`: those of another type too, which no database sees. */
function junkOf(field: DescField, alsoTypes: boolean): unknown[] {
  const wrong: unknown[] = !alsoTypes
    ? []
    : [true, 5, "x", [], {}, [[]], [null], [{}], [5, "x"], { unknown: 1 }, { k: {} }, { k: 5 }, { "": "" }];
  switch (field.fieldKind) {
    case "scalar":
      if (field.scalar === ScalarType.STRING) return [...wrong, ...JUNK_TEXT];
      return [...wrong, ...JUNK_NUMBERS];
    case "enum":
      return [...wrong, "NOPE", 9999, -1, 0];
    case "message":
      return [
        ...wrong,
        ...field.message.fields.flatMap((inner) => [
          { [inner.jsonName]: LONG },
          { [inner.jsonName]: -1 },
          { [inner.jsonName]: "\u0000" },
        ]),
      ];
    case "list":
      return [
        ...wrong,
        [LONG],
        Array.from({ length: 12_000 }, () => ({})),
        Array.from({ length: 100 }, () => "x"),
        ["\u0000"],
        ["a", "a"],
      ];
    default:
      return [
        ...wrong,
        { [LONG]: LONG },
        { "\u0000": "\u0000" },
        Object.fromEntries(Array.from({ length: 500 }, (_, key) => [String(key), "v"])),
      ];
  }
}

interface WireError {
  code: string;
  message: string;
  details: { type: string; debug: { reason: string; domain: string; metadata?: Record<string, string> } }[];
}

/** Fails unless `body` is an error with exactly one ErrorInfo that is not the server's fault. */
function expectError(body: unknown): WireError {
  const error = body as WireError;
  expect(error).toMatchObject({ code: expect.any(String), message: expect.any(String) });
  expect(error.details, JSON.stringify(body).slice(0, 500)).toHaveLength(1);
  const [detail] = error.details;
  expect(detail).toMatchObject({
    type: "tokenbill.v1.ErrorInfo",
    debug: { domain: "tokenbill", reason: expect.stringMatching(/^ERROR_REASON_[A-Z_]+$/) },
  });
  expect(detail!.debug.reason).not.toBe("ERROR_REASON_INTERNAL");
  expect(error.message).not.toBe("");
  return error;
}

function envelope(body: Uint8Array, flags = 0): Uint8Array {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** The error in the last envelope of a Connect stream, or null when it ended well. */
function streamError(body: Uint8Array): unknown {
  let at = 0;
  while (at + 5 <= body.length) {
    const length = Buffer.from(body).readUInt32BE(at + 1);
    if ((body[at]! & 2) !== 0)
      return (
        (JSON.parse(Buffer.from(body.subarray(at + 5, at + 5 + length)).toString("utf8")) as { error?: unknown })
          .error ?? null
      );
    at += 5 + length;
  }
  return null;
}

describe.each(openTestDatabases())("malformed requests on $name", ({ name, open }) => {
  const alsoTypes = name === "pglite";
  let db: Database;
  let cp: TestControlPlane;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  const tokenOf = (method: DescMethod): string => {
    if (method.parent.typeName.startsWith("tokenbill.node.")) return cp.nodeToken;
    return /Merchants?$/.test(method.name) ? cp.operatorToken : cp.merchantToken;
  };

  /** Null when the call was accepted, else its error. */
  async function post(method: DescMethod, body: Uint8Array | string, type?: string): Promise<WireError | null> {
    const isStream = method.methodKind !== "unary";
    const contentType = type ?? (isStream ? "application/connect+json" : "application/json");
    const bytes = typeof body === "string" ? Buffer.from(body, "utf8") : body;
    const controller = new AbortController();
    const response = await fetch(`${cp.url}/${method.parent.typeName}/${method.name}`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${tokenOf(method)}`,
        "content-type": contentType,
        "connect-protocol-version": "1",
      },
      body: Buffer.from(isStream && contentType.startsWith("application/connect") ? envelope(bytes) : bytes),
      signal: controller.signal,
    });
    if (response.status !== 200) return expectError(await response.json());
    if (!isStream) {
      await response.arrayBuffer();
      return null;
    }
    if (method.name === "WatchConfig") {
      // A feed that was accepted has no end: its first piece tells whether it was.
      const { value } = await response.body!.getReader().read();
      controller.abort();
      const failed = streamError(value ?? new Uint8Array());
      return failed === null ? null : expectError(failed);
    }
    const failed = streamError(new Uint8Array(await response.arrayBuffer()));
    return failed === null ? null : expectError(failed);
  }

  const cases = METHODS.map((method) => [`${method.parent.name}.${method.name}`, method] as const);

  test.each(cases)("%s with junk in every field", async (_name, method) => {
    let refused = 0;
    for (const field of method.input.fields) {
      for (const junk of junkOf(field, alsoTypes)) {
        if ((await post(method, JSON.stringify({ [field.jsonName]: junk }))) !== null) refused += 1;
      }
    }
    // Every field has a type, so most of it must have been refused.
    if (alsoTypes && method.input.fields.length > 0) expect(refused).toBeGreaterThan(method.input.fields.length);
  });

  test.each(cases)("%s with a body that is no request", async (_name, method) => {
    for (const body of [
      "",
      "{",
      "null",
      "[]",
      "5",
      '"text"',
      "\u0000",
      '{"a":1',
      '{"$typeName":"x"}',
      "{}{}",
      "[".repeat(100_000),
      `{"a":${"[".repeat(5000)}${"]".repeat(5000)}}`,
    ]) {
      // An empty body of a unary call is an empty JSON document, which is none.
      const error = await post(method, body);
      if (error !== null) expect(["invalid_argument", "not_found", "permission_denied"]).toContain(error.code);
    }
    const binary = method.methodKind === "unary" ? "application/proto" : "application/connect+proto";
    for (const bytes of [
      [0xff],
      [0x0a, 0xff],
      [0x0a, 0x05, 0x61],
      [0x0a, 0x02, 0xc3, 0x28],
      Array.from({ length: 64 }, (_, index) => (index * 37) & 255),
    ]) {
      const error = await post(method, Uint8Array.from(bytes), binary);
      expect(error?.code ?? "accepted").toMatch(/^(invalid_argument|accepted)$/);
    }
  });

  test.each(cases)("%s with a giant body", async (_name, method) => {
    const limit = method.parent.name === "UsageReportService" ? 32 * 1024 * 1024 : REQUEST_BYTES_MAX;
    const error = await post(method, Buffer.alloc(limit + 1, 32));
    expect(error).toMatchObject({
      code: "resource_exhausted",
      details: [{ debug: { reason: "ERROR_REASON_LIMIT_REACHED", metadata: { limit: "request_bytes" } } }],
    });
  });

  test("unknown paths, methods, content types, compressions and timeouts", async () => {
    const path = `${cp.url}/tokenbill.v1.ProviderService/ListProviders`;
    const headers = { authorization: `Bearer ${cp.merchantToken}`, "content-type": "application/json" };
    const tries: [string, RequestInit][] = [
      [`${cp.url}/tokenbill.v1.ProviderService/Nope`, { method: "POST", headers, body: "{}" }],
      [`${cp.url}/`, { method: "POST", headers, body: "{}" }],
      [`${cp.url}/%00`, { method: "GET" }],
      [path, { method: "DELETE", headers }],
      [path, { method: "PUT", headers, body: "{}" }],
      [path, { method: "POST", headers: { ...headers, "content-type": "text/plain" }, body: "{}" }],
      [path, { method: "POST", headers: { authorization: headers.authorization }, body: new Uint8Array([1]) }],
      [path, { method: "POST", headers: { ...headers, "content-encoding": "zstd" }, body: "{}" }],
      [path, { method: "POST", headers: { ...headers, "content-encoding": "gzip" }, body: "not gzip" }],
      [path, { method: "POST", headers: { ...headers, "connect-timeout-ms": "soon" }, body: "{}" }],
      [
        `${path}?encoding=json&message=%7B&connect=v1`,
        { method: "GET", headers: { authorization: headers.authorization } },
      ],
      [`${path}?encoding=nope&message=%7B%7D`, { method: "GET", headers: { authorization: headers.authorization } }],
    ];
    for (const [url, init] of tries) {
      const response = await fetch(url, init);
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.headers.get("content-type")).toBe("application/json");
      expectError(await response.json());
    }
    const get = await fetch(`${path}?encoding=json&message=%7B%7D&connect=v1`, {
      headers: { authorization: headers.authorization },
    });
    expect(get.status).toBe(200);
  });

  test.each(["application/grpc+proto", "application/grpc-web+proto", "application/grpc+json"])(
    "junk over HTTP/2 as %s has its ErrorInfo in the trailers",
    async (type) => {
      const session = connect(cp.url);
      try {
        for (const body of [
          Buffer.from("junk"),
          envelope(Uint8Array.from([0x0a, 0xff])),
          envelope(Buffer.from("{nope")),
          Buffer.alloc(0),
          Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1]),
        ]) {
          const stream = session.request({
            [constants.HTTP2_HEADER_METHOD]: "POST",
            [constants.HTTP2_HEADER_PATH]: "/tokenbill.v1.ProviderService/GetProvider",
            "content-type": type,
            authorization: `Bearer ${cp.merchantToken}`,
            te: "trailers",
          });
          let trailers: Record<string, unknown> = {};
          let text = "";
          stream.setEncoding("latin1");
          stream.on("trailers", (seen: Record<string, unknown>) => (trailers = seen));
          stream.on("data", (chunk: string) => (text += chunk));
          stream.end(body);
          await once(stream, "close");
          const all = `${JSON.stringify(trailers)}${text}`;
          expect(all).toMatch(/grpc-status"?: ?"?(3|8|12)/);
          expect(all).toContain("grpc-status-details-bin");
        }
      } finally {
        session.close();
      }
    },
  );

  test("nothing of it was unexpected, and the server still serves", async () => {
    const unexpected = cp.logLines.filter((line) => line.includes('"level":50') || line.includes('"level":60'));
    expect(unexpected).toStrictEqual([]);
    expect(await (await fetch(`${cp.url}/readyz`)).text()).toBe("ready\n");
  });
});
