/** The one class of errors that a caller of the API is meant to see. `api/errors.ts` maps it to Connect. */

/** `tokenbill.v1.ErrorReason` in lower case, without its prefix. A test keeps the two equal. */
export const ERROR_CODES = [
  "invalid_field",
  "unauthenticated",
  "wrong_scope",
  "not_found",
  "name_taken",
  "request_id_reused",
  "etag_mismatch",
  "in_use",
  "bad_page_token",
  "price_not_exact",
  "format_not_routable",
  "no_price",
  "address_not_allowed",
  "not_available",
  "limit_reached",
  "insufficient_credits",
  "internal",
  "unavailable",
  "wrong_state",
  "payment_refused",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export interface DomainErrorOptions {
  /** The field at fault, as a path in the request: `targets[2].physical_model_id`. */
  readonly field?: string;
  /** More facts for programs; never secrets. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** `message` is for people: what is wrong and, where it helps, what to do. It never holds a secret. */
export class DomainError extends Error {
  readonly code: ErrorCode;
  readonly field: string | undefined;
  /** Includes `field` when there is one. */
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: ErrorCode, message: string, options: DomainErrorOptions = {}) {
    super(message);
    this.name = "DomainError";
    this.code = code;
    this.field = options.field;
    this.metadata =
      options.field === undefined ? { ...options.metadata } : { ...options.metadata, field: options.field };
  }
}

/** Says the same whether the resource never was or belongs to somebody else, and does not repeat the id. */
export function notFound(kind: string): DomainError {
  return new DomainError("not_found", `there is no ${kind} with this id`);
}

/** `rule` names what was broken in a word; programs may rely on it. */
export function invalidField(field: string, message: string, rule = "domain"): DomainError {
  return new DomainError("invalid_field", `${field}: ${message}`, { field, metadata: { rule } });
}

export function nameTaken(kind: string, field = "name"): DomainError {
  return new DomainError("name_taken", `another ${kind} has this name already`, { field });
}

export function etagMismatch(): DomainError {
  return new DomainError("etag_mismatch", "it was changed since the etag was read: read it again, then retry", {
    field: "etag",
  });
}

/** `usedBy` is the id of one resource that holds on to it. */
export function inUse(kind: string, usedBy: string, what: string): DomainError {
  return new DomainError("in_use", `the ${kind} is in use by ${what}`, { metadata: { used_by: usedBy } });
}

export function badPageToken(): DomainError {
  return new DomainError(
    "bad_page_token",
    "page_token was not made by this list with these filters: start again without one",
    {
      field: "page_token",
    },
  );
}

export function limitReached(limit: string, max: number, message: string): DomainError {
  return new DomainError("limit_reached", message, { metadata: { limit, max: String(max) } });
}
