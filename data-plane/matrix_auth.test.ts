/** Credentials that must be fetched, end, or are refused, with the calls that need them. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AwsCredentials } from "./aws/credentials.ts";
import { awsSigner } from "./aws/signer.ts";
import { entraTokens } from "./entra.ts";
import type { Gateway } from "./testing.ts";
import { KEY } from "./testing.ts";
import { type AwsKey, wrongSignature } from "./testing_aws.ts";
import { openAi } from "./testing_clients.ts";
import {
  AWS_KEY,
  AWS_REGION,
  type Call,
  imitate,
  type Imitation,
  refuses,
  type Reply,
  says,
} from "./testing_formats.ts";
import { creditsOf, gatewayTo } from "./testing_matrix.ts";
import type { Turn } from "./testing_turns.ts";
import { upstreamAuth } from "./upstream_auth.ts";

const HELLO: Turn = {
  text: "Hello",
  finish: "stop",
  tokens: { input: 20, cached: 0, written: 0, output: 7, reasoning: 0 },
};
const PAID = creditsOf([
  [1, 20],
  [4, 7],
  [11, 1],
]);

let gateway: Gateway;
let imitation: Imitation;
let issuer: Server;
let origin: string;
/** What the issuer of tokens was asked. */
let asked: string[];
/** How the n-th one is answered. */
let issue: (n: number) => [number, string];
/** Milliseconds that clocks of credentials are ahead. */
let ahead = 0;

beforeEach(async () => {
  asked = [];
  ahead = 0;
  issuer = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    request.on("end", () => {
      asked.push(`${request.method} ${request.url} ${text}`);
      const [status, body] = issue(asked.length);
      response.writeHead(status).end(body);
    });
  });
  await new Promise<void>((resolve) => issuer.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
});

afterEach(async () => {
  await gateway.close();
  await imitation.close();
  issuer.closeAllConnections();
  issuer.close();
  expect(imitation.wrong).toEqual([]);
});

async function say(stream = false): Promise<string> {
  const ask = { model: "gpt", messages: [{ role: "user" as const, content: "Hi" }] };
  const { chat } = openAi(gateway.url, KEY);
  if (!stream) return (await chat.completions.create(ask)).choices[0]!.message.content!;
  return (await chat.completions.stream(ask).finalChatCompletion()).choices[0]!.message.content!;
}

const attempts = (at: number) =>
  gateway.journal.settlements[at]!.attempts.map(({ kind, result, detail }) => [kind, result, detail]);
const RENEWED = [
  [1, 4, "credentials_renewed"],
  [3, 1, ""],
];
const SERVED = [[1, 1, ""]];

describe("Entra ID", () => {
  let accepted: string;

  async function start(): Promise<void> {
    accepted = "token-1";
    issue = (n) => [200, JSON.stringify({ token_type: "Bearer", expires_in: 3600, access_token: `token-${n}` })];
    const known = ({ headers }: Call): string | null =>
      /^Bearer token-\d$/.test(headers.authorization ?? "") && headers["api-key"] === undefined ? null : "no token";
    imitation = await imitate("azure", { auth: known });
    const reply: Reply = (response, call, wire) =>
      (call.headers.authorization === `Bearer ${accepted}` ? says(HELLO) : refuses(401, "401", "Token expired."))(
        response,
        call,
        wire,
      );
    imitation.always(reply);
    const credentials = { azureTenantId: "tenant.example", azureClientId: "client-1", azureClientSecret: "secret-1" };
    const scope = "https://cognitiveservices.azure.com/.default";
    const now = (): number => performance.now() + ahead;
    gateway = await gatewayTo([imitation], {
      providers: [{ ...imitation.provider, credentials }],
      auth: upstreamAuth(entraTokens({ fetch, now, cloud: () => ({ authority: origin, scope }) }), null),
    });
  }

  test("gives one token for many calls", async () => {
    await start();
    expect(await Promise.all([say(), say(), say(true)])).toEqual(["Hello", "Hello", "Hello"]);
    expect(asked).toEqual([
      "POST /tenant.example/oauth2/v2.0/token grant_type=client_credentials&client_id=client-1&client_secret=secret-1" +
        "&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default",
    ]);
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual([PAID, PAID, PAID]);
  });

  test.each([false, true])("gives another when the resource refuses it, once (stream: %s)", async (stream) => {
    await start();
    await say();
    ahead = 60_000;
    accepted = "token-2";
    expect(await say(stream)).toBe("Hello");
    expect(asked).toHaveLength(2);
    expect(attempts(1)).toEqual(RENEWED);
    expect(gateway.journal.settlements[1]!.credits).toBe(PAID);
    // That one is not thrown away at once.
    accepted = "token-3";
    await expect(say()).rejects.toMatchObject({ status: 503 });
    expect(asked).toHaveLength(2);
  });

  test("that refuses is as if the resource had", async () => {
    await start();
    issue = () => [
      401,
      JSON.stringify({ error: "invalid_client", error_codes: [7000215], error_description: "secret-1" }),
    ];
    const error = await say().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ status: 503, code: "no_available_target" });
    expect(JSON.stringify(error)).not.toContain("secret-1");
    expect(imitation.calls).toHaveLength(0);
    expect(attempts(0)).toEqual([[1, 19, "token_refused"]]);
  });
});

