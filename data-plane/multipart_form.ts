/** PURE. What the gateway needs of a form: the same as `body.ts` finds in JSON bodies. */

import { boundaryOf, malformed, MultipartError } from "./multipart_head.ts";
import { type MultipartPart, MultipartReader } from "./multipart.ts";

/** Fields that say what an answer is and costs: twice, two readers could differ about which one counts. */
const SINGLE = new Set([
  "model",
  "stream",
  "response_format",
  "n",
  "size",
  "quality",
  "prompt",
  "language",
  "user",
  "partial_images",
  "output_format",
  "purpose",
]);
export const MODEL_CHARS_MAX = 512;
/** The most images of one request. OpenAI takes ten; others may take more. */
export const FORM_ANSWERS_MAX = 128;

/**
 * A reader of a form with this content type; see `isMultipart`. Its `push` throws also when a field that counts comes
 * twice, or is a file.
 * @throws MultipartError when there is no boundary
 */
export function createFormReader(contentType: string): MultipartReader {
  const reader: MultipartReader = new MultipartReader(boundaryOf(contentType), {
    onPartBegin: (part) => checkPart(part, reader.parts),
  });
  return reader;
}

function checkPart(part: MultipartPart, parts: readonly MultipartPart[]): void {
  if (!SINGLE.has(part.name)) return;
  if (part.filename !== null)
    throw new MultipartError("invalid_type", part.name, `Invalid type for '${part.name}': expected a string.`);
  for (const other of parts) {
    if (other !== part && other.name === part.name)
      throw new MultipartError("duplicate_parameter", part.name, `'${part.name}' was given more than once.`);
  }
}

export interface MultipartForm {
  /** With the place of its value. */
  readonly model: { readonly name: string; readonly start: number; readonly end: number };
  readonly stream: boolean;
  /** `n`, 1 if absent. */
  readonly choices: number;
  /** As sent, "" if absent. */
  readonly size: string;
  readonly quality: string;
  readonly responseFormat: string;
  readonly language: string;
  readonly user: string;
  readonly prompt: string;
  /** In the order in which they came. */
  readonly files: readonly MultipartPart[];
}

/** The text of a field, null if the form has none of this name. @throws MultipartError when it is too long to be known */
export function formField(parts: readonly MultipartPart[], name: string): string | null {
  const part = parts.find((each) => each.name === name);
  if (part === undefined) return null;
  if (part.text === null)
    throw new MultipartError("string_above_max_length", name, `Invalid value for '${name}': it is too long.`);
  return part.text;
}

/** The place and the text of `model` as soon as it came; null: not yet. @throws MultipartError when it cannot be used */
export function formModel(parts: readonly MultipartPart[]): MultipartForm["model"] | null {
  const part = parts.find(({ name, end }) => name === "model" && end !== -1);
  if (part === undefined) return null;
  const name = formField(parts, "model")!;
  if (name === "") throw noModel();
  if (name.length > MODEL_CHARS_MAX)
    throw new MultipartError("string_above_max_length", "model", "Invalid value for 'model': it is too long.");
  return { name, start: part.start, end: part.end };
}

function noModel(): MultipartError {
  return new MultipartError("missing_required_parameter", "model", "you must provide a model parameter");
}

/** Reads a form that is whole. @throws MultipartError */
export function readForm(reader: MultipartReader): MultipartForm {
  const { parts } = reader;
  if (!reader.complete) throw malformed("it ends before its last boundary");
  const model = formModel(parts);
  if (model === null) throw noModel();
  return {
    model,
    stream: readBoolean(formField(parts, "stream"), "stream"),
    choices: readCount(formField(parts, "n"), "n"),
    size: formField(parts, "size") ?? "",
    quality: formField(parts, "quality") ?? "",
    responseFormat: formField(parts, "response_format") ?? "",
    language: formField(parts, "language") ?? "",
    user: formField(parts, "user") ?? "",
    // It may be long, and only an estimate is made of it.
    prompt: parts.find(({ name }) => name === "prompt")?.text ?? "",
    files: parts.filter(({ filename }) => filename !== null),
  };
}

/** The change that puts a target's name of the model in place of the client's, for `Spool.source`. */
export function modelSplice(model: MultipartForm["model"], upstreamName: string) {
  return { start: model.start, end: model.end, bytes: Buffer.from(upstreamName) };
}

const TRUE = new Set(["true", "1", "on", "yes", "t", "y"]);
const FALSE = new Set(["false", "0", "off", "no", "f", "n", "", "null", "none"]);

/** Forms have words for it. What servers in use take for true is true here. */
function readBoolean(text: string | null, name: string): boolean {
  const word = (text ?? "").trim().toLowerCase();
  if (TRUE.has(word)) return true;
  if (FALSE.has(word)) return false;
  throw new MultipartError("invalid_type", name, `Invalid type for '${name}': expected a boolean.`);
}

function readCount(text: string | null, name: string): number {
  if (text === null || text === "" || text === "null") return 1;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= FORM_ANSWERS_MAX) return value;
  throw new MultipartError(
    "invalid_type",
    name,
    `Invalid value for '${name}': expected an integer from 1 to ${FORM_ANSWERS_MAX}.`,
  );
}
