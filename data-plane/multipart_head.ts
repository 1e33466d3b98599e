/**
 * PURE. The head of a multipart body and of its parts (RFC 7578, RFC 2046). Whatever two readers could understand
 * differently is refused: the upstream must not see another `model` than the one that is billed.
 */

/** The body cannot be used; the client is told so with status 400. */
export class MultipartError extends Error {
  readonly code:
    | "invalid_multipart"
    | "too_many_parts"
    | "part_headers_too_large"
    | "duplicate_parameter"
    | "missing_required_parameter"
    | "invalid_type"
    | "string_above_max_length";
  /** The field at fault, null for the body itself. */
  readonly param: string | null;
  constructor(code: MultipartError["code"], param: string | null, message: string) {
    super(message);
    this.code = code;
    this.param = param;
  }
}

export function malformed(what: string): MultipartError {
  return new MultipartError(
    "invalid_multipart",
    null,
    `We could not parse the multipart body of your request: ${what}.`,
  );
}

/** RFC 2046 5.1.1. */
export const BOUNDARY_CHARS_MAX = 70;
const BOUNDARY = /^[0-9A-Za-z'()+_,\-./:=? ]*[0-9A-Za-z'()+_,\-./:=?]$/;
const TYPE = /^multipart\/form-data[\t ]*(?:;|$)/i;

/** True if a body of this content type is a form. */
export function isMultipart(contentType: string): boolean {
  return TYPE.test(contentType);
}

/** The boundary that a content type of `multipart/form-data` names. @throws MultipartError */
export function boundaryOf(contentType: string): string {
  const semicolon = contentType.indexOf(";");
  const boundary = semicolon === -1 ? undefined : parameters(contentType.slice(semicolon)).get("boundary");
  if (boundary === undefined) throw malformed("the content-type has no boundary");
  if (boundary.length > BOUNDARY_CHARS_MAX || !BOUNDARY.test(boundary))
    throw malformed("the boundary in the content-type is not valid");
  return boundary;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** The content type of a form with this boundary, and nothing else: some readers know more parameters, such as `boundary*`. */
export function formType(boundary: string): string {
  return `multipart/form-data; boundary=${TOKEN.test(boundary) ? boundary : `"${boundary}"`}`;
}

const PARAMETER = /^[\t ]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[\t ]*=[\t ]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))[\t ]*(?=;|$)/;

/** Names in lower case. `text` begins with a semicolon. @throws MultipartError */
function parameters(text: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  let rest = text;
  while (rest !== "") {
    rest = rest.slice(1);
    if (/^[\t ]*(?:;|$)/.test(rest)) {
      rest = rest.trimStart();
      continue;
    }
    const match = PARAMETER.exec(rest);
    if (match === null) throw malformed("a header has a parameter that is not valid");
    const name = match[1]!.toLowerCase();
    if (found.has(name)) throw malformed(`a header has the parameter '${name.slice(0, 64)}' twice`);
    found.set(name, match[2] === undefined ? match[3]! : match[2].replace(/\\(["\\])/g, "$1"));
    rest = rest.slice(match[0].length);
  }
  return found;
}

export interface PartHead {
  readonly name: string;
  /** Null: it is a field and not a file. */
  readonly filename: string | null;
  /** As sent, "" if it was not. */
  readonly contentType: string;
}

const HEADER = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*(.*?)[\t ]*$/;
/** A form's names: what no two readers take for different ones. */
const NAME = /^[^\p{Cc}"\\%]+$/u;
const DISPOSITION = /^form-data[\t ]*(;.*)$/i;
const ENCODINGS = new Set(["binary", "8bit", "7bit"]);

/** Reads the header lines of a part, without the blank one. @throws MultipartError */
export function parsePartHead(bytes: Buffer): PartHead {
  let disposition: string | null = null;
  let contentType: string | null = null;
  for (const line of bytes.toString("utf8").split("\r\n")) {
    const match = HEADER.exec(line);
    if (match === null) throw malformed("a part has a header line that is not valid");
    const [, name, value] = match as unknown as [string, string, string];
    switch (name.toLowerCase()) {
      case "content-disposition":
        if (disposition !== null) throw malformed("a part has two content-disposition headers");
        disposition = value;
        break;
      case "content-type":
        if (contentType !== null) throw malformed("a part has two content-type headers");
        contentType = value;
        break;
      case "content-transfer-encoding":
        if (!ENCODINGS.has(value.toLowerCase())) throw malformed("a part has a content-transfer-encoding");
    }
  }
  return { ...dispositionOf(disposition), contentType: contentType ?? "" };
}

function dispositionOf(disposition: string | null): { name: string; filename: string | null } {
  const match = DISPOSITION.exec(disposition ?? "");
  if (match === null) throw malformed("a part has no content-disposition of form-data with a name");
  const found = parameters(match[1]!);
  const name = found.get("name");
  if (name === undefined || !NAME.test(name) || found.has("name*")) throw malformed("a part has no valid name");
  return { name, filename: found.get("filename") ?? found.get("filename*") ?? null };
}
