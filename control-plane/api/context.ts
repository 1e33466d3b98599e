/** What every service is given, and who is calling. */

import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import type { Logger } from "pino";
import type { Database } from "../db/database.ts";
import { DomainError } from "../domain/errors.ts";
import type { Secrets } from "../secrets.ts";
import type { Settings } from "../settings.ts";

export interface Deps {
  readonly db: Database;
  /** Milliseconds since 1970. */
  now(): number;
  /** A new id: the prefix (`ve_`) and 26 characters of lower-case base32, 128 random bits. */
  newId(prefix: string): string;
  readonly secrets: Secrets;
  readonly settings: Settings;
  readonly log: Logger;
}

export type Principal =
  | { readonly kind: "operator" }
  | { readonly kind: "merchant"; readonly merchantId: string; readonly tokenId: string }
  | { readonly kind: "node" }
  /** Somebody with the secret of one Checkout Session. */
  | { readonly kind: "payer"; readonly merchantId: string; readonly sessionId: string }
  /** Somebody without credentials, where that is allowed. */
  | { readonly kind: "stranger" };

/** Set by the authentication interceptor before any handler runs. */
export const principalKey = createContextKey<Principal | null>(null, { description: "tokenbill principal" });

/** @throws DomainError unauthenticated */
export function principal(ctx: Pick<HandlerContext, "values">): Principal {
  const value = ctx.values.get(principalKey);
  if (value === null) throw new DomainError("unauthenticated", "this call needs credentials");
  return value;
}

/** Set by the adapter: the address of the client, empty where it is not known. */
export const clientAddressKey = createContextKey("", { description: "tokenbill client address" });

export function clientAddressOf(ctx: Pick<HandlerContext, "values">): string {
  return ctx.values.get(clientAddressKey);
}

/** The id of the calling merchant. @throws DomainError wrong_scope */
export function requireMerchant(ctx: Pick<HandlerContext, "values">): string {
  const caller = principal(ctx);
  if (caller.kind === "merchant") return caller.merchantId;
  throw new DomainError("wrong_scope", "this call acts for a merchant: use a merchant's API token");
}

/** @throws DomainError wrong_scope */
export function requireOperator(ctx: Pick<HandlerContext, "values">): void {
  if (principal(ctx).kind === "operator") return;
  throw new DomainError("wrong_scope", "only the operator's token may do this");
}

/** @throws DomainError wrong_scope */
export function requireNode(ctx: Pick<HandlerContext, "values">): void {
  if (principal(ctx).kind === "node") return;
  throw new DomainError("wrong_scope", "only a node's token may do this");
}
