/** The API paths of the gateway. */

import { UnitKind } from "../core/meters.ts";
import type { ClientShape, EndpointSpec } from "./formats/format.ts";
import { type PassRoute, passRouteOf } from "./passthrough/routes.ts";
import type { StoredAction } from "./stored_calls.ts";

/** Numbers of `tokenbill.v1.Endpoint`. */
export const Endpoint = {
  CHAT_COMPLETIONS: 1,
  COMPLETIONS: 2,
  EMBEDDINGS: 3,
  RESPONSES: 4,
  MESSAGES: 5,
  IMAGES_GENERATIONS: 6,
  IMAGES_EDITS: 7,
  AUDIO_SPEECH: 8,
  AUDIO_TRANSCRIPTIONS: 9,
  AUDIO_TRANSLATIONS: 10,
  MODERATIONS: 11,
  REALTIME: 12,
  PASSTHROUGH: 13,
} as const;
export type Endpoint = (typeof Endpoint)[keyof typeof Endpoint];

/** Chat bodies carry images and files as base64. */
export const CHAT_BODY_BYTES_MAX = 64 * 1024 * 1024;
export const TEXT_BODY_BYTES_MAX = 16 * 1024 * 1024;
export const MODERATION_BODY_BYTES_MAX = 32 * 1024 * 1024;
export const SPEECH_BODY_BYTES_MAX = 1024 * 1024;
/** OpenAI takes 25 MB of audio, other servers more; and sixteen images of 50 MB at the most. */
export const AUDIO_FORM_BYTES_MAX = 256 * 1024 * 1024;
export const IMAGES_FORM_BYTES_MAX = 512 * 1024 * 1024;

/** Kinds of Units as bits, so that two sets of them are compared at once. */
export function kindBits(...kinds: readonly UnitKind[]): number {
  let bits = 0;
  for (const kind of kinds) bits |= 1 << kind;
  return bits;
}

const { TOKENS, IMAGES, SECONDS, CHARACTERS, REQUESTS } = UnitKind;

interface Chatty {
  readonly number: Endpoint;
  readonly path: string;
  readonly shape: ClientShape;
}

function chatty({ number, path, shape }: Chatty): EndpointSpec {
  return {
    number,
    path,
    shape,
    hasOutput: true,
    streams: true,
    chat: true,
    forms: "no",
    kinds: kindBits(TOKENS, REQUESTS),
    estimated: true,
    bodyBytesMax: CHAT_BODY_BYTES_MAX,
    formBytesMax: 0,
  };
}

export const CHAT = chatty({ number: Endpoint.CHAT_COMPLETIONS, path: "/chat/completions", shape: "chat" });
export const RESPONSES = chatty({ number: Endpoint.RESPONSES, path: "/responses", shape: "responses" });
export const MESSAGES = chatty({ number: Endpoint.MESSAGES, path: "/messages", shape: "messages" });

export const COMPLETIONS: EndpointSpec = {
  ...CHAT,
  number: Endpoint.COMPLETIONS,
  path: "/completions",
  shape: "completions",
  chat: false,
  bodyBytesMax: TEXT_BODY_BYTES_MAX,
};
export const EMBEDDINGS: EndpointSpec = {
  number: Endpoint.EMBEDDINGS,
  path: "/embeddings",
  shape: "openai",
  hasOutput: false,
  streams: false,
  chat: false,
  forms: "no",
  kinds: kindBits(TOKENS, REQUESTS),
  estimated: true,
  bodyBytesMax: TEXT_BODY_BYTES_MAX,
  formBytesMax: 0,
};
/** Free at OpenAI: any price will do. */
export const MODERATIONS: EndpointSpec = {
  ...EMBEDDINGS,
  number: Endpoint.MODERATIONS,
  path: "/moderations",
  kinds: kindBits(TOKENS, IMAGES, SECONDS, CHARACTERS, REQUESTS),
  estimated: false,
  bodyBytesMax: MODERATION_BODY_BYTES_MAX,
};
export const IMAGES_GENERATIONS: EndpointSpec = {
  ...EMBEDDINGS,
  number: Endpoint.IMAGES_GENERATIONS,
  path: "/images/generations",
  streams: true,
  kinds: kindBits(TOKENS, IMAGES, REQUESTS),
  estimated: false,
};
export const IMAGES_EDITS: EndpointSpec = {
  ...IMAGES_GENERATIONS,
  number: Endpoint.IMAGES_EDITS,
  path: "/images/edits",
  forms: "also",
  bodyBytesMax: CHAT_BODY_BYTES_MAX,
  formBytesMax: IMAGES_FORM_BYTES_MAX,
};
export const SPEECH: EndpointSpec = {
  ...EMBEDDINGS,
  number: Endpoint.AUDIO_SPEECH,
  path: "/audio/speech",
  streams: true,
  kinds: kindBits(TOKENS, SECONDS, CHARACTERS, REQUESTS),
  estimated: false,
  bodyBytesMax: SPEECH_BODY_BYTES_MAX,
};

