/**
 * PURE. JSON schemas in the subset that structured output knows: objects are closed, and bounds are said in words instead
 * (reference/UPSTREAM-FORMATS.md C3, `response_format json_schema`).
 */

import type { Json } from "../hub.ts";

/** Keywords that are answered with 400; the model is told of them in the description. */
const SAID_IN_WORDS = [
  "minimum",
  "maximum",
  "exclusiveMinimum",
  "exclusiveMaximum",
  "multipleOf",
  "minLength",
  "maxLength",
  "maxItems",
  "uniqueItems",
  "minProperties",
  "maxProperties",
];
/** Keywords whose values are schemas by name. */
const SCHEMAS_BY_NAME = new Set(["properties", "$defs", "definitions"]);
/** Keywords whose values are no schemas, whatever they look like. */
const VALUES = new Set(["enum", "const", "default", "examples", "required"]);
/** Patterns that look around, or back, are not known. */
const COMPLEX_PATTERN = /\(\?|\\[1-9bB]/;

/** The schema, rewritten throughout. Nesting is as deep as the body's, which is bounded. */
export function closedSchema(schema: Json): Json {
  const out: Record<string, unknown> = {};
  const words: string[] = [];
  for (const [key, value] of Object.entries(schema)) {
    if (inWords(key, value)) words.push(`${key}: ${JSON.stringify(value)}`);
    else if (SCHEMAS_BY_NAME.has(key)) out[key] = eachOf(value);
    else if (!VALUES.has(key)) out[key === "oneOf" ? "anyOf" : key] = nested(value);
    else out[key] = value;
  }
  const { type } = schema;
  const isObject = type === "object" || (Array.isArray(type) && type.includes("object"));
  if (isObject || out["properties"] !== undefined) out["additionalProperties"] = false;
  if (words.length > 0) {
    const said = typeof out["description"] === "string" ? `${out["description"]} ` : "";
    out["description"] = `${said}(${words.join(", ")})`;
  }
  return out;
}

function inWords(key: string, value: unknown): boolean {
  if (key === "minItems") return value !== 0 && value !== 1;
  if (key === "pattern") return typeof value !== "string" || COMPLEX_PATTERN.test(value);
  return SAID_IN_WORDS.includes(key);
}

function nested(value: unknown): unknown {
  if (Array.isArray(value)) return (value as unknown[]).map(nested);
  return typeof value === "object" && value !== null ? closedSchema(value as Json) : value;
}

function eachOf(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, schema]) => [name, nested(schema)]));
}
