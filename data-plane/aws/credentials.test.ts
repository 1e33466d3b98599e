import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { AwsAccount } from "../route_types.ts";
import {
  AwsCredentials,
  type AwsCredentialsOptions,
  BACKOFF_MS_MIN,
  INVALIDATE_AGE_MS_MIN,
  REFRESH_EARLY_MS,
} from "./credentials.ts";
import { AwsCredentialsError } from "./credentials_error.ts";
import { signRequest } from "./sigv4.ts";
import { readCredentialsXml } from "./sts.ts";

const NONE: AwsAccount = {
  accessKeyId: "",
  secretAccessKey: "",
  sessionToken: "",
  roleArn: "",
  externalId: "",
  nodeIdentity: false,
};
const STATIC: AwsAccount = { ...NONE, accessKeyId: "AKIDSTATIC", secretAccessKey: "static-secret" };
const ROLE: AwsAccount = { ...STATIC, roleArn: "arn:aws:iam::123456789012:role/r", externalId: "e/1" };
const NODE: AwsAccount = { ...NONE, nodeIdentity: true };
const REGION = "eu-west-1";
const START_MS = Date.UTC(2026, 0, 2, 3, 4, 5);
const HOUR_MS = 3_600_000;

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}
type Answer = readonly [status: number, text: string];

let server: Server;
let origin = "";
let seen: Seen[] = [];
let now = START_MS;
let made = 0;
let answerOf: (request: Seen) => Answer = () => [404, ""];

const later = (ms: number) => new Date(now + ms).toISOString();

