/** PURE. What the formats other than OpenAI's need of a Provider, from the feed. */

import type { ProviderConfig } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { ProviderCredentials } from "../proto/gen/tokenbill/v1/provider_pb.ts";
import { type AwsAccount, BedrockApi, type EntraAccount, type ProviderAccount } from "./route_types.ts";

export const NO_ACCOUNT: ProviderAccount = {
  dialect: 0,
  apiVersion: "",
  region: "",
  bedrockApi: BedrockApi.CONVERSE,
  aws: null,
  entra: null,
};

function awsOf(credentials: ProviderCredentials): AwsAccount | null {
  const { awsAccessKeyId, awsSecretAccessKey, awsSessionToken, awsRoleArn, awsExternalId, awsNodeIdentity } =
    credentials;
  if (awsAccessKeyId === "" && !awsNodeIdentity) return null;
  return {
    accessKeyId: awsAccessKeyId,
    secretAccessKey: awsSecretAccessKey,
    sessionToken: awsSessionToken,
    roleArn: awsRoleArn,
    externalId: awsExternalId,
    nodeIdentity: awsNodeIdentity,
  };
}

function entraOf({ azureTenantId, azureClientId, azureClientSecret }: ProviderCredentials): EntraAccount | null {
  if (azureTenantId === "" || azureClientId === "" || azureClientSecret === "") return null;
  return { tenantId: azureTenantId, clientId: azureClientId, clientSecret: azureClientSecret };
}

/** `before` is given back if nothing has changed, so that what is kept for an account stays with it. */
export function compileAccount(config: ProviderConfig, before: ProviderAccount): ProviderAccount {
  const { dialect, apiVersion, region, credentials } = config;
  const account: ProviderAccount = {
    dialect,
    apiVersion,
    region,
    bedrockApi: config.bedrockApi || BedrockApi.CONVERSE,
    aws: credentials === undefined ? null : awsOf(credentials),
    entra: credentials === undefined ? null : entraOf(credentials),
  };
  return JSON.stringify(account) === JSON.stringify(before) ? before : account;
}
