/** What the formats other than OpenAI's need: stored, shown, changed, refused where it makes no sense, and sent to nodes. */

import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ConfigFeedService } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { Resource } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import {
  BedrockApi,
  ModelApi,
  ProviderCredentialsSchema,
  ProviderDialect,
  ProviderFormat,
} from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { CreateProviderRequestSchema } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { failureOf, startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { type Clients, clientsOf } from "./test_fixture.ts";

const BEDROCK_URL = "https://bedrock-runtime.us-east-1.amazonaws.com";
const KEYS = { awsAccessKeyId: "AKIDEXAMPLE", awsSecretAccessKey: "very/secret+key" };

describe.each(openTestDatabases())("Providers of every format on $name", ({ open }) => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let count = 0;
  beforeAll(async () => {
    db = await open();
    cp = await startTestControlPlane(db);
    api = clientsOf(cp, cp.merchantToken);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });

  async function create(format: ProviderFormat, more: MessageInitShape<typeof CreateProviderRequestSchema> = {}) {
    count += 1;
    const baseUrl = format === ProviderFormat.AWS_BEDROCK ? BEDROCK_URL : "http://127.0.0.1:9/v1";
    const { provider } = await api.providers.createProvider({ name: `p${count}`, format, baseUrl, ...more });
    return provider!;
  }

  const fieldOf = async (call: Promise<unknown>) => {
    const { reason, info } = await failureOf(call);
    return `${reason} ${info.metadata["field"] ?? ""}`;
  };

  /** What a node gets, by its own stream. */
  async function sent(id: string): Promise<Resource["kind"]["value"]> {
    const node = cp.client(ConfigFeedService, cp.nodeToken, "connect-binary");
    const stop = new AbortController();
    for await (const { event } of node.watchConfig({ nodeId: "n", bootId: "b" }, { signal: stop.signal })) {
      if (event.case !== "snapshotChunk") continue;
      const found = event.value.resources.find(({ kind }) => kind.value?.id === id);
      if (found === undefined) continue;
      stop.abort();
      return found.kind.value;
    }
    throw new Error(`${id} was not sent`);
  }

  test("a dialect is of OpenAI's format alone", async () => {
    const provider = await create(ProviderFormat.OPENAI, { dialect: ProviderDialect.DEEPSEEK });
    expect(provider).toMatchObject({ dialect: ProviderDialect.DEEPSEEK, bedrockApi: BedrockApi.UNSPECIFIED });
    const update = { id: provider.id, dialect: ProviderDialect.VLLM };
    expect((await api.providers.updateProvider(update)).provider).toMatchObject(update);
    expect((await api.providers.updateProvider({ id: provider.id, name: provider.name })).provider).toMatchObject(
      update,
    );
    expect(await sent(provider.id)).toMatchObject({ dialect: ProviderDialect.VLLM });
    expect(await fieldOf(create(ProviderFormat.ANTHROPIC, { dialect: ProviderDialect.OPENAI }))).toBe(
      "invalid_field dialect",
    );
    expect(await fieldOf(api.providers.updateProvider({ id: provider.id, bedrockApi: BedrockApi.OPENAI }))).toBe(
      "invalid_field bedrock_api",
    );
  });

  test("credentials of AWS reach nodes whole, and nobody else", async () => {
    const credentials = {
      ...KEYS,
      awsSessionToken: "session",
      awsRoleArn: "arn:aws:iam::123456789012:role/tokenbill",
      awsExternalId: "external",
    };
    const provider = await create(ProviderFormat.AWS_BEDROCK, { credentials });
    expect(provider).toMatchObject({ bedrockApi: BedrockApi.CONVERSE, hasCredentials: true });
    expect(await sent(provider.id)).toMatchObject({ bedrockApi: BedrockApi.CONVERSE, credentials });
    expect(JSON.stringify(cp.responses)).not.toContain(KEYS.awsSecretAccessKey);
    const node = { awsNodeIdentity: true };
    await api.providers.updateProvider({ id: provider.id, credentials: node, bedrockApi: BedrockApi.ANTHROPIC });
    const [row] = await db.query<{ credentials: Uint8Array }>("select credentials from provider where id = $1", [
      provider.id,
    ]);
    const stored = fromBinary(ProviderCredentialsSchema, cp.deps.secrets.open(row!.credentials, provider.id));
    expect(stored).toMatchObject({ ...node, awsAccessKeyId: "" });
    expect(await sent(provider.id)).toMatchObject({ bedrockApi: BedrockApi.ANTHROPIC, credentials: node });
  });

  test.each<[string, ProviderFormat, MessageInitShape<typeof ProviderCredentialsSchema>]>([
    ["credentials.aws_access_key_id", ProviderFormat.OPENAI, KEYS],
    ["credentials.aws_node_identity", ProviderFormat.ANTHROPIC, { awsNodeIdentity: true }],
    ["credentials.azure_client_secret", ProviderFormat.AZURE_OPENAI, { azureTenantId: "t", azureClientId: "c" }],
    ["credentials.aws_secret_access_key", ProviderFormat.AWS_BEDROCK, { awsAccessKeyId: "a" }],
    ["credentials.aws_role_arn", ProviderFormat.AWS_BEDROCK, { awsRoleArn: "arn:aws:iam::1:role/x" }],
    ["credentials.aws_session_token", ProviderFormat.AWS_BEDROCK, { ...KEYS, awsSessionToken: "a b" }],
  ])("refuses %s of format %i, when it is made and later", async (field, format, credentials) => {
    expect(await fieldOf(create(format, { credentials }))).toBe(`invalid_field ${field}`);
    const { id } = await create(format);
    expect(await fieldOf(api.providers.updateProvider({ id, credentials }))).toBe(`invalid_field ${field}`);
  });

  test("asks for the region that a signature needs, also when it goes later", async () => {
    const baseUrl = "https://bedrock.example.com";
    expect(await fieldOf(create(ProviderFormat.AWS_BEDROCK, { baseUrl, credentials: KEYS }))).toBe(
      "invalid_field region",
    );
    const { id } = await create(ProviderFormat.AWS_BEDROCK, { baseUrl, credentials: KEYS, region: "eu-west-1" });
    expect(await fieldOf(api.providers.updateProvider({ id, region: "" }))).toBe("invalid_field region");
    await api.providers.updateProvider({ id, region: "", baseUrl: BEDROCK_URL });
    await api.providers.updateProvider({ id, baseUrl, region: "", credentials: { apiKey: "bearer" } });
  });

  test("a Physical Model has a family and APIs", async () => {
    const { id: providerId } = await create(ProviderFormat.AZURE_OPENAI, { apiVersion: "2025-04-01-preview" });
    const { physicalModel } = await api.providers.createPhysicalModel({
      providerId,
      name: `m${count}`,
      upstreamName: "my-deployment",
      family: "gpt-5",
      apis: [ModelApi.RESPONSES],
    });
    const { id } = physicalModel!;
    expect(physicalModel).toMatchObject({ family: "gpt-5", apis: [ModelApi.RESPONSES] });
    expect((await api.providers.updatePhysicalModel({ id, disabled: true })).physicalModel).toMatchObject({
      family: "gpt-5",
      apis: [ModelApi.RESPONSES],
    });
    expect(await sent(id)).toMatchObject({ family: "gpt-5", apis: [ModelApi.RESPONSES] });
    const both = [ModelApi.CHAT_COMPLETIONS, ModelApi.RESPONSES];
    await api.providers.updatePhysicalModel({ id, family: "", apis: { apis: both } });
    expect((await api.providers.listPhysicalModels({ providerId })).physicalModels).toMatchObject([
      { family: "", apis: both },
    ]);
    await api.providers.updatePhysicalModel({ id, apis: {} });
    expect((await api.providers.getPhysicalModel({ id })).physicalModel!.apis).toStrictEqual([]);
    const claude = await create(ProviderFormat.ANTHROPIC);
    const apis = [ModelApi.RESPONSES];
    const refused = api.providers.createPhysicalModel({ providerId: claude.id, upstreamName: "claude", apis });
    expect(await fieldOf(refused)).toBe("invalid_field apis");
  });

  test("a VE passes through to one Provider, which serves no other VE and stays", async () => {
    const { id: providerId } = await create(ProviderFormat.OPENAI);
    const { virtualEndpoint } = await api.ves.createVirtualEndpoint({
      name: "files",
      passthroughProviderId: providerId,
    });
    const { id } = virtualEndpoint!;
    expect(virtualEndpoint!.passthroughProviderId).toBe(providerId);
    expect(await sent(id)).toMatchObject({ passthroughProviderId: providerId });
    const second = await failureOf(api.ves.createVirtualEndpoint({ name: "thief", passthroughProviderId: providerId }));
    expect(second).toMatchObject({ reason: "in_use", info: { metadata: { used_by: id } } });
    const { virtualEndpoint: other } = await api.ves.createVirtualEndpoint({ name: "copy", veTemplateId: id });
    expect(other!.passthroughProviderId).toBe("");
    const later = api.ves.updateVirtualEndpoint({ id: other!.id, passthroughProviderId: providerId });
    expect((await failureOf(later)).reason).toBe("in_use");
    const deletion = await failureOf(api.providers.deleteProvider({ id: providerId }));
    expect(deletion).toMatchObject({ reason: "in_use", info: { metadata: { used_by: id } } });
    expect(deletion.message).toContain(id);
    // What it has already, it may be given again; another update leaves it.
    await api.ves.updateVirtualEndpoint({ id, passthroughProviderId: providerId });
    await api.ves.updateVirtualEndpoint({ id, name: "renamed" });
    expect((await api.ves.getVirtualEndpoint({ id })).virtualEndpoint!.passthroughProviderId).toBe(providerId);
    await api.ves.updateVirtualEndpoint({ id, passthroughProviderId: "" });
    await api.ves.updateVirtualEndpoint({ id: other!.id, passthroughProviderId: providerId });
    await api.ves.deleteVirtualEndpoint({ id: other!.id });
    await api.providers.deleteProvider({ id: providerId });
  });

  test("two VEs that want the same Provider at once: one gets it", async () => {
    const { id: passthroughProviderId } = await create(ProviderFormat.OPENAI);
    const results = await Promise.allSettled(
      ["a", "b", "c"].map((name) => api.ves.createVirtualEndpoint({ name, passthroughProviderId })),
    );
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results)
      if (result.status === "rejected") expect((await failureOf(Promise.reject(result.reason))).reason).toBe("in_use");
  });

  test("a template passes nothing through, and no VE to a Provider that never was", async () => {
    const { id: passthroughProviderId } = await create(ProviderFormat.OPENAI);
    const field = "passthrough_provider_id";
    const template = api.ves.createVirtualEndpoint({ name: "t", template: true, passthroughProviderId });
    expect(await fieldOf(template)).toBe(`invalid_field ${field}`);
    const nobody = api.ves.createVirtualEndpoint({ name: "n", passthroughProviderId: "prov_nobody" });
    expect(await fieldOf(nobody)).toBe(`not_found ${field}`);
  });

  test("the secret of a VE's pins is its own, and the same for good", async () => {
    const make = async (name: string) => (await api.ves.createVirtualEndpoint({ name })).virtualEndpoint!.id;
    const [a, b] = [await make("a"), await make("b")];
    const pin = async (id: string) => (await sent(id)) as { pinSecret: Uint8Array };
    const { pinSecret } = await pin(a);
    expect(pinSecret).toHaveLength(32);
    await api.ves.updateVirtualEndpoint({ id: a, name: "renamed" });
    expect((await pin(a)).pinSecret).toStrictEqual(pinSecret);
    expect((await pin(b)).pinSecret).not.toStrictEqual(pinSecret);
  });
});