function stsXml(id: string): string {
  return (
    `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser>` +
    `<Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser><Credentials>\n<AccessKeyId>${id}</AccessKeyId>` +
    `<SecretAccessKey>s&lt;${id}&amp;</SecretAccessKey><SessionToken>token+/=</SessionToken>` +
    `<Expiration>${later(HOUR_MS)}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
  );
}

function json(id: string): string {
  return JSON.stringify({ AccessKeyId: id, SecretAccessKey: "s", Token: "t", Expiration: later(HOUR_MS) });
}

/** An imitation of all three: the token service, a container's and an instance's address. */
function imitate(request: Seen): Answer {
  if (request.url === "/") return [200, stsXml(`ASIA${++made}`)];
  if (request.url === "/v2/credentials") return [200, json("ASIACONTAINER")];
  if (request.url === "/latest/api/token") return [200, "imds-token"];
  if (request.headers["x-aws-ec2-metadata-token"] !== "imds-token") return [401, ""];
  if (request.url === "/latest/meta-data/iam/security-credentials/") return [200, "my-role\n"];
  if (request.url === "/latest/meta-data/iam/security-credentials/my-role") return [200, json(`ASIANODE${++made}`)];
  return [404, ""];
}

beforeAll(async () => {
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      const each = { method: request.method!, url: request.url!, headers: request.headers, body };
      seen.push(each);
      const [status, text] = answerOf(each);
      response.writeHead(status, { connection: "close" });
      response.end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => server.close());
beforeEach(() => {
  seen = [];
  made = 0;
  now = START_MS;
  answerOf = imitate;
});

function credentials(changes: Partial<AwsCredentialsOptions> = {}): AwsCredentials {
  return new AwsCredentials({
    fetch,
    nowMs: () => now,
    env: {},
    readFile: (path) => Promise.reject(new Error(path)),
    nodeIdentityAllowed: true,
    stsOrigin: origin,
    containerOrigin: origin,
    instanceOrigin: origin,
    ...changes,
  });
}

async function failure(run: () => unknown): Promise<AwsCredentialsError> {
  try {
    await run();
  } catch (error) {
    if (error instanceof AwsCredentialsError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

describe("static credentials", () => {
  test("are there at once, and always the same", () => {
    const aws = credentials();
    const account = { ...STATIC, sessionToken: "t" };
    const got = aws.get(account, "");
    expect(got).toEqual({ accessKeyId: "AKIDSTATIC", secretAccessKey: "static-secret", sessionToken: "t" });
    aws.invalidate(account);
    expect(aws.get(account, "")).toBe(got);
  });

  test("or there are none", async () => {
    expect((await failure(() => credentials().get(NONE, REGION))).code).toBe("aws_no_credentials");
    expect((await failure(() => credentials().get(ROLE, ""))).message).toContain("region");
  });
});

describe("a role", () => {
  test("is assumed with a signed call, once for all that wait", async () => {
    const aws = credentials();
    const [one, two] = await Promise.all([aws.get(ROLE, REGION), aws.get(ROLE, REGION)]);
    expect(one).toEqual({ accessKeyId: "ASIA1", secretAccessKey: "s<ASIA1&", sessionToken: "token+/=" });
    expect(two).toBe(one);
    expect(aws.get(ROLE, REGION)).toBe(one);
    expect(seen).toHaveLength(1);
    const [{ headers, body }] = seen as [Seen];
    expect(Object.fromEntries(new URLSearchParams(body))).toEqual({
      Action: "AssumeRole",
      Version: "2011-06-15",
      RoleArn: ROLE.roleArn,
      RoleSessionName: "tokenbill",
      DurationSeconds: "3600",
      ExternalId: "e/1",
    });
    const signed = signRequest({
      method: "POST",
      origin,
      path: "/",
      headers: ["content-type", headers["content-type"]!],
      body: Buffer.from(body),
      region: REGION,
      service: "sts",
      credentials: { ...STATIC },
      nowMs: START_MS,
    });
    expect(headers.authorization).toBe(signed[signed.indexOf("authorization") + 1]);
  });

  test("is renewed early, while the old credentials are used", async () => {
    const aws = credentials();
    const old = await aws.get(ROLE, REGION);
    now += HOUR_MS - REFRESH_EARLY_MS - 1;
    expect(aws.get(ROLE, REGION)).toBe(old);
    expect(seen).toHaveLength(1);
    now += 1;
    for (let i = 0; i < 3; i++) expect(aws.get(ROLE, REGION)).toBe(old);
    await expect.poll(() => (aws.get(ROLE, REGION) as { accessKeyId: string }).accessKeyId).toBe("ASIA2");
    expect(seen).toHaveLength(2);
  });

  test("outlives a token service that is out of order, up to the end", async () => {
    const aws = credentials();
    const old = await aws.get(ROLE, REGION);
    answerOf = () => [503, ""];
    now += HOUR_MS - REFRESH_EARLY_MS;
    expect(aws.get(ROLE, REGION)).toBe(old);
    await expect.poll(() => seen.length).toBe(2);
    expect(aws.get(ROLE, REGION)).toBe(old);
    now += REFRESH_EARLY_MS;
    expect((await failure(() => aws.get(ROLE, REGION))).code).toBe("aws_credentials_unreachable");
  });

  test("is asked for less and less often while that fails", async () => {
    const aws = credentials();
    answerOf = () => [403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>arn:aws:iam::1</Message></Error>"];
    const error = await failure(() => aws.get(ROLE, REGION));
    expect(error.code).toBe("aws_credentials_refused");
    expect(error.message).toBe("AWS's token service in eu-west-1 does not let the role be assumed (AccessDenied)");
    expect(await failure(() => aws.get(ROLE, REGION))).toBe(error);
    now += BACKOFF_MS_MIN;
    await failure(() => aws.get(ROLE, REGION));
    now += BACKOFF_MS_MIN;
    await failure(() => aws.get(ROLE, REGION));
    expect(seen).toHaveLength(2);
    now += BACKOFF_MS_MIN;
    answerOf = imitate;
    expect(await aws.get(ROLE, REGION)).toMatchObject({ accessKeyId: "ASIA1" });
  });

  test("is assumed anew after a refusal, unless it just was", async () => {
    const aws = credentials();
    const old = await aws.get(ROLE, REGION);
    aws.invalidate(ROLE);
    expect(aws.get(ROLE, REGION)).toBe(old);
    now += INVALIDATE_AGE_MS_MIN;
    aws.invalidate(ROLE);
    expect(await aws.get(ROLE, REGION)).toMatchObject({ accessKeyId: "ASIA2" });
  });

  test("may be assumed with the node's identity", async () => {
    const aws = credentials();
    expect(await aws.get({ ...ROLE, accessKeyId: "", nodeIdentity: true }, REGION)).toMatchObject({
      accessKeyId: "ASIA2",
    });
    expect(seen.at(-1)!.headers["x-amz-security-token"]).toBe("t");
  });

  test.each([
    ["no XML", "{}"],
    ["no credentials", "<a><Credentials></Credentials></a>"],
    ["two of them", "<Credentials><AccessKeyId>a</AccessKeyId></Credentials><Credentials></Credentials>"],
    ["an entity that is not XML's own", stsXml("x").replace("&lt;", "&lol;")],
    ["elements where text should be", stsXml("x").replace("token+/=", "<b>t</b>")],
    ["no end", stsXml("x").replace(/<Expiration>.*<\/Expiration>/, "")],
    ["an end without a beginning", "</Credentials><Credentials>"],
  ])("is not read from %s", async (_, xml) => {
    expect(readCredentialsXml(xml)).toBeNull();
    answerOf = () => [200, xml];
    expect((await failure(() => credentials().get(ROLE, REGION))).code).toBe("aws_credentials_invalid_answer");
  });

  test("does not come from an answer without end, or from none", async () => {
    answerOf = () => [200, "x".repeat(100_000)];
    expect((await failure(() => credentials().get(ROLE, REGION))).code).toBe("aws_credentials_unreachable");
    const aws = credentials({ stsOrigin: "http://127.0.0.1:1" });
    expect((await failure(() => aws.get(ROLE, REGION))).code).toBe("aws_credentials_unreachable");
  });
});

describe("the node's identity", () => {
  test("is for those whom the operator allows it", async () => {
    const error = await failure(() => credentials({ nodeIdentityAllowed: false }).get(NODE, REGION));
    expect(error.code).toBe("aws_node_identity_not_allowed");
    expect(seen).toHaveLength(0);
  });

  test("is the container's: a path", async () => {
    const env = { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/v2/credentials" };
    expect(await credentials({ env }).get(NODE, REGION)).toEqual({
      accessKeyId: "ASIACONTAINER",
      secretAccessKey: "s",
      sessionToken: "t",
    });
  });

  test("is the container's: a whole address and a token in a file", async () => {
    const aws = credentials({
      env: {
        AWS_CONTAINER_CREDENTIALS_FULL_URI: `${origin}/v2/credentials`,
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: "/token",
      },
      readFile: (path) => Promise.resolve(`token of ${path}\n`),
    });
    expect(await aws.get(NODE, REGION)).toMatchObject({ accessKeyId: "ASIACONTAINER" });
    expect(seen[0]!.headers.authorization).toBe("token of /token");
  });

  test.each([
    "http://example.com/",
    "https://169.254.169.254/",
    "http://127.0.0.1.example.com/",
    "http://user@10.0.0.1/",
    "file:///etc/passwd",
    "nonsense",
  ])("is not asked for at %s", async (AWS_CONTAINER_CREDENTIALS_FULL_URI) => {
    const aws = credentials({ env: { AWS_CONTAINER_CREDENTIALS_FULL_URI } });
    expect((await failure(() => aws.get(NODE, REGION))).code).toBe("aws_container_address_not_allowed");
  });

  test.each(["http://169.254.170.23/v1", "http://[fd00:ec2::23]/v1", "http://localhost:1/v1", "http://127.9.9.9:1/"])(
    "is asked for at %s",
    async (AWS_CONTAINER_CREDENTIALS_FULL_URI) => {
      const urls: string[] = [];
      const aws = credentials({
        env: { AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN: "secret-token" },
        fetch: (url) => {
          urls.push(url);
          return Promise.reject(new Error("secret-token"));
        },
      });
      const error = await failure(() => aws.get(NODE, REGION));
      expect(error.code).toBe("aws_credentials_unreachable");
      expect(JSON.stringify([error.message, error.cause, error.stack])).not.toContain("secret-token");
      expect(urls).toEqual([AWS_CONTAINER_CREDENTIALS_FULL_URI]);
    },
  );

  test("is a web identity's, whose token is read each time", async () => {
    let reads = 0;
    const aws = credentials({
      env: { AWS_WEB_IDENTITY_TOKEN_FILE: "/jwt", AWS_ROLE_ARN: "arn:role", AWS_REGION: "us-west-2" },
      readFile: () => Promise.resolve(`jwt${++reads}\n`),
    });
    expect(await aws.get(NODE, REGION)).toMatchObject({ accessKeyId: "ASIA1" });
    now += HOUR_MS;
    expect(await aws.get(NODE, REGION)).toMatchObject({ accessKeyId: "ASIA2" });
    expect(seen.map(({ headers }) => headers.authorization)).toEqual([undefined, undefined]);
    expect(seen.map(({ body }) => new URLSearchParams(body).get("WebIdentityToken"))).toEqual(["jwt1", "jwt2"]);
    expect(new URLSearchParams(seen[0]!.body).get("RoleArn")).toBe("arn:role");
  });

  test("is asked for in each region where none is the node's own, so that one that is wrong fails no other", async () => {
    const aws = credentials({
      env: { AWS_WEB_IDENTITY_TOKEN_FILE: "/jwt", AWS_ROLE_ARN: "arn:role" },
      readFile: () => Promise.resolve("jwt"),
      stsOrigin: undefined,
      fetch: async (url) => {
        if (!url.includes(REGION)) throw new Error("there is no such host");
        return { status: 200, body: new Blob([stsXml("ASIA1")]).stream() };
      },
    });
    await expect(aws.get({ ...NODE }, "zz-nowhere-1")).rejects.toMatchObject({ code: "aws_credentials_unreachable" });
    const got = await aws.get(NODE, REGION);
    expect(got).toMatchObject({ accessKeyId: "ASIA1" });
    expect(aws.get({ ...NODE }, REGION)).toBe(got);
    now += INVALIDATE_AGE_MS_MIN;
    expect(aws.invalidate(NODE)).toBe(true);
  });

  test("is the instance's, shared by all accounts", async () => {
    const aws = credentials();
    const got = await aws.get(NODE, REGION);
    expect(got).toMatchObject({ accessKeyId: "ASIANODE1" });
    expect(seen.map(({ method, url }) => `${method} ${url}`)).toEqual([
      "PUT /latest/api/token",
      "GET /latest/meta-data/iam/security-credentials/",
      "GET /latest/meta-data/iam/security-credentials/my-role",
    ]);
    expect(seen[0]!.headers["x-aws-ec2-metadata-token-ttl-seconds"]).toBe("21600");
    expect(aws.get({ ...NODE }, REGION)).toBe(got);
    now += INVALIDATE_AGE_MS_MIN;
    aws.invalidate(NODE);
    expect(await aws.get(NODE, REGION)).toMatchObject({ accessKeyId: "ASIANODE2" });
  });

  test.each<[string, (request: Seen) => Answer, string]>([
    ["no role", (seen) => (seen.method === "PUT" ? [200, "t"] : [404, ""]), "aws_no_node_identity"],
    ["no token", () => [403, ""], "aws_credentials_refused"],
    ["a broken answer", (seen) => [200, seen.url.endsWith("role") ? "{" : "role"], "aws_credentials_invalid_answer"],
    ["null", (seen) => [200, seen.url.endsWith("role") ? "null" : "role"], "aws_credentials_invalid_answer"],
    [
      "credentials that have expired",
      (seen) => [200, seen.url.endsWith("role") ? json("x").replace(later(HOUR_MS), later(0)) : "role"],
      "aws_credentials_invalid_answer",
    ],
  ])("is not found with %s", async (_, answer, code) => {
    answerOf = answer;
    expect((await failure(() => credentials().get(NODE, REGION))).code).toBe(code);
  });

  test("is not there where it is switched off", async () => {
    const aws = credentials({ env: { AWS_EC2_METADATA_DISABLED: "true" } });
    expect((await failure(() => aws.get(NODE, REGION))).code).toBe("aws_no_node_identity");
    expect(seen).toHaveLength(0);
  });
});
