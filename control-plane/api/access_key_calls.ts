/** The calls of VirtualEndpointService that concern access keys. */

import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type AccessKey, AccessKeySchema } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import {
  CreateAccessKeyRequestSchema,
  CreateAccessKeyResponseSchema,
  ListAccessKeysResponseSchema,
  RevokeAccessKeyResponseSchema,
  type UpdateAccessKeyRequest,
  UpdateAccessKeyResponseSchema,
  type VirtualEndpointService,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import type { Tx } from "../db/database.ts";
import { invalidField, limitReached } from "../domain/errors.ts";
import { secretPrefix } from "../ids.ts";
import { digest } from "../secrets.ts";
import * as keys from "../store/access_key.ts";
import { addTombstones, nextRevision } from "../store/feed_state.ts";
import { keepVirtualEndpoint, readVirtualEndpoint } from "../store/virtual_endpoint.ts";
import { type Deps, requireMerchant } from "./context.ts";
import { checkEtag, optionalTime } from "./convert.ts";
import { once, requestBytes } from "./idempotency.ts";
import { decodeRowPosition, pageSize, toPage } from "./paging.ts";
import { rateLimitsOr, toRateLimits } from "./routing_fields.ts";

const LIST = "access_keys";

/** Keys of one VE that are not revoked. */
export const ACCESS_KEYS_PER_VE_MAX = 1000;

type AccessKeyCalls = Pick<
  ServiceImpl<typeof VirtualEndpointService>,
  "createAccessKey" | "listAccessKeys" | "updateAccessKey" | "revokeAccessKey"
>;

function toAccessKey(row: keys.AccessKeyRow): AccessKey {
  return create(AccessKeySchema, {
    id: row.id,
    veId: row.ve_id,
    name: row.name,
    prefix: row.prefix,
    createTime: timestampFromDate(row.created_at),
    lastUseTime: optionalTime(row.last_used_at),
    revokeTime: optionalTime(row.revoked_at),
    rateLimits: toRateLimits(row.rate_limits),
    etag: String(row.version),
  });
}

/** @throws DomainError not_found, invalid_field when it was revoked */
async function updateKey(
  deps: Deps,
  tx: Tx,
  merchantId: string,
  { id, etag, name, rateLimits }: UpdateAccessKeyRequest,
): Promise<keys.AccessKeyRow> {
  const key = await keys.lockAccessKey(tx, merchantId, id);
  checkEtag(etag, key.version);
  if (key.revoked_at !== null) {
    const remedy = "the access key was revoked, which is for good: make a new one with CreateAccessKey";
    throw invalidField("id", remedy, "revoked");
  }
  const fields = { name: name ?? key.name, rate_limits: rateLimitsOr(rateLimits, key.rate_limits) };
  return keys.updateAccessKey(tx, key.id, fields, await nextRevision(tx), new Date(deps.now()));
}

export function accessKeyCalls(deps: Deps): AccessKeyCalls {
  return {
    async createAccessKey(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const bytes = requestBytes(CreateAccessKeyRequestSchema, request);
      return deps.db.tx((tx) =>
        once(
          tx,
          deps,
          merchantId,
          "CreateAccessKey",
          request.requestId,
          bytes,
          CreateAccessKeyResponseSchema,
          async () => {
            const ve = await keepVirtualEndpoint(tx, merchantId, request.veId);
            if (ve.template)
              throw invalidField(
                "ve_id",
                "it is a template, which answers no requests: make a VE from it first",
                "template",
              );
            if ((await keys.countAccessKeys(tx, ve.id)) >= ACCESS_KEYS_PER_VE_MAX) {
              throw limitReached(
                "access_keys_per_ve",
                ACCESS_KEYS_PER_VE_MAX,
                "the VE has as many access keys as it can have: revoke one first",
              );
            }
            const secret = deps.secrets.newSecret("tbk_");
            const key = {
              id: deps.newId("key_"),
              merchantId,
              veId: ve.id,
              name: request.name,
              prefix: secretPrefix(secret),
              digest: digest(secret),
              rateLimits: rateLimitsOr(request.rateLimits, null),
            };
            const row = await keys.insertAccessKey(tx, key, await nextRevision(tx), new Date(deps.now()));
            return create(CreateAccessKeyResponseSchema, { accessKey: toAccessKey(row), secret });
          },
        ),
      );
    },

    async listAccessKeys(request, ctx) {
      const ve = await readVirtualEndpoint(deps.db, requireMerchant(ctx), request.veId);
      const size = pageSize(request.pageSize);
      const after = decodeRowPosition(LIST, ve.id, request.pageToken) ?? 0n;
      const page = toPage(await keys.listAccessKeys(deps.db, ve.id, after, size + 1), size, LIST, ve.id);
      return create(ListAccessKeysResponseSchema, {
        accessKeys: page.items.map(toAccessKey),
        nextPageToken: page.nextPageToken,
      });
    },

    async updateAccessKey(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const row = await deps.db.tx((tx) => updateKey(deps, tx, merchantId, request));
      return create(UpdateAccessKeyResponseSchema, { accessKey: toAccessKey(row) });
    },

    async revokeAccessKey(request, ctx) {
      const merchantId = requireMerchant(ctx);
      const row = await deps.db.tx(async (tx) => {
        const key = await keys.lockAccessKey(tx, merchantId, request.id);
        if (key.revoked_at !== null) return key;
        const revision = await nextRevision(tx);
        const revoked = await keys.revokeAccessKey(tx, key.id, revision, new Date(deps.now()));
        await addTombstones(tx, revision, [key.id]);
        return revoked;
      });
      return create(RevokeAccessKeyResponseSchema, { accessKey: toAccessKey(row) });
    },
  };
}
