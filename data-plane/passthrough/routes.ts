/**
 * PURE. The paths of files, uploads, batches and vector stores, and what may be done there. Whatever is not listed does not
 * exist. Source: reference/UPSTREAM-FORMATS.md A1.
 */

const MIB = 1024 * 1024;
/** What a form has besides its file. */
const FORM_BYTES_MAX = 64 * 1024;
/** OpenAI takes files of 512 MB. */
export const FILE_BODY_BYTES_MAX = 512 * MIB + FORM_BYTES_MAX;
/** OpenAI takes parts of 64 MB. */
export const PART_BODY_BYTES_MAX = 64 * MIB + FORM_BYTES_MAX;
/** A batch of files for a vector store names up to 2000, each with attributes. */
export const PASS_JSON_BYTES_MAX = 16 * MIB;

export interface PassOperation {
  readonly body: "none" | "json" | "form";
  /** 0 without a body. */
  readonly bodyBytesMax: number;
  /** It may cost the merchant something at the upstream, as storage does: an exhausted wallet may not. */
  readonly spends: boolean;
  /** It would cost what no price covers: it is refused, whatever is set. */
  readonly unpriced: boolean;
  /** The answer need not be JSON. */
  readonly binary: boolean;
}

export interface PassRoute {
  readonly kind: "passthrough";
  readonly methods: readonly string[];
  /** By method. */
  readonly operations: Readonly<Record<string, PassOperation>>;
}

const READ: PassOperation = { body: "none", bodyBytesMax: 0, spends: false, unpriced: false, binary: false };
const DOWNLOAD: PassOperation = { ...READ, binary: true };
/** Takes away, or ends, what would cost something. */
const CANCEL: PassOperation = { ...READ, body: "json", bodyBytesMax: FORM_BYTES_MAX };
const WRITE: PassOperation = { ...READ, body: "json", bodyBytesMax: PASS_JSON_BYTES_MAX, spends: true };
const UNPRICED: PassOperation = { ...WRITE, unpriced: true };
const upload = (bodyBytesMax: number): PassOperation => ({ ...WRITE, body: "form", bodyBytesMax });

const ID = "[A-Za-z0-9_-]{1,256}";
const OURS = /^\/v1\/(?:files|uploads|batches|vector_stores)(?:\/|$)/;

interface Rule extends PassRoute {
  readonly pattern: RegExp;
}

function rule(path: string, operations: Readonly<Record<string, PassOperation>>): Rule {
  const pattern = new RegExp(`^/v1${path.replaceAll(":id", ID)}$`);
  return { kind: "passthrough", pattern, methods: Object.keys(operations), operations };
}

const RULES: readonly Rule[] = [
  rule("/files", { GET: READ, POST: upload(FILE_BODY_BYTES_MAX) }),
  rule("/files/:id", { GET: READ, DELETE: READ }),
  rule("/files/:id/content", { GET: DOWNLOAD }),
  rule("/uploads", { POST: WRITE }),
  rule("/uploads/:id/parts", { POST: upload(PART_BODY_BYTES_MAX) }),
  rule("/uploads/:id/complete", { POST: WRITE }),
  rule("/uploads/:id/cancel", { POST: CANCEL }),
  rule("/batches", { GET: READ, POST: UNPRICED }),
  rule("/batches/:id", { GET: READ }),
  rule("/batches/:id/cancel", { POST: CANCEL }),
  rule("/vector_stores", { GET: READ, POST: WRITE }),
  rule("/vector_stores/:id", { GET: READ, POST: WRITE, DELETE: READ }),
  rule("/vector_stores/:id/search", { POST: WRITE }),
  rule("/vector_stores/:id/files", { GET: READ, POST: WRITE }),
  rule("/vector_stores/:id/files/:id", { GET: READ, POST: WRITE, DELETE: READ }),
  rule("/vector_stores/:id/files/:id/content", { GET: READ }),
  rule("/vector_stores/:id/file_batches", { POST: WRITE }),
  rule("/vector_stores/:id/file_batches/:id", { GET: READ }),
  rule("/vector_stores/:id/file_batches/:id/files", { GET: READ }),
  rule("/vector_stores/:id/file_batches/:id/cancel", { POST: CANCEL }),
];

/** What stands at a path as it was sent, without its query; null: nothing. Nothing that is encoded matches. */
export function passRouteOf(path: string): PassRoute | null {
  return OURS.test(path) ? (RULES.find(({ pattern }) => pattern.test(path)) ?? null) : null;
}
