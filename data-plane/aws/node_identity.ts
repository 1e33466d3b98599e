/**
 * The credentials of the container or instance that this node runs in: a container's (ECS, pod identities of EKS), then a web
 * identity (service accounts of EKS), then the instance's (EC2). Facts are from reference/UPSTREAM-FORMATS.md D6.
 */

import { AwsCredentialsError } from "./credentials_error.ts";
import { callAws } from "./http.ts";
import { assumeRoleWithWebIdentity, type ExpiringCredentials, type StsContext } from "./sts.ts";

const CONTAINER_TIMEOUT_MS = 2_000;
/** Where there is no such address, as outside AWS, nothing answers: do not wait long. */
const INSTANCE_TIMEOUT_MS = 1_000;
const INSTANCE_TOKEN_TTL_S = 21_600;
/** Credentials that do not say when they end are asked for again after so long. */
const LIFETIME_MS_DEFAULT = 15 * 60_000;

const CONTAINER_ORIGIN = "http://169.254.170.2";
const INSTANCE_ORIGIN = "http://169.254.169.254";
/** Where a full address may lead over plain HTTP: here, to ECS and to the agent of EKS. */
const CONTAINER_HOSTS = new Set(["localhost", "169.254.170.2", "169.254.170.23", "[::1]", "[fd00:ec2::23]"]);
const LOOPBACK = /^127(?:\.\d{1,3}){3}$/;

export interface NodeIdentityContext extends StsContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly readFile: (path: string) => Promise<string>;
  readonly containerOrigin: string | undefined;
  readonly instanceOrigin: string | undefined;
}

/** Where the token service is asked, as the environment says; "": it does not. */
function ownRegion(env: NodeIdentityContext["env"]): string {
  return env["AWS_REGION"] || env["AWS_DEFAULT_REGION"] || "";
}

function isContainer(env: NodeIdentityContext["env"]): boolean {
  return Boolean(env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] || env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
}

function isWebIdentity(env: NodeIdentityContext["env"]): boolean {
  return !isContainer(env) && Boolean(env["AWS_WEB_IDENTITY_TOKEN_FILE"] && env["AWS_ROLE_ARN"]);
}

/** True if the region of whoever asks decides where this node's credentials come from, as its environment names none. */
export function asksInRegionOf({ env }: Pick<NodeIdentityContext, "env">): boolean {
  return isWebIdentity(env) && ownRegion(env) === "";
}

/** @throws AwsCredentialsError */
export async function nodeCredentials(context: NodeIdentityContext, region: string): Promise<ExpiringCredentials> {
  const { env } = context;
  if (isContainer(env)) return await containerCredentials(context);
  if (isWebIdentity(env)) return await webIdentityCredentials(context, region);
  return await instanceCredentials(context);
}

async function containerCredentials(context: NodeIdentityContext): Promise<ExpiringCredentials> {
  const { env } = context;
  const relative = env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
  const url = relative
    ? (context.containerOrigin ?? CONTAINER_ORIGIN) + (relative.startsWith("/") ? relative : `/${relative}`)
    : fullUrl(env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] ?? "");
  const headers: Record<string, string> = {};
  const file = env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
  const token = file ? await readToken(context, file) : env["AWS_CONTAINER_AUTHORIZATION_TOKEN"];
  if (token) headers["authorization"] = token;
  const who = "the container's address for credentials";
  const answer = await callAws(context.fetch, { url, method: "GET", headers, timeoutMs: CONTAINER_TIMEOUT_MS, who });
  return readCredentialsJson(context, who, answer);
}

/** An address from the environment must not make this node send its token elsewhere. */
function fullUrl(text: string): string {
  const url = URL.parse(text);
  const local = url !== null && (CONTAINER_HOSTS.has(url.hostname) || LOOPBACK.test(url.hostname));
  if (url !== null && local && (url.protocol === "http:" || url.protocol === "https:")) return url.href;
  throw new AwsCredentialsError(
    "aws_container_address_not_allowed",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI leads neither to this machine nor to ECS or EKS",
  );
}

