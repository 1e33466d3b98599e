/** PURE. How a field that Claude cannot be asked with is refused. Paths are the client's, such as `messages[2].content[0]`. */

import { type Json, RefusedFieldError } from "../hub.ts";

/** @throws RefusedFieldError always */
export function refuse(code: RefusedFieldError["code"], param: string, message: string): never {
  throw new RefusedFieldError(code, param, message);
}

/** The target cannot do it at all. */
export function unsupported(param: string, what: string): never {
  return refuse("unsupported_parameter", param, `${what} is not supported by this model.`);
}

/** The string, undefined if it is absent or null. @throws RefusedFieldError if it is anything else */
export function optionalText(from: Json, key: string, param: string): string | undefined {
  const value = from[key];
  if (value === undefined || value === null) return undefined;
  return typeof value === "string" ? value : refuse("invalid_type", param, `\`${param}\` must be a string.`);
}

/** The number, undefined if it is absent or null. @throws RefusedFieldError if it is anything else */
export function optionalNumber(from: Json, key: string): number | undefined {
  const value = from[key];
  if (value === undefined || value === null) return undefined;
  return typeof value === "number" ? value : refuse("invalid_type", key, `\`${key}\` must be a number.`);
}

/** The string. @throws RefusedFieldError if it is absent, empty or anything else */
export function requiredText(from: Json, key: string, param: string): string {
  const value = optionalText(from, key, param);
  return value
    ? value
    : refuse("missing_required_parameter", param, `\`${param}\` must be a string that is not empty.`);
}