export const TRANSCRIPTIONS: EndpointSpec = {
  ...EMBEDDINGS,
  number: Endpoint.AUDIO_TRANSCRIPTIONS,
  path: "/audio/transcriptions",
  streams: true,
  forms: "only",
  kinds: kindBits(TOKENS, SECONDS, REQUESTS),
  estimated: false,
  formBytesMax: AUDIO_FORM_BYTES_MAX,
};
export const TRANSLATIONS: EndpointSpec = {
  ...TRANSCRIPTIONS,
  number: Endpoint.AUDIO_TRANSLATIONS,
  path: "/audio/translations",
  streams: false,
};

/** A path and what can be done there. */
export type Route =
  | { readonly kind: "call"; readonly methods: readonly string[]; readonly endpoint: EndpointSpec }
  /** `model` "" is the list. */
  | { readonly kind: "models"; readonly methods: readonly string[]; readonly model: string }
  | { readonly kind: "count_tokens"; readonly methods: readonly string[] }
  | {
      readonly kind: "stored";
      readonly methods: readonly string[];
      readonly id: string;
      readonly action: StoredAction;
    }
  | PassRoute;

const POST: readonly string[] = ["POST"];
const GET: readonly string[] = ["GET"];

function calls(endpoint: EndpointSpec): [string, Route] {
  return [`/v1${endpoint.path}`, { kind: "call", methods: POST, endpoint }];
}

const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  calls(CHAT),
  calls(COMPLETIONS),
  calls(EMBEDDINGS),
  calls(RESPONSES),
  calls(MESSAGES),
  calls(MODERATIONS),
  calls(IMAGES_GENERATIONS),
  calls(IMAGES_EDITS),
  calls(SPEECH),
  calls(TRANSCRIPTIONS),
  calls(TRANSLATIONS),
  ["/v1/messages/count_tokens", { kind: "count_tokens", methods: POST }],
  ["/v1/models", { kind: "models", methods: GET, model: "" }],
]);

const MODEL_PREFIX = "/v1/models/";
const STORED = /^\/v1\/responses\/([A-Za-z0-9_-]{1,512})(\/cancel|\/input_items)?$/;
const GET_DELETE: readonly string[] = ["GET", "DELETE"];

function storedRoute(path: string): Route | null {
  const match = STORED.exec(path);
  if (match === null) return null;
  const action = (match[2] ?? "") as StoredAction;
  const methods = action === "" ? GET_DELETE : action === "/cancel" ? POST : GET;
  return { kind: "stored", methods, id: match[1]!, action };
}

/** What stands at a path; null if nothing does. Model names may hold slashes, encoded or not. */
export function routeOf(path: string): Route | null {
  const route = ROUTES.get(path);
  if (route !== undefined) return route;
  const stored = storedRoute(path);
  if (stored !== null) return stored;
  const passed = passRouteOf(path);
  if (passed !== null) return passed;
  if (!path.startsWith(MODEL_PREFIX) || path.length === MODEL_PREFIX.length) return null;
  try {
    return { kind: "models", methods: GET, model: decodeURIComponent(path.slice(MODEL_PREFIX.length)) };
  } catch {
    return null;
  }
}
