import { describe, expect, test } from "vitest";
import { ProviderCredentialsSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderFormat } from "./catalogue.ts";
import { DomainError } from "./errors.ts";
import {
  checkApisFit,
  checkCredentialsFit,
  checkRegion,
  checkSettingsFit,
  CREDENTIAL_FIELDS,
  type CredentialField,
} from "./provider_account.ts";

function fieldOf(fn: () => void): string {
  try {
    fn();
  } catch (error) {
    if (error instanceof DomainError && error.code === "invalid_field") return error.field!;
    throw error;
  }
  return "";
}

const { OPENAI, AZURE_OPENAI, ANTHROPIC, AWS_BEDROCK } = ProviderFormat;
const KEYS = ["aws_access_key_id", "aws_secret_access_key"] as const;
const ENTRA = ["azure_tenant_id", "azure_client_id", "azure_client_secret"] as const;

test("the fields equal the schema's", () => {
  expect(ProviderCredentialsSchema.fields.map(({ name }) => name)).toStrictEqual([...CREDENTIAL_FIELDS]);
});

describe("credentials", () => {
  test.each<[number, readonly CredentialField[]]>([
    ...Object.values(ProviderFormat).map((format) => [format, []] as [number, CredentialField[]]),
    ...Object.values(ProviderFormat).map((format) => [format, ["api_key"]] as [number, CredentialField[]]),
    [AZURE_OPENAI, ENTRA],
    [AWS_BEDROCK, KEYS],
    [AWS_BEDROCK, [...KEYS, "aws_session_token"]],
    [AWS_BEDROCK, [...KEYS, "aws_role_arn"]],
    [AWS_BEDROCK, [...KEYS, "aws_session_token", "aws_role_arn", "aws_external_id"]],
    [AWS_BEDROCK, ["aws_node_identity"]],
    [AWS_BEDROCK, ["aws_node_identity", "aws_role_arn", "aws_external_id"]],
  ])("format %i takes %j", (format, fields) => {
    expect(fieldOf(() => checkCredentialsFit(format, new Set(fields)))).toBe("");
  });

  test.each<[number, readonly CredentialField[], CredentialField]>([
    [OPENAI, ["api_key", "aws_access_key_id"], "aws_access_key_id"],
    [OPENAI, ["aws_node_identity"], "aws_node_identity"],
    [ANTHROPIC, ["azure_tenant_id"], "azure_tenant_id"],
    [AZURE_OPENAI, ["aws_role_arn"], "aws_role_arn"],
    [AWS_BEDROCK, ["azure_client_secret"], "azure_client_secret"],
    [AZURE_OPENAI, ["api_key", ...ENTRA], "azure_tenant_id"],
    [AZURE_OPENAI, ENTRA.slice(0, 2), "azure_client_secret"],
    [AZURE_OPENAI, ENTRA.slice(1), "azure_tenant_id"],
    [AWS_BEDROCK, ["api_key", ...KEYS], "aws_access_key_id"],
    [AWS_BEDROCK, ["api_key", "aws_node_identity"], "aws_node_identity"],
    [AWS_BEDROCK, ["aws_access_key_id"], "aws_secret_access_key"],
    [AWS_BEDROCK, ["aws_secret_access_key"], "aws_access_key_id"],
    [AWS_BEDROCK, [...KEYS, "aws_node_identity"], "aws_node_identity"],
    [AWS_BEDROCK, ["aws_session_token"], "aws_session_token"],
    [AWS_BEDROCK, ["aws_node_identity", "aws_session_token"], "aws_session_token"],
    [AWS_BEDROCK, ["aws_role_arn"], "aws_role_arn"],
    [AWS_BEDROCK, [...KEYS, "aws_external_id"], "aws_external_id"],
  ])("format %i refuses %j", (format, fields, at) => {
    expect(fieldOf(() => checkCredentialsFit(format, new Set(fields)))).toBe(`credentials.${at}`);
  });
});

describe("the region of a signature", () => {
  const signed = new Set<CredentialField>(KEYS);

  test.each([
    ["us-east-1", "http://127.0.0.1:9"],
    ["", "https://bedrock-runtime.us-east-1.amazonaws.com"],
    ["", "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com"],
    ["", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"],
    ["", "https://vpce-0a1b-2c3d.bedrock-runtime.eu-central-1.vpce.amazonaws.com"],
  ])("'%s' at %s is known", (region, url) => {
    expect(fieldOf(() => checkRegion(region, url, signed))).toBe("");
  });

  test("is asked for where nobody says it, and an API key needs none", () => {
    expect(fieldOf(() => checkRegion("", "https://bedrock.example.com", signed))).toBe("region");
    expect(fieldOf(() => checkRegion("", "https://x.com", new Set(["aws_node_identity"] as const)))).toBe("region");
    expect(fieldOf(() => checkRegion("", "https://bedrock.example.com", new Set(["api_key"] as const)))).toBe("");
  });
});

test("settings of one format are refused for the others", () => {
  for (const format of Object.values(ProviderFormat)) {
    expect(fieldOf(() => checkSettingsFit(format, 0, 0))).toBe("");
    expect(fieldOf(() => checkSettingsFit(format, 3, 0))).toBe(format === OPENAI ? "" : "dialect");
    expect(fieldOf(() => checkSettingsFit(format, 0, 1))).toBe(format === AWS_BEDROCK ? "" : "bedrock_api");
    expect(fieldOf(() => checkApisFit(format, []))).toBe("");
    const takesApis = format === OPENAI || format === AZURE_OPENAI;
    expect(fieldOf(() => checkApisFit(format, [1]))).toBe(takesApis ? "" : "apis");
  }
});
