/**
 * Temporary credentials from AWS's token service, by its query API (reference/UPSTREAM-FORMATS.md D6): a role that is assumed
 * with other credentials, or with the token of a web identity.
 */

import { awsDomain } from "./address.ts";
import { AwsCredentialsError } from "./credentials_error.ts";
import { type AwsFetch, callAws } from "./http.ts";
import { type Credentials, signRequest } from "./sigv4.ts";

const STS_TIMEOUT_MS = 10_000;
const API_VERSION = "2011-06-15";
/** The default of AWS, and the longest that a role assumed by a role may have. */
const DURATION_S = 3600;
const FORM = "application/x-www-form-urlencoded; charset=utf-8";

export interface ExpiringCredentials {
  readonly credentials: Credentials;
  readonly expiresMs: number;
}

export interface StsContext {
  readonly fetch: AwsFetch;
  readonly nowMs: () => number;
  /** Instead of the region's own host. Scheme, host and port. */
  readonly stsOrigin: string | undefined;
}

export interface AssumeRole {
  readonly roleArn: string;
  /** "": none. */
  readonly externalId: string;
  readonly sessionName: string;
  readonly region: string;
}

/** @throws AwsCredentialsError */
export async function assumeRole(
  context: StsContext,
  role: AssumeRole,
  source: Credentials,
): Promise<ExpiringCredentials> {
  const form = new URLSearchParams({
    Action: "AssumeRole",
    Version: API_VERSION,
    RoleArn: role.roleArn,
    RoleSessionName: role.sessionName,
    DurationSeconds: String(DURATION_S),
  });
  if (role.externalId !== "") form.set("ExternalId", role.externalId);
  return await ask(context, role.region, form, source);
}

export interface WebIdentity {
  readonly roleArn: string;
  readonly sessionName: string;
  readonly token: string;
  readonly region: string;
}

/** The token says who is asking, so nothing is signed. @throws AwsCredentialsError */
export async function assumeRoleWithWebIdentity(
  context: StsContext,
  { roleArn, sessionName, token, region }: WebIdentity,
): Promise<ExpiringCredentials> {
  const form = new URLSearchParams({
    Action: "AssumeRoleWithWebIdentity",
    Version: API_VERSION,
    RoleArn: roleArn,
    RoleSessionName: sessionName,
    WebIdentityToken: token,
    DurationSeconds: String(DURATION_S),
  });
  return await ask(context, region, form, null);
}

async function ask(
  context: StsContext,
  region: string,
  form: URLSearchParams,
  signer: Credentials | null,
): Promise<ExpiringCredentials> {
  const origin = context.stsOrigin ?? `https://sts.${region}.${awsDomain(region)}`;
  const body = form.toString();
  const headers: Record<string, string> = { "content-type": FORM };
  if (signer !== null) {
    const added = signRequest({
      method: "POST",
      origin,
      path: "/",
      headers: ["content-type", FORM],
      body: Buffer.from(body),
      region,
      service: "sts",
      credentials: signer,
      nowMs: context.nowMs(),
    });
    for (let i = 0; i < added.length; i += 2) headers[added[i]!] = added[i + 1]!;
  }
  const who = `AWS's token service in ${region}`;
  const answer = await callAws(context.fetch, {
    url: `${origin}/`,
    method: "POST",
    headers,
    body,
    timeoutMs: STS_TIMEOUT_MS,
    who,
  });
  if (answer.status !== 200) throw refused(who, answer.status, answer.text);
  const found = readCredentialsXml(answer.text);
  if (found === null) throw new AwsCredentialsError("aws_credentials_invalid_answer", `${who} gave no credentials`);
  return found;
}

const ERROR_CODE = /^[A-Za-z.]{1,64}$/;

/** Its code says what is wrong; its message may name accounts and roles, which a merchant's users must not see. */
function refused(who: string, status: number, text: string): AwsCredentialsError {
  const code = elementText(text, "Code");
  const what = code !== null && ERROR_CODE.test(code) ? code : `status ${status}`;
  if (status >= 500 || status === 429 || code === "Throttling")
    return new AwsCredentialsError("aws_credentials_unreachable", `${who} is out of order (${what})`);
  return new AwsCredentialsError("aws_credentials_refused", `${who} does not let the role be assumed (${what})`);
}

/** Null unless there is exactly one `Credentials` element with all that belongs to it. Exported for tests. */
export function readCredentialsXml(xml: string): ExpiringCredentials | null {
  const inner = element(xml, "Credentials");
  if (inner === null) return null;
  const accessKeyId = elementText(inner, "AccessKeyId");
  const secretAccessKey = elementText(inner, "SecretAccessKey");
  const sessionToken = elementText(inner, "SessionToken");
  const expiresMs = Date.parse(elementText(inner, "Expiration") ?? "");
  if (!accessKeyId || !secretAccessKey || !sessionToken || Number.isNaN(expiresMs)) return null;
  return { credentials: { accessKeyId, secretAccessKey, sessionToken }, expiresMs };
}

/** What stands inside the only element of this name, which has no attributes; null if there is none, or more than one. */
function element(xml: string, name: string): string | null {
  const open = `<${name}>`;
  const close = `</${name}>`;
  const start = xml.indexOf(open);
  const end = xml.indexOf(close);
  if (start === -1 || end < start + open.length) return null;
  if (xml.indexOf(open, start + 1) !== -1 || xml.indexOf(close, end + 1) !== -1) return null;
  return xml.slice(start + open.length, end);
}

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/** The text of an element that holds nothing but text; null for anything else. */
function elementText(xml: string, name: string): string | null {
  const inner = element(xml, name)?.trim();
  if (inner === undefined || inner.includes("<") || /&(?!(?:lt|gt|amp|quot|apos);)/.test(inner)) return null;
  return inner.replaceAll(/&(\w+);/g, (_, entity: string) => ENTITIES[entity]!);
}
