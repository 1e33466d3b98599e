import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createNetServer } from "node:net";
import { once } from "node:events";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderTestResult as Result } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { testProvider, type Verdict } from "./test_provider.ts";

const KEY = "sk-test-0123456789-never-shown";

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

const servers: { close(): unknown; closeAllConnections?(): void }[] = [];

async function listening(server: Server): Promise<number> {
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function upstream(answer: Answer): Promise<string> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += String(chunk)));
    request.on("end", () => answer(request, response, body));
  });
  return `http://127.0.0.1:${await listening(server)}/v1`;
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function run(
  baseUrl: string,
  model = "",
  more: {
    allowPrivate?: boolean;
    timeoutMs?: number;
    format?: number;
    apiVersion?: string;
    azureClientId?: string;
  } = {},
): Promise<Verdict> {
  const tested = {
    format: more.format ?? ProviderFormat.OPENAI,
    baseUrl,
    headers: { "x-project": "p1" },
    apiVersion: more.apiVersion ?? "",
    credentials: { apiKey: KEY, azureClientId: more.azureClientId ?? "" },
  };
  const { allowPrivate = true, timeoutMs } = more;
  return testProvider(tested, model, {
    allowPrivate,
    timeoutMs,
    now: () => Date.now(),
    signal: new AbortController().signal,
  });
}

afterAll(() => {
  for (const server of servers) {
    server.closeAllConnections?.();
    server.close();
  }
});

