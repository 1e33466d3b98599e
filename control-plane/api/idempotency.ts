/** `request_id`: makes creating calls safe to retry. */

import { createHash } from "node:crypto";
import { type DescMessage, fromBinary, type MessageShape, toBinary, toJson } from "@bufbuild/protobuf";
import type { Tx } from "../db/database.ts";
import { DomainError } from "../domain/errors.ts";
import { type IdempotencyKey, readAnswer, storeAnswer, takeRequestId } from "../store/idempotency.ts";
import type { Deps } from "./context.ts";

export const REQUEST_ID_TTL_MS = 24 * 60 * 60 * 1000;

/** The owner of request ids of calls that the operator makes. */
export const OPERATOR = "operator";

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}

/** The same bytes for the same request, in whatever order its maps were sent. */
export function requestBytes<Desc extends DescMessage>(schema: Desc, request: MessageShape<Desc>): Uint8Array {
  return Buffer.from(JSON.stringify(sorted(toJson(schema, request))), "utf8");
}

/**
 * Runs `fn` for the first call with a request id, and gives that call's answer to every later one. It all happens in
 * `tx`: either the answer is remembered and everything done, or neither. An empty request id means that nothing is
 * remembered.
 * @throws DomainError request_id_reused when the request is another one
 */
export async function once<Desc extends DescMessage>(
  tx: Tx,
  deps: Deps,
  owner: string,
  method: string,
  requestId: string,
  request: Uint8Array,
  responseSchema: Desc,
  fn: () => Promise<MessageShape<Desc>>,
): Promise<MessageShape<Desc>> {
  if (requestId === "") return fn();
  const key: IdempotencyKey = { owner, method, requestId };
  const digest = new Uint8Array(createHash("sha256").update(request).digest());
  const sealedFor = `idempotency:${owner}:${method}:${requestId}`;
  const now = deps.now();
  if (await takeRequestId(tx, key, digest, new Date(now), new Date(now - REQUEST_ID_TTL_MS))) {
    const response = await fn();
    await storeAnswer(tx, key, deps.secrets.seal(toBinary(responseSchema, response), sealedFor));
    return response;
  }
  const answer = await readAnswer(tx, key);
  if (!digestsEqual(answer.request_digest, digest)) {
    throw new DomainError(
      "request_id_reused",
      "this request_id was used for another request within 24 hours: choose a new one",
      {
        field: "request_id",
      },
    );
  }
  return fromBinary(responseSchema, deps.secrets.open(answer.response, sealedFor));
}

function digestsEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(b);
}
