/** PURE. What a client is told of a body that cannot be used. */

import { BodyError } from "./body.ts";
import { badRequest, type ErrorAnswer } from "./errors.ts";
import { RefusedFieldError } from "./formats/hub.ts";

/** Null: the error says nothing of the body. */
export function bodyRefusal(error: unknown): ErrorAnswer | null {
  if (error instanceof BodyError)
    return badRequest(error.message, error.param, error.code === "invalid_json" ? null : error.code);
  return error instanceof RefusedFieldError ? badRequest(error.message, error.param, error.code) : null;
}