describe("testProvider", () => {
  test("ok: with the credentials, the headers and one call", async () => {
    const seen: string[] = [];
    const url = await upstream((request, response) => {
      seen.push(`${request.method} ${request.url} ${request.headers.authorization} ${request.headers["x-project"]}`);
      json(response, 200, { object: "list", data: [{ id: "gpt-a" }, { id: "models/gem" }] });
    });
    expect(await run(url)).toMatchObject({ result: Result.OK, httpStatus: 200 });
    expect(await run(url, "gpt-a")).toMatchObject({ result: Result.OK });
    expect(await run(url, "gem")).toMatchObject({ result: Result.OK });
    expect(seen).toStrictEqual(Array.from({ length: 3 }, () => `GET /v1/models Bearer ${KEY} p1`));
  });

  test("a model that is not in the list is asked for by name", async () => {
    const url = await upstream((request, response) => {
      if (request.url === "/v1/models") return json(response, 200, { data: [{ id: "other" }] });
      if (request.url === "/v1/models/org%2Fhidden") return json(response, 200, { id: "org/hidden" });
      return json(response, 404, { error: { message: "no such model" } });
    });
    expect((await run(url, "org/hidden")).result).toBe(Result.OK);
    expect(await run(url, "missing")).toMatchObject({ result: Result.MODEL_NOT_FOUND, httpStatus: 404 });
  });

  test("without a list of models, one token is the proof", async () => {
    const bodies: string[] = [];
    const url = await upstream((request, response, body) => {
      if (request.url !== "/v1/chat/completions") return json(response, 404, { error: { message: "not found" } });
      bodies.push(body);
      const { model } = JSON.parse(body) as { model: string };
      if (model === "good") return json(response, 200, { choices: [] });
      if (model === "picky")
        return json(response, 400, { error: { message: "use max_completion_tokens instead of max_tokens" } });
      return json(response, 404, { error: { code: "model_not_found" } });
    });
    expect((await run(url, "good")).result).toBe(Result.OK);
    expect((await run(url, "picky")).result).toBe(Result.OK);
    expect((await run(url, "missing")).result).toBe(Result.MODEL_NOT_FOUND);
    expect(JSON.parse(bodies[0]!)).toMatchObject({ model: "good", max_tokens: 1 });
    expect(await run(url)).toMatchObject({ result: Result.PATH_NOT_FOUND, httpStatus: 404 });
  });

  test("a wrong path is said to be one", async () => {
    const url = await upstream((_request, response) => {
      response.writeHead(404, { "content-type": "text/html" });
      response.end("<h1>nginx</h1>");
    });
    expect((await run(url)).result).toBe(Result.PATH_NOT_FOUND);
    expect(await run(url, "any")).toMatchObject({
      result: Result.PATH_NOT_FOUND,
      message: expect.stringContaining("/v1"),
    });
  });

  test.each([
    [401, Result.UNAUTHORIZED],
    [403, Result.UNAUTHORIZED],
    [402, Result.LIMITED],
    [429, Result.LIMITED],
    [500, Result.BAD_ANSWER],
    [503, Result.BAD_ANSWER],
    [302, Result.BAD_ANSWER],
    [418, Result.BAD_ANSWER],
  ])("status %i, and what the upstream says is not passed on", async (status, result) => {
    let calls = 0;
    const url = await upstream((request, response) => {
      calls += 1;
      response.writeHead(status, { location: "/elsewhere" });
      response.end(
        JSON.stringify({ error: { message: `Incorrect API key provided: ${request.headers.authorization}` } }),
      );
    });
    const verdict = await run(url);
    expect(verdict).toMatchObject({ result, httpStatus: status });
    expect(verdict.message).not.toContain(KEY);
    expect(calls).toBe(1);
  });

  test("what is no API is a bad answer, however long", async () => {
    const page = await upstream((_request, response) => response.end("<html>hello</html>"));
    expect((await run(page)).result).toBe(Result.BAD_ANSWER);
    const wrongShape = await upstream((_request, response) => json(response, 200, { data: "no list" }));
    expect((await run(wrongShape)).result).toBe(Result.BAD_ANSWER);
    const endless = await upstream((_request, response) => {
      const more = (): void => {
        while (!response.destroyed && response.write("x".repeat(65_536)));
        response.once("drain", more);
      };
      more();
    });
    // Cut at its cap; a list too long to read still proves that the account works.
    expect((await run(endless)).result).toBe(Result.OK);
  });

  test("a closed port", async () => {
    const server = createServer();
    const port = await listening(server);
    server.close();
    await once(server, "close");
    expect(await run(`http://127.0.0.1:${port}/v1`)).toMatchObject({
      result: Result.CONNECT_FAILED,
      httpStatus: 0,
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("a host name that does not resolve", async () => {
    expect((await run("http://nope.invalid/v1")).result).toBe(Result.DNS_FAILED);
  });

  test("nothing comes back in time", async () => {
    const url = await upstream(() => {});
    expect((await run(url, "", { timeoutMs: 200 })).result).toBe(Result.TIMEOUT);
  });

  test("a connection that breaks, and a server that does not speak HTTP", async () => {
    const cut = await upstream((request) => request.socket.destroy());
    expect((await run(cut)).result).toBe(Result.CONNECT_FAILED);
    const server = createNetServer((socket) => {
      socket.on("error", () => {});
      socket.end("SSH-2.0-OpenSSH_9\r\n");
    });
    servers.push(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    expect((await run(`http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`)).result).toBe(Result.BAD_ANSWER);
  });

  test("addresses that are not allowed are not connected to", async () => {
    let calls = 0;
    const url = await upstream((_request, response) => {
      calls += 1;
      json(response, 200, { data: [] });
    });
    const port = new URL(url).port;
    expect((await run(url, "", { allowPrivate: false })).result).toBe(Result.ADDRESS_NOT_ALLOWED);
    // A name that leads to loopback is found out when it is resolved.
    expect((await run(`http://localhost:${port}/v1`, "", { allowPrivate: false })).result).toBe(
      Result.ADDRESS_NOT_ALLOWED,
    );
    expect(calls).toBe(0);
    expect((await run(`http://localhost:${port}/v1`)).result).toBe(Result.OK);
    for (const host of ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0"]) {
      expect((await run(`http://${host}/v1`)).result).toBe(Result.ADDRESS_NOT_ALLOWED);
    }
  });

  test("what only nodes can try is not called, and said to be so", async () => {
    const { ANTHROPIC, AWS_BEDROCK, AZURE_OPENAI } = ProviderFormat;
    const nowhere = "http://127.0.0.1:1";
    const bedrock = await run(nowhere, "", { format: AWS_BEDROCK });
    expect(bedrock).toMatchObject({ result: Result.ONLY_BY_NODES, httpStatus: 0 });
    expect(bedrock.message).toContain("request log");
    const entra = await run(nowhere, "", { format: AZURE_OPENAI, azureClientId: "client" });
    expect(entra.result).toBe(Result.ONLY_BY_NODES);
    expect((await run(nowhere, "", { format: ANTHROPIC })).result).toBe(Result.CONNECT_FAILED);
    expect((await run(nowhere, "", { format: 99 })).result).toBe(Result.FORMAT_NOT_ROUTABLE);
  });

  /** An upstream at the root of its host, and what it was asked. */
  async function asked(answer: (path: string) => [number, unknown], names: string[]) {
    const seen: string[] = [];
    const url = await upstream((request, response, body) => {
      const headers = names.map((name) => request.headers[name] ?? "-");
      const asks = (JSON.parse(body || "{}") as { model?: string }).model;
      seen.push([request.method, request.url, ...headers, ...(asks === undefined ? [] : [asks])].join(" "));
      json(response, ...answer(request.url!));
    });
    return { url: url.replace(/\/v1$/, ""), seen };
  }

  test("Anthropic: its own headers, and its models by name", async () => {
    const names = ["x-api-key", "anthropic-version", "authorization"];
    const { url, seen } = await asked(
      (path) =>
        path.startsWith("/v1/models?")
          ? [200, { data: [{ type: "model", id: "claude-a" }], has_more: true }]
          : [path === "/v1/models/claude-b" ? 200 : 404, {}],
      names,
    );
    const format = ProviderFormat.ANTHROPIC;
    expect((await run(url, "", { format })).result).toBe(Result.OK);
    expect((await run(url, "claude-a", { format, apiVersion: "2024-01-01" })).result).toBe(Result.OK);
    expect((await run(url, "claude-b", { format })).result).toBe(Result.OK);
    expect((await run(url, "claude-c", { format })).result).toBe(Result.MODEL_NOT_FOUND);
    expect(seen.slice(0, 2)).toStrictEqual([
      `GET /v1/models?limit=1000 ${KEY} 2023-06-01 -`,
      `GET /v1/models?limit=1000 ${KEY} 2024-01-01 -`,
    ]);
  });

  test("Anthropic: without a list of models, a message of one token", async () => {
    const { url, seen } = await asked((path) => (path === "/v1/messages" ? [200, { type: "message" }] : [404, {}]), []);
    const format = ProviderFormat.ANTHROPIC;
    expect((await run(url, "claude-a", { format })).result).toBe(Result.OK);
    expect(seen).toStrictEqual(["GET /v1/models?limit=1000", "POST /v1/messages claude-a"]);
    const hint = await run(url, "", { format });
    expect(hint).toMatchObject({ result: Result.PATH_NOT_FOUND });
    expect(hint.message).toContain("before /v1");
  });

  test.each([
    ["", "/openai/v1/models", "/openai/v1/chat/completions"],
    [
      "2024-10-21",
      "/openai/models?api-version=2024-10-21",
      "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21",
    ],
  ])("Azure OpenAI with API version '%s': a deployment is proved by an answer", async (apiVersion, list, chat) => {
    let deployment: [number, unknown] = [200, { choices: [] }];
    const { url, seen } = await asked(
      (path) => (path === list ? [200, { data: [] }] : deployment),
      ["api-key", "authorization"],
    );
    const more = { format: ProviderFormat.AZURE_OPENAI, apiVersion };
    expect((await run(url, "", more)).result).toBe(Result.OK);
    expect((await run(url, "my-gpt", more)).result).toBe(Result.OK);
    expect(seen).toStrictEqual([`GET ${list} ${KEY} -`, `GET ${list} ${KEY} -`, `POST ${chat} ${KEY} - my-gpt`]);
    deployment = [404, { error: { code: "DeploymentNotFound", message: "no such deployment" } }];
    expect((await run(url, "my-gpt", more)).result).toBe(Result.MODEL_NOT_FOUND);
    deployment = [400, { error: { code: "OperationNotSupported", message: "not with this model" } }];
    expect((await run(url, "my-gpt", more)).result).toBe(Result.OK);
  });

  test("a caller who goes away ends the test", async () => {
    const url = await upstream(() => {});
    const gone = AbortSignal.abort(new Error("gone"));
    const tested = {
      format: ProviderFormat.OPENAI,
      apiVersion: "",
      baseUrl: url,
      headers: {},
      credentials: { apiKey: "", azureClientId: "" },
    };
    await expect(testProvider(tested, "", { allowPrivate: true, now: () => 0, signal: gone })).rejects.toThrow("gone");
  });
});

/** A self-signed certificate for other.example, good for tests alone. */
const TEST_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJT7nsSh0meku0JmQ
Ghv3YjNJ8NnpJFCIdLYT7NLgnmehRANCAASLxgdFaOeEPhRTMT7aME61isYL15Ae
qz+Ugu1mHkfUNxZq2/diG4PoEjZQPyvyeqh6C709AzZLhFvayOGzyxE1
-----END PRIVATE KEY-----
`;
const TEST_CERT = `-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIUBUAmWn5YcUlqP0HQXguwAhHPs6IwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTAgFw0yNjExMjMxMjQ3MjdaGA8yMTI2
MTAzMDEyNDcyN1owGDEWMBQGA1UEAwwNb3RoZXIuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABIvGB0Vo54Q+FFMxPtowTrWKxgvXkB6rP5SC7WYeR9Q3
Fmrb92Ibg+gSNlA/K/J6qHoLvT0DNkuEW9rI4bPLETWjbTBrMB0GA1UdDgQWBBTx
5BUizZl6t1MIheJPZTWlr2rPdjAfBgNVHSMEGDAWgBTx5BUizZl6t1MIheJPZTWl
r2rPdjAPBgNVHRMBAf8EBTADAQH/MBgGA1UdEQQRMA+CDW90aGVyLmV4YW1wbGUw
CgYIKoZIzj0EAwIDSAAwRQIgHbnSZKJD4xxCmZIhGt4JK9r/FU9CDtXxTLAdEacm
O3wCIQCBqQUBHaJ0BIyu1PZFyUIw1t8uNeLGAOLgnKOO4ck+6Q==
-----END CERTIFICATE-----
`;

describe("testProvider and TLS", () => {
  const trusted = getCACertificates("default");
  let port: number;
  beforeAll(async () => {
    port = await listening(createTlsServer({ key: TEST_KEY, cert: TEST_CERT }, (_request, response) => response.end()));
  });
  afterAll(() => setDefaultCACertificates(trusted));

  test("a certificate that is not trusted, and one for another name", async () => {
    expect(await run(`https://localhost:${port}/v1`)).toMatchObject({
      result: Result.TLS_FAILED,
      message: expect.stringContaining("not trusted"),
    });
    setDefaultCACertificates([...trusted, TEST_CERT]);
    expect(await run(`https://localhost:${port}/v1`)).toMatchObject({
      result: Result.TLS_FAILED,
      message: expect.stringContaining("another host name"),
    });
  });

  test("https to a port without TLS", async () => {
    const url = await upstream((_request, response) => json(response, 200, { data: [] }));
    expect(await run(url.replace("http:", "https:"))).toMatchObject({
      result: Result.TLS_FAILED,
      message: expect.stringContaining("http://"),
    });
  });
});
