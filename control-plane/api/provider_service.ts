/** ProviderService: Providers. Their Physical Models are in physical_model_calls.ts. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import {
  BedrockApi,
  OnDisconnect,
  type Provider,
  type ProviderCredentials,
  ProviderCredentialsSchema,
  type ProviderDialect,
  ProviderFormat,
  ProviderSchema,
} from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import {
  CreateProviderRequestSchema,
  CreateProviderResponseSchema,
  DeleteProviderResponseSchema,
  GetProviderResponseSchema,
  ListProvidersResponseSchema,
  type ProviderService,
  TestProviderResponseSchema,
  type UpdateProviderRequest,
  UpdateProviderResponseSchema,
} from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { invalidField } from "../domain/errors.ts";
import {
  checkCredentialsFit,
  checkRegion,
  checkSettingsFit,
  type CredentialField,
} from "../domain/provider_account.ts";
import { checkBaseUrl, checkHeaders } from "../domain/upstream_address.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import * as providers from "../store/provider.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { priceImportCalls } from "./price_import_calls.ts";
import { physicalModelCalls } from "./physical_model_calls.ts";
import { testProvider } from "./test_provider.ts";

const LIST = "providers";

export function toProvider(row: providers.ProviderRow): Provider {
  return create(ProviderSchema, {
    id: row.id,
    name: row.name,
    format: row.format as ProviderFormat,
    baseUrl: row.base_url,
    hasCredentials: row.credentials !== null,
    onDisconnect: row.on_disconnect as OnDisconnect,
    headers: row.headers,
    region: row.region,
    apiVersion: row.api_version,
    disabled: row.disabled,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    etag: String(row.version),
    dialect: row.dialect as ProviderDialect,
    bedrockApi: row.bedrock_api as BedrockApi,
  });
}

/** Credentials go into headers, so each must be able to stand in one. @throws DomainError invalid_field */
function checkCredentials(credentials: ProviderCredentials): void {
  for (const field of ProviderCredentialsSchema.fields) {
    const value = credentials[field.localName as keyof ProviderCredentials];
    if (typeof value !== "string" || /^[\x21-\x7e]*$/.test(value)) continue;
    throw invalidField(
      `credentials.${field.name}`,
      "must be printable ASCII without spaces or line breaks: was it copied whole?",
      "header_value",
    );
  }
}

/** The fields that are not empty. */
function givenOf(credentials: ProviderCredentials | undefined): ReadonlySet<CredentialField> {
  const given = ProviderCredentialsSchema.fields.filter(({ localName }) => {
    const value = credentials?.[localName as keyof ProviderCredentials];
    return value !== undefined && value !== "" && value !== false;
  });
  return new Set(given.map(({ name }) => name as CredentialField));
}

/** The envelope to store, or null when every field is empty. */
function sealCredentials(
  deps: Deps,
  providerId: string,
  credentials: ProviderCredentials | undefined,
): Uint8Array | null {
  if (credentials === undefined) return null;
  checkCredentials(credentials);
  const plain = toBinary(ProviderCredentialsSchema, credentials);
  return plain.length === 0 ? null : deps.secrets.seal(plain, providerId);
}

/** The credentials of a Provider; of none, empty ones. */
export function openCredentials(
  deps: Pick<Deps, "secrets">,
  row: Pick<providers.ProviderRow, "id" | "credentials">,
): ProviderCredentials {
  if (row.credentials === null) return create(ProviderCredentialsSchema);
  return fromBinary(ProviderCredentialsSchema, deps.secrets.open(row.credentials, row.id));
}

function orDefault(onDisconnect: OnDisconnect): OnDisconnect {
  return onDisconnect === OnDisconnect.UNSPECIFIED ? OnDisconnect.CANCEL_ESTIMATE : onDisconnect;
}

/** The default of a format that has the setting; 0 for the others. */
function bedrockApiOr(format: number, asked: BedrockApi): BedrockApi {
  return format === ProviderFormat.AWS_BEDROCK && asked === BedrockApi.UNSPECIFIED ? BedrockApi.CONVERSE : asked;
}

