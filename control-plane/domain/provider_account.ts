/** PURE: which credentials and settings go with which format of a Provider. Errors name the field and the remedy. */

import { ProviderFormat } from "./catalogue.ts";
import { type DomainError, invalidField } from "./errors.ts";

/** Fields of `tokenbill.v1.ProviderCredentials`; a test keeps the two equal. */
export const CREDENTIAL_FIELDS = [
  "api_key",
  "aws_access_key_id",
  "aws_secret_access_key",
  "aws_session_token",
  "azure_tenant_id",
  "azure_client_id",
  "azure_client_secret",
  "aws_role_arn",
  "aws_external_id",
  "aws_node_identity",
] as const;
export type CredentialField = (typeof CREDENTIAL_FIELDS)[number];

const AWS_KEY_PAIR = ["aws_access_key_id", "aws_secret_access_key"] as const;
const ENTRA = ["azure_tenant_id", "azure_client_id", "azure_client_secret"] as const;

const TAKEN: Readonly<Record<number, { readonly name: string; readonly fields: readonly CredentialField[] }>> = {
  [ProviderFormat.OPENAI]: { name: "PROVIDER_FORMAT_OPENAI", fields: ["api_key"] },
  [ProviderFormat.AZURE_OPENAI]: { name: "PROVIDER_FORMAT_AZURE_OPENAI", fields: ["api_key", ...ENTRA] },
  [ProviderFormat.ANTHROPIC]: { name: "PROVIDER_FORMAT_ANTHROPIC", fields: ["api_key"] },
  [ProviderFormat.AWS_BEDROCK]: {
    name: "PROVIDER_FORMAT_AWS_BEDROCK",
    fields: ["api_key", ...AWS_KEY_PAIR, "aws_session_token", "aws_role_arn", "aws_external_id", "aws_node_identity"],
  },
};

type Given = ReadonlySet<CredentialField>;

function refuse(field: CredentialField, message: string): DomainError {
  return invalidField(`credentials.${field}`, message, "format");
}

/** All of `fields` or none. @throws DomainError invalid_field, naming the first that is missing */
function checkTogether(given: Given, fields: readonly CredentialField[]): void {
  const missing = fields.find((field) => !given.has(field));
  const present = fields.find((field) => given.has(field));
  if (missing === undefined || present === undefined) return;
  throw refuse(missing, `is needed with ${present}: give ${fields.join(", ")} together`);
}

function checkAws(given: Given): void {
  const other = [...given].find((field) => field !== "api_key");
  if (given.has("api_key") && other !== undefined)
    throw refuse(other, "requests are signed, or carry api_key: leave one of the two out");
  checkTogether(given, AWS_KEY_PAIR);
  const hasKeys = given.has("aws_access_key_id");
  if (hasKeys && given.has("aws_node_identity"))
    throw refuse("aws_node_identity", "takes the place of access keys: leave one of the two out");
  if (given.has("aws_session_token") && !hasKeys)
    throw refuse("aws_session_token", "belongs to access keys: give aws_access_key_id and aws_secret_access_key too");
  if (given.has("aws_role_arn") && !hasKeys && !given.has("aws_node_identity"))
    throw refuse(
      "aws_role_arn",
      "is assumed with other credentials: give aws_access_key_id and aws_secret_access_key, or aws_node_identity",
    );
  if (given.has("aws_external_id") && !given.has("aws_role_arn"))
    throw refuse("aws_external_id", "is for a role: give aws_role_arn too");
}

/**
 * Whether credentials fit a format and each other. None at all are fine: some servers ask for none.
 * @throws DomainError invalid_field
 */
export function checkCredentialsFit(format: number, given: Given): void {
  const taken = TAKEN[format];
  if (taken === undefined) return;
  for (const field of given) {
    if (taken.fields.includes(field)) continue;
    throw refuse(field, `is not for Providers of format ${taken.name}, which take ${taken.fields.join(", ")}`);
  }
  if (format === ProviderFormat.AZURE_OPENAI) {
    const entra = ENTRA.find((field) => given.has(field));
    if (given.has("api_key") && entra !== undefined)
      throw refuse(entra, "is for Entra ID, which takes the place of api_key: leave one of the two out");
    checkTogether(given, ENTRA);
  }
  if (format === ProviderFormat.AWS_BEDROCK) checkAws(given);
}

/** True if requests are signed, for which a region must be known. */
export function isSigned(given: Given): boolean {
  return given.has("aws_access_key_id") || given.has("aws_node_identity");
}

/** `bedrock-runtime.us-east-1.amazonaws.com`, also with `-fips`, of VPC endpoints, and in China. */
const BEDROCK_HOST = /(?:^|\.)bedrock-[a-z-]+\.([a-z]{2}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?amazonaws\.com(?:\.cn)?$/;

/** @throws DomainError invalid_field when nobody says which region a signature is for */
export function checkRegion(region: string, baseUrl: string, given: Given): void {
  if (!isSigned(given) || region !== "" || BEDROCK_HOST.test(new URL(baseUrl).hostname)) return;
  throw invalidField(
    "region",
    "is needed for signatures, since the host of base_url does not say it: set it, such as us-east-1",
    "format",
  );
}

/**
 * Settings that are for one format alone. `dialect` and `bedrockApi` are 0 when they are not set.
 * @throws DomainError invalid_field
 */
export function checkSettingsFit(format: number, dialect: number, bedrockApi: number): void {
  if (dialect !== 0 && format !== ProviderFormat.OPENAI)
    throw invalidField("dialect", "is for Providers of format PROVIDER_FORMAT_OPENAI: leave it out", "format");
  if (bedrockApi !== 0 && format !== ProviderFormat.AWS_BEDROCK)
    throw invalidField("bedrock_api", "is for Providers of format PROVIDER_FORMAT_AWS_BEDROCK: leave it out", "format");
}

/** @throws DomainError invalid_field */
export function checkApisFit(format: number, apis: readonly number[], field = "apis"): void {
  if (apis.length === 0 || format === ProviderFormat.OPENAI || format === ProviderFormat.AZURE_OPENAI) return;
  throw invalidField(
    field,
    "are for models of Providers of format PROVIDER_FORMAT_OPENAI or PROVIDER_FORMAT_AZURE_OPENAI: leave them out",
    "format",
  );
}