describe("AWS", () => {
  const keyOf = (n: number): AwsKey => ({
    accessKeyId: `ASIA${n}`,
    secretAccessKey: `role-${n}`,
    sessionToken: `session-${n}`,
  });
  /** The keys that are valid; what is signed with others has expired. */
  let valid: string;

  async function start(roleArn: string, behindMs = 0): Promise<void> {
    valid = "ASIA1";
    issue = (n) => {
      const { accessKeyId, secretAccessKey, sessionToken } = keyOf(n);
      const Expiration = new Date(Date.now() + 3_600_000).toISOString();
      const xml = Object.entries({
        AccessKeyId: accessKeyId,
        SecretAccessKey: secretAccessKey,
        SessionToken: sessionToken,
        Expiration,
      });
      return [200, `<R><Credentials>${xml.map(([k, v]) => `<${k}>${v}</${k}>`).join("")}</Credentials></R>`];
    };
    imitation = await imitate("converse", {
      auth: (call, body) => {
        const n = /Credential=ASIA(\d)/.exec(call.headers.authorization ?? "")?.[1];
        return wrongSignature({ ...call, body }, n === undefined ? AWS_KEY : keyOf(Number(n)), AWS_REGION, "bedrock");
      },
    });
    const nowMs = (): number => Date.now() + ahead - behindMs;
    const readFile = (path: string): Promise<string> => Promise.reject(new Error(path));
    const options = { fetch: fetch as never, nowMs, env: {}, readFile, nodeIdentityAllowed: false, stsOrigin: origin };
    const { credentials } = imitation.provider as { credentials: object };
    gateway = await gatewayTo([imitation], {
      providers: [{ ...imitation.provider, credentials: { ...credentials, awsRoleArn: roleArn } }],
      auth: upstreamAuth(null, awsSigner(new AwsCredentials(options), nowMs)),
    });
  }

  const expires: Reply = (response, call, wire) => {
    const fresh = call.headers.authorization!.includes(`Credential=${valid}/`);
    const type = { "x-amzn-errortype": "ExpiredTokenException" };
    (fresh ? says(HELLO) : refuses(403, null, "The security token has expired", type))(response, call, wire);
  };

  test("assumes a role, signs with it, and assumes it anew when it has expired", async () => {
    await start("arn:aws:iam::123456789012:role/gateway");
    imitation.always(expires);
    expect(await say(true)).toBe("Hello");
    expect(asked).toHaveLength(1);
    expect(asked[0]).toContain("Action=AssumeRole");
    expect(attempts(0)).toEqual(SERVED);
    ahead = 6_000;
    valid = "ASIA2";
    expect(await say()).toBe("Hello");
    expect(await say(true)).toBe("Hello");
    expect(asked).toHaveLength(2);
    expect([attempts(1), attempts(2)]).toEqual([RENEWED, SERVED]);
    expect(gateway.journal.settlements.map(({ credits }) => credits)).toEqual([PAID, PAID, PAID]);
  });

  test("keys that are refused are not tried again and again", async () => {
    await start("");
    imitation.always(expires);
    await expect(say()).rejects.toMatchObject({ status: 503 });
    expect(imitation.calls).toHaveLength(1);
    expect(gateway.journal.settlements[0]).toMatchObject({ credits: 0n, outcome: 2 });
  });

  test("a clock that is ten minutes late is noticed, and the call signed anew", async () => {
    await start("", 600_000);
    imitation.always((response, call, wire) => {
      const [, day, time] = /^(\d{8})T(\d{6})Z$/.exec(call.headers["x-amz-date"] as string)!;
      const parts = /^(\d{4})(\d\d)(\d\d)$/.exec(day!)!.slice(1).join("-");
      const at = Date.parse(`${parts}T${time!.replace(/(..)(..)(..)/, "$1:$2:$3")}Z`);
      const type = { "x-amzn-errortype": "InvalidSignatureException" };
      const late = Math.abs(at - Date.now()) > 300_000;
      (late ? refuses(403, null, "Signature expired", type) : says(HELLO))(response, call, wire);
    });
    expect(await say()).toBe("Hello");
    expect(await say()).toBe("Hello");
    expect([attempts(0), attempts(1)]).toEqual([RENEWED, SERVED]);
  });

  test("an API key goes as it is, and nothing is signed", async () => {
    imitation = await imitate("converse", {
      auth: ({ headers }) => (headers.authorization === "Bearer ABSK-1" ? null : "no API key"),
    });
    imitation.always(says(HELLO));
    gateway = await gatewayTo([imitation], {
      providers: [{ ...imitation.provider, credentials: { apiKey: "ABSK-1" } }],
    });
    expect(await say(true)).toBe("Hello");
    expect(imitation.calls[0]!.headers["x-amz-date"]).toBeUndefined();
  });

  test("without credentials nothing is called", async () => {
    imitation = await imitate("converse");
    gateway = await gatewayTo([imitation], { providers: [{ ...imitation.provider, credentials: {} }] });
    await expect(say()).rejects.toMatchObject({ status: 503 });
    expect(attempts(0)).toEqual([[1, 19, "no_credentials"]]);
  });
});
