/** The API paths of the gateway. */

import type { EndpointSpec } from "./formats/format.ts";

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
export const COMPLETIONS_BODY_BYTES_MAX = 16 * 1024 * 1024;
export const EMBEDDINGS_BODY_BYTES_MAX = 16 * 1024 * 1024;

export const CHAT: EndpointSpec = {
  number: Endpoint.CHAT_COMPLETIONS,
  path: "/chat/completions",
  hasOutput: true,
  streams: true,
  chat: true,
  bodyBytesMax: CHAT_BODY_BYTES_MAX,
};
export const COMPLETIONS: EndpointSpec = {
  number: Endpoint.COMPLETIONS,
  path: "/completions",
  hasOutput: true,
  streams: true,
  chat: false,
  bodyBytesMax: COMPLETIONS_BODY_BYTES_MAX,
};
export const EMBEDDINGS: EndpointSpec = {
  number: Endpoint.EMBEDDINGS,
  path: "/embeddings",
  hasOutput: false,
  streams: false,
  chat: false,
  bodyBytesMax: EMBEDDINGS_BODY_BYTES_MAX,
};

export type Route =
  | { readonly method: "POST"; readonly endpoint: EndpointSpec }
  | { readonly method: "GET"; readonly endpoint: null; /** "" is the list. */ readonly model: string };

const ROUTES: ReadonlyMap<string, Route> = new Map<string, Route>([
  ["/v1/chat/completions", { method: "POST", endpoint: CHAT }],
  ["/v1/completions", { method: "POST", endpoint: COMPLETIONS }],
  ["/v1/embeddings", { method: "POST", endpoint: EMBEDDINGS }],
  ["/v1/models", { method: "GET", endpoint: null, model: "" }],
]);

const MODEL_PREFIX = "/v1/models/";

/** What stands at a path; null if nothing does. Model names may hold slashes, encoded or not. */
export function routeOf(path: string): Route | null {
  const route = ROUTES.get(path);
  if (route !== undefined) return route;
  if (!path.startsWith(MODEL_PREFIX) || path.length === MODEL_PREFIX.length) return null;
  try {
    return { method: "GET", endpoint: null, model: decodeURIComponent(path.slice(MODEL_PREFIX.length)) };
  } catch {
    return null;
  }
}
