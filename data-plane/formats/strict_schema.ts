/** PURE. Whether a JSON schema is one that OpenAI takes as strict: Claude's strict tools may leave properties out. */

import { listOf, objectOf } from "./json.ts";

/** Keywords whose values are no schemas, whatever they look like. */
const VALUES = new Set(["enum", "const", "default", "examples", "required"]);
/** Keywords whose values are schemas by name. */
const SCHEMAS_BY_NAME = new Set(["properties", "$defs", "definitions"]);

function closed(schema: Readonly<Record<string, unknown>>): boolean {
  const { type, properties } = schema;
  const isObject = type === "object" || (Array.isArray(type) && type.includes("object")) || properties !== undefined;
  if (!isObject) return true;
  const required = new Set(listOf(schema["required"]));
  return (
    schema["additionalProperties"] === false && Object.keys(objectOf(properties)).every((key) => required.has(key))
  );
}

/** Every object is closed, and demands all of its properties. Nesting is as deep as the body's, which is bounded. */
export function isStrictSchema(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.every(isStrictSchema);
  if (typeof schema !== "object" || schema === null) return true;
  const fields = objectOf(schema);
  return (
    closed(fields) &&
    Object.entries(fields).every(([key, value]) => {
      if (VALUES.has(key)) return true;
      return SCHEMAS_BY_NAME.has(key) ? Object.values(objectOf(value)).every(isStrictSchema) : isStrictSchema(value);
    })
  );
}
