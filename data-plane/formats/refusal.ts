/** PURE. What a client and the request log are told of an upstream's error: its words, without anything of its account. */

import { type ErrorAnswer, upstreamRefusal } from "../errors.ts";
import type { RouteProvider } from "../route_types.ts";
import type { UpstreamError } from "./hub.ts";

const MESSAGE_CHARS_MAX = 2000;
/** Shorter values are no secrets, and hiding them would garble the message. */
const SECRET_CHARS_MIN = 4;
/** What looks like a key, a name at AWS, an organisation, a project or an address of somebody's account. */
const SECRETS =
  /\b(?:sk|pk|rk|org|proj|user|acct|key|tbk|tbn)[-_][A-Za-z0-9_-]{6,}|\bBearer\s+\S+|[\w.+-]+@[\w-]+\.[\w.-]+|\barn:aws[\w-]*:[^\s"'<>)\]]+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}/g;
const URLS = /\b(?:https?|wss?):\/\/[^\s"'<>)\]]+/gi;

function secretsOf({ apiKey, headers, account }: RouteProvider): readonly string[] {
  const own = [apiKey, ...headers.filter((_, index) => index % 2 === 1)];
  const { aws, entra } = account;
  if (aws !== null) own.push(aws.accessKeyId, aws.secretAccessKey, aws.sessionToken, aws.roleArn, aws.externalId);
  if (entra !== null) own.push(entra.tenantId, entra.clientId, entra.clientSecret);
  return own;
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

/** The client's view of an error that is its own fault. */
export function refusalOf(status: number, error: UpstreamError, provider: RouteProvider): ErrorAnswer {
  return upstreamRefusal(error.status ?? status, {
    message: scrub(error.message || "The request was refused.", provider),
    type: word(error.type, provider) ?? "invalid_request_error",
    param: error.param === null ? null : scrub(error.param, provider),
    code: word(error.code, provider),
  });
}
