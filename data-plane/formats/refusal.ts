/** PURE. What a client and the request log are told of an upstream's error: its words, without anything of its account. */

import { type ErrorAnswer, upstreamRefusal } from "../errors.ts";
import type { RouteProvider } from "../route_types.ts";
import type { UpstreamError } from "./hub.ts";

const MESSAGE_CHARS_MAX = 2000;
/** Shorter values are no secrets, and hiding them would garble the message. */
const SECRET_CHARS_MIN = 4;
/**
 * What looks like a key, a name or number at AWS, an organisation, a project, a tenant, an id of a request or an address of
 * somebody's account.
 */
const SECRETS =
  /\b(?:sk|pk|rk|org|proj|user|acct|key|req|tbk|tbn)[-_][A-Za-z0-9_-]{6,}|\b[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}\b|\b\d{12}\b|\bBearer\s+\S+|[\w.+-]+@[\w-]+\.[\w.-]+|\barn:aws[\w-]*:[^\s"'<>)\]]+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}/g;
const URLS = /\b(?:https?|wss?):\/\/[^\s"'<>)\]]+/gi;

function secretsOf({ apiKey, headers, account }: RouteProvider): readonly string[] {
  const own = [apiKey, ...headers.filter((_, index) => index % 2 === 1)];
  const { aws, entra } = account;
  if (aws !== null) own.push(aws.accessKeyId, aws.secretAccessKey, aws.sessionToken, aws.roleArn, aws.externalId);
  if (entra !== null) own.push(entra.tenantId, entra.clientId, entra.clientSecret);
  return own;
}

/** Hosts whose first label is the name that the merchant gave a resource of Azure. */
const AZURE_RESOURCE = /^([\w-]+)\.(?:openai|services\.ai|cognitiveservices)\.azure\.(?:com|us|cn)$/i;

/** A whole word, wherever it stands. */
function wordsOf(word: string): RegExp {
  return new RegExp(`(?<![\\w-])${word.replaceAll(/[.*+?^${}()|[\]\\/]/g, "\\$&")}(?![\\w-])`, "gi");
}

/** An upstream's words without credentials, account ids and addresses. */
export function scrub(text: string, provider: RouteProvider): string {
  let clean = text;
  // Cut last: a secret that the cut falls into would not be found.
  for (const secret of secretsOf(provider)) {
    if (secret.length >= SECRET_CHARS_MIN) clean = clean.replaceAll(secret, "***");
  }
  clean = clean.replace(URLS, "***").replace(SECRETS, "***");
  const host = provider.origin.replace(/^https?:\/\//, "");
  if (host !== "") clean = clean.replaceAll(host, "***").replaceAll(host.replace(/:\d+$/, ""), "***");
  const resource = AZURE_RESOURCE.exec(host.replace(/:\d+$/, ""))?.[1] ?? "";
  if (resource.length >= SECRET_CHARS_MIN) clean = clean.replaceAll(wordsOf(resource), "***");
  return clean.slice(0, MESSAGE_CHARS_MAX);
}

const WORD = /^[A-Za-z0-9_.[\]-]{1,128}$/;

/** Types and codes are words; anything else, or what tells of the account, is left out rather than shown. */
function word(value: unknown, provider: RouteProvider): string | null {
  const text = typeof value === "number" ? String(value) : value;
  return typeof text === "string" && WORD.test(text) && scrub(text, provider) === text ? text : null;
}

/** The upstream's code, "" if it gave none, or one that tells of its account. */
export function refusalCode(error: UpstreamError, provider: RouteProvider): string {
  return word(error.code, provider) ?? "";
}

/** What a model is called at the upstream, which may be the name of a deployment, and by the client. */
export interface ModelNames {
  readonly upstream: string;
  readonly client: string;
}

function renamed(text: string, names: ModelNames | undefined): string {
  if (names === undefined || names.upstream.length < SECRET_CHARS_MIN || names.upstream === names.client) return text;
  return text.replaceAll(wordsOf(names.upstream), () => names.client);
}

/** The client's view of an error that is its own fault. */
export function refusalOf(
  status: number,
  error: UpstreamError,
  provider: RouteProvider,
  names?: ModelNames,
): ErrorAnswer {
  return upstreamRefusal(error.status ?? status, {
    message: scrub(renamed(error.message || "The request was refused.", names), provider),
    type: word(error.type, provider) ?? "invalid_request_error",
    param: error.param === null ? null : scrub(error.param, provider),
    code: word(error.code, provider),
  });
}