function changedFields(
  deps: Deps,
  row: providers.ProviderRow,
  request: UpdateProviderRequest,
): providers.ProviderFields {
  const { allowPrivateUpstreams } = deps.settings;
  if (request.headers !== undefined) checkHeaders(request.headers.headers, "headers.headers");
  checkSettingsFit(row.format, request.dialect ?? 0, request.bedrockApi ?? 0);
  const baseUrl = request.baseUrl === undefined ? row.base_url : checkBaseUrl(request.baseUrl, allowPrivateUpstreams);
  const region = request.region ?? row.region;
  if (request.credentials !== undefined) {
    const given = givenOf(request.credentials);
    checkCredentialsFit(row.format, given);
    checkRegion(region, baseUrl, given);
  } else if (row.format === ProviderFormat.AWS_BEDROCK && (baseUrl !== row.base_url || region !== row.region)) {
    checkRegion(region, baseUrl, givenOf(openCredentials(deps, row)));
  }
  return {
    name: request.name ?? row.name,
    base_url: baseUrl,
    credentials:
      request.credentials === undefined ? row.credentials : sealCredentials(deps, row.id, request.credentials),
    on_disconnect: request.onDisconnect === undefined ? row.on_disconnect : orDefault(request.onDisconnect),
    headers: request.headers?.headers ?? row.headers,
    region,
    api_version: request.apiVersion ?? row.api_version,
    disabled: request.disabled ?? row.disabled,
    dialect: request.dialect ?? row.dialect,
    bedrock_api: request.bedrockApi === undefined ? row.bedrock_api : bedrockApiOr(row.format, request.bedrockApi),
  };
}

function reads(
  deps: Deps,
): Pick<ServiceImpl<typeof ProviderService>, "getProvider" | "listProviders" | "testProvider"> {
  return {
    async getProvider(request, ctx) {
      const row = await providers.readProvider(deps.db, requireMerchant(ctx), request.id);
      return create(GetProviderResponseSchema, { provider: toProvider(row) });
    },

    async listProviders(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, merchantId, request.pageToken) ?? 0n;
      const page = toPage(await providers.listProviders(deps.db, merchantId, after, size + 1), size, LIST, merchantId);
      return create(ListProvidersResponseSchema, {
        providers: page.items.map(toProvider),
        nextPageToken: page.nextPageToken,
      });
    },

    async testProvider(request, ctx) {
      const row = await providers.readProvider(deps.db, requireMerchant(ctx), request.id);
      const upstream = {
        format: row.format,
        apiVersion: row.api_version,
        baseUrl: row.base_url,
        headers: row.headers,
        credentials: openCredentials(deps, row),
      };
      const verdict = await testProvider(upstream, request.upstreamName, {
        allowPrivate: deps.settings.allowPrivateUpstreams,
        now: deps.now,
        signal: ctx.signal,
      });
      return create(TestProviderResponseSchema, verdict);
    },
  };
}

export function providerService(deps: Deps): ServiceImpl<typeof ProviderService> {
  return {
    async createProvider(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const baseUrl = checkBaseUrl(request.baseUrl, deps.settings.allowPrivateUpstreams);
      checkHeaders(request.headers);
      checkSettingsFit(request.format, request.dialect, request.bedrockApi);
      const given = givenOf(request.credentials);
      checkCredentialsFit(request.format, given);
      checkRegion(request.region, baseUrl, given);
      const bytes = requestBytes(CreateProviderRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateProvider",
          request.requestId,
          bytes,
          CreateProviderResponseSchema,
          async () => {
            const id = deps.newId("prov_");
            const fields: providers.NewProvider = {
              id,
              merchant_id: merchantId,
              name: request.name,
              format: request.format,
              base_url: baseUrl,
              credentials: sealCredentials(deps, id, request.credentials),
              on_disconnect: orDefault(request.onDisconnect),
              headers: request.headers,
              region: request.region,
              api_version: request.apiVersion,
              disabled: false,
              dialect: request.dialect,
              bedrock_api: bedrockApiOr(request.format, request.bedrockApi),
            };
            const row = await providers.insertProvider(tx, fields, await nextRevision(tx), new Date(deps.now()));
            return create(CreateProviderResponseSchema, { provider: toProvider(row) });
          },
        ),
      );
    },

    async updateProvider(request, ctx) {
      const merchantId = requireMerchant(ctx);
      return deps.db.tx(async (tx) => {
        const row = await providers.lockProvider(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        const fields = changedFields(deps, row, request);
        const changed = await providers.updateProvider(
          tx,
          row.id,
          fields,
          await nextRevision(tx),
          new Date(deps.now()),
        );
        return create(UpdateProviderResponseSchema, { provider: toProvider(changed) });
      });
    },

    async deleteProvider(request, ctx) {
      const merchantId = requireMerchant(ctx);
      await deps.db.tx(async (tx) => {
        const row = await providers.lockProvider(tx, merchantId, request.id);
        checkEtag(request.etag, row.version);
        await providers.deleteProvider(tx, row.id);
        await addTombstones(tx, await nextRevision(tx), [row.id]);
      });
      return create(DeleteProviderResponseSchema);
    },

    ...reads(deps),
    ...physicalModelCalls(deps),
    ...priceImportCalls(deps),
  };
}
