/** The schema's rules, applied to every request before its handler runs. */

import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import type { Path } from "@bufbuild/protobuf/reflect";
import { createValidator, type Violation } from "@bufbuild/protovalidate";
import { type DomainError, invalidField } from "../domain/errors.ts";

/** The schema's patterns are plain enough for the built-in engine, which is far faster than RE2 in JavaScript. */
const patterns = new Map<string, RegExp>();
function matches(pattern: string, text: string): boolean {
  let compiled = patterns.get(pattern);
  if (compiled === undefined) patterns.set(pattern, (compiled = new RegExp(pattern, "u")));
  return compiled.test(text);
}

const validator = createValidator({ regexMatch: matches, failFast: true });

function fieldPath(path: Path): string {
  let text = "";
  for (const part of path) {
    switch (part.kind) {
      case "field":
        text += `${text === "" ? "" : "."}${part.name}`;
        break;
      case "list_sub":
        text += `[${part.index}]`;
        break;
      case "map_sub":
        text += `[${JSON.stringify(String(part.key).slice(0, 64))}]`;
        break;
      default:
        break;
    }
  }
  return text;
}

const AMOUNT = "give an amount in digits, such as 10.00";

/** What the pattern of a field asks for. */
const PATTERN_REMEDIES: Readonly<Record<string, string | undefined>> = {
  amount: AMOUNT,
  min_amount: AMOUNT,
  max_amount: AMOUNT,
  currency: "give three capitals of ISO 4217, such as USD",
  label: "give text without control characters",
  display_name: "give text without control characters",
  merchant_number: "give its digits",
  certificate_serial_no: "give it in hexadecimal",
};

/** What to do about it, where the rule alone does not say. */
function remedy(violation: Violation): string {
  const last = violation.field.findLast((part) => part.kind === "field");
  if (violation.ruleId === "repeated.unique") return "name each once";
  const isEnum = last?.kind === "field" && last.enum !== undefined;
  if (isEnum) {
    const names = last.enum!.values.filter((value) => value.number !== 0).map((value) => value.name);
    return `give one of ${names.join(", ")}`;
  }
  if (violation.ruleId === "string.min_len") return "it is required";
  if (violation.ruleId !== "string.pattern") return violation.message;
  if (last !== undefined && last.kind === "field" && /credit|spent|reserved|want|release|need/.test(last.name)) {
    return last.name === "credit_per_unit"
      ? "give a decimal below 1000000000 in digits, such as 12.5, with at most 12 digits after the point"
      : "give a decimal in digits, such as 12.5, with at most 12 digits after the point";
  }
  const name = last?.kind === "field" ? last.name : "";
  if (/^(upstream_)?name$/.test(name)) return "give a name without control characters that is not blank";
  if (PATTERN_REMEDIES[name] !== undefined) return PATTERN_REMEDIES[name];
  const isHeader = last !== undefined && last.kind === "field" && last.name === "header";
  return violation.forKey || isHeader ? "give a valid header name" : "give printable ASCII characters alone";
}

function toDomainError(violation: Violation): DomainError {
  return invalidField(fieldPath(violation.field), remedy(violation), violation.ruleId);
}

const SECONDS_MIN = -62_135_596_800n;
const SECONDS_MAX = 253_402_300_799n;

function checkTimestamp(value: { seconds?: unknown; nanos?: unknown }, path: string): void {
  const { seconds, nanos } = value as { seconds: bigint; nanos: number };
  if (seconds < SECONDS_MIN || seconds > SECONDS_MAX || nanos < 0 || nanos > 999_999_999) {
    throw invalidField(path, "is not a moment between the years 1 and 9999", "timestamp");
  }
}

/** `key` in the schema's spelling: generated code has it in lower camel case. */
function snake(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * Rules that hold for every string and moment, and that the schema cannot say once for all: no NUL, which PostgreSQL
 * cannot store; no half characters; no moment that a Date cannot hold.
 */
function checkValues(value: unknown, path: string): void {
  if (typeof value === "string") {
    if (value.includes("\0") || !value.isWellFormed())
      throw invalidField(path, "holds NUL or half a character", "text");
    return;
  }
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return;
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) checkValues(item, `${path}[${index}]`);
    return;
  }
  const message = value as Record<string, unknown>;
  if (message["$typeName"] === "google.protobuf.Timestamp") checkTimestamp(message, path);
  // Or a oneof, whose two properties are as harmless to check as keys are.
  const isMap = message["$typeName"] === undefined;
  for (const [key, item] of Object.entries(message)) {
    if (key === "$typeName" || key === "$unknown") continue;
    if (isMap) checkValues(key, path);
    checkValues(item, isMap ? path : `${path}${path === "" ? "" : "."}${snake(key)}`);
  }
}

/** Whether `checkValues` would find nothing. Most requests are fine, and large ones would spend their time on naming fields. */
function areValuesFine(value: unknown): boolean {
  if (typeof value === "string") return !value.includes("\0") && value.isWellFormed();
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return true;
  if (Array.isArray(value)) return value.every(areValuesFine);
  const message = value as Record<string, unknown>;
  const typeName = message["$typeName"];
  // These are looked at closely, which is also to say which key is at fault.
  if (typeName === undefined || typeName === "google.protobuf.Timestamp") return false;
  for (const key of Object.keys(message)) {
    if (key !== "$unknown" && !areValuesFine(message[key])) return false;
  }
  return true;
}

/** @throws DomainError invalid_field, naming the first field at fault and what to do */
export function validate(schema: DescMessage, message: Message): void {
  if (!areValuesFine(message)) checkValues(message, "");
  const result = validator.validate(schema, message);
  if (result.kind === "valid") return;
  if (result.kind === "invalid") throw toDomainError(result.violations[0]!);
  throw result.error;
}

/** Compiles the rules of a message, so that its first request need not wait for it. */
export function prepareValidation(schema: DescMessage): void {
  validator.validate(schema, create(schema));
}