async function readToken(context: NodeIdentityContext, path: string): Promise<string> {
  try {
    return (await context.readFile(path)).trim();
  } catch {
    // The reason would name a path of this machine.
    throw new AwsCredentialsError("aws_no_node_identity", "the file with this node's token of AWS cannot be read");
  }
}

async function webIdentityCredentials(context: NodeIdentityContext, region: string): Promise<ExpiringCredentials> {
  const { env } = context;
  // It is replaced from time to time.
  const token = await readToken(context, env["AWS_WEB_IDENTITY_TOKEN_FILE"] ?? "");
  return await assumeRoleWithWebIdentity(context, {
    roleArn: env["AWS_ROLE_ARN"] ?? "",
    sessionName: env["AWS_ROLE_SESSION_NAME"] || "tokenbill",
    token,
    region: ownRegion(env) || region,
  });
}

async function instanceCredentials(context: NodeIdentityContext): Promise<ExpiringCredentials> {
  const { fetch, env } = context;
  if (env["AWS_EC2_METADATA_DISABLED"]?.toLowerCase() === "true")
    throw new AwsCredentialsError("aws_no_node_identity", "this node has no identity of AWS");
  const base = `${context.instanceOrigin ?? INSTANCE_ORIGIN}/latest`;
  const who = "the instance's metadata";
  const token = await callAws(fetch, {
    url: `${base}/api/token`,
    method: "PUT",
    headers: { "x-aws-ec2-metadata-token-ttl-seconds": String(INSTANCE_TOKEN_TTL_S) },
    timeoutMs: INSTANCE_TIMEOUT_MS,
    who,
  });
  if (token.status !== 200 || token.text === "") throw refused(who, token.status);
  const get = (url: string) => {
    const headers = { "x-aws-ec2-metadata-token": token.text };
    return callAws(fetch, { url, method: "GET", headers, timeoutMs: INSTANCE_TIMEOUT_MS, who });
  };
  const roles = await get(`${base}/meta-data/iam/security-credentials/`);
  const role = roles.text.split("\n")[0]!.trim();
  if (roles.status === 404 || (roles.status === 200 && role === ""))
    throw new AwsCredentialsError("aws_no_node_identity", "the instance has no role");
  if (roles.status !== 200) throw refused(who, roles.status);
  const answer = await get(`${base}/meta-data/iam/security-credentials/${encodeURIComponent(role)}`);
  return readCredentialsJson(context, who, answer);
}

function refused(who: string, status: number): AwsCredentialsError {
  const code = status >= 500 ? "aws_credentials_unreachable" : "aws_credentials_refused";
  return new AwsCredentialsError(code, `${who} answered with status ${status}`);
}

function readCredentialsJson(
  context: NodeIdentityContext,
  who: string,
  { status, text }: { status: number; text: string },
): ExpiringCredentials {
  if (status !== 200) throw refused(who, status);
  let fields: Readonly<Record<string, unknown>>;
  try {
    fields = Object(JSON.parse(text)) as Readonly<Record<string, unknown>>;
  } catch {
    fields = {};
  }
  const { AccessKeyId, SecretAccessKey, Token, Expiration } = fields;
  const known = typeof AccessKeyId === "string" && typeof SecretAccessKey === "string";
  if (!known || AccessKeyId === "" || SecretAccessKey === "")
    throw new AwsCredentialsError("aws_credentials_invalid_answer", `${who} gave no credentials`);
  const expiresMs = typeof Expiration === "string" ? Date.parse(Expiration) : Number.NaN;
  return {
    credentials: {
      accessKeyId: AccessKeyId,
      secretAccessKey: SecretAccessKey,
      sessionToken: typeof Token === "string" ? Token : "",
    },
    expiresMs: Number.isNaN(expiresMs) ? context.nowMs() + LIFETIME_MS_DEFAULT : expiresMs,
  };
}
