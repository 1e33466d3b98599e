/**
 * The one shape that formats are translated through: OpenAI's chat completions, as parsed JSON. A client that speaks
 * another format is a `ChatClient`, an upstream that does is a `ChatUpstream`, and any two of them fit together. Where both
 * speak the same format nothing is translated: see `format.ts`.
 *
 * Beyond OpenAI's own fields the hub has these, so that nothing is lost on the way:
 * - messages of the assistant, and deltas: `reasoning_content` (string) and `thinking_blocks`
 *   (`[{type:"thinking",thinking,signature}, {type:"redacted_thinking",data}]`, whole blocks, to be replayed unchanged);
 * - parts, messages and tools: `cache_control` (`{type:"ephemeral",ttl?:"5m"|"1h"}`);
 * - messages of tools: `is_error` (boolean), and parts `image_url` in their content;
 * - requests: `thinking` (Anthropic's object, which says more than `reasoning_effort`; that one wins), `top_k`.
 * Usage has OpenAI's shape (`prompt_tokens` includes cached and cache-write tokens, `completion_tokens` includes reasoning),
 * with `prompt_tokens_details.cache_write_tokens` and, for those that are kept long, `.cache_write_long_tokens`, a subset.
 */

import type { FailureKind } from "../health.ts";
import type { SseEvent } from "../sse.ts";

/** A JSON object. */
export type Json = Readonly<Record<string, unknown>>;

/** The request asks for what the target cannot do: told to the client with status 400, naming the field. */
export class RefusedFieldError extends Error {
  readonly code:
    | "unsupported_parameter"
    | "unsupported_value"
    | "invalid_type"
    | "invalid_value"
    | "missing_required_parameter";
  /** The field in the client's words, such as `messages[2].content[0]`, null for the body itself. */
  readonly param: string | null;
  constructor(code: RefusedFieldError["code"], param: string | null, message: string) {
    super(message);
    this.code = code;
    this.param = param;
  }
}

/** What a mapping depends on at the target. */
export interface HubTarget {
  /** The model's name at the upstream. */
  readonly model: string;
  /** The model that it is, where the merchant said so; else "". Then the name tells. */
  readonly family: string;
  /** 0: not known. */
  readonly maxOutputTokens: number;
  /** `api_version` of the Provider, "" if it has none. */
  readonly apiVersion: string;
  /** The answer is streamed. */
  readonly stream: boolean;
}

/** A call to make at an upstream. Authentication is added by others. */
export interface HubCall {
  /** After the Provider's base URL, its query included. */
  readonly path: string;
  /** Flat: lower-case name, value, … Without content-type. */
  readonly headers: readonly string[];
  readonly body: Json;
}

/** What answers are made out with. */
export interface HubContext {
  /** The request's id, without a prefix of any format: unique, and safe in ids of answers (`chatcmpl-…`, `msg_…`, `resp_…`). */
  readonly id: string;
  readonly createdS: number;
  /** The model's name as the client knows it. */
  readonly model: string;
  /** The client's request, parsed, in the client's own format. */
  readonly request: Json;
}

/** An upstream's error, whatever its format. Not yet scrubbed of what tells of the account. */
export interface UpstreamError {
  readonly message: string;
  /** In OpenAI's words; null: not known. */
  readonly type: string | null;
  readonly param: string | null;
  readonly code: string | null;
  /** True: the client's own fault, told to it; no other target is tried. */
  readonly clientFault: boolean;
  /** What it says of the target. */
  readonly health: FailureKind;
  /** Another target may well take it: the client hears of it only if none does. Not a client's fault. */
  readonly elsewhere?: boolean;
  /** The status for the client, where the upstream's own would mislead; else absent. */
  readonly status?: number;
  /** When to ask again, where the format says so by other means than `retry-after`, which wins; 0: it does not. */
  readonly retryAfterMs?: number;
}

/** One step of an answer: what a chunk says of one choice. */
export interface ChatDelta {
  readonly index: number;
  /** As `choices[].delta`: role, content, refusal, tool_calls, and the extensions above. `{}`: nothing. */
  readonly delta: Json;
  /** As `choices[].finish_reason`. */
  readonly finishReason: string | null;
  readonly logprobs?: unknown;
}

export const SourceState = {
  OPEN: 0,
  /** The end of the stream was marked. */
  DONE: 1,
  /** The upstream reports an error: see `error`. */
  ERROR: 2,
  /** Not what the format allows. */
  BROKEN: 3,
} as const;
export type SourceState = (typeof SourceState)[keyof typeof SourceState];

/** Turns the events of one upstream stream into deltas. Unknown events and fields are passed over. */
export interface ChatSource {
  /** What the last event said; replaced by every `read`. */
  readonly deltas: readonly ChatDelta[];
  /** The usage so far in OpenAI's shape, null if none was reported. Overwritten, never summed. */
  readonly usage: Json | null;
  readonly error: UpstreamError | null;
  /** The answer said why it ended: then a stream that just closes is whole. */
  readonly finished: boolean;
  /** The data must be used before this returns: its bytes are the socket's. */
  read(event: SseEvent): SourceState;
}

/** An upstream that is asked in chat completions and speaks something else. PURE. */
export interface ChatUpstream {
  /** @throws RefusedFieldError */
  request(chat: Json, target: HubTarget): HubCall;
  /** A whole answer as `chat.completion`, without `id`, `created` and `model`; null: this is no answer. */
  answer(body: Json, target: HubTarget): Json | null;
  source(target: HubTarget): ChatSource;
  /** Reads what is not 2xx. `headers` has lower-case names. */
  error(status: number, headers: Readonly<Record<string, string | string[] | undefined>>, body: Buffer): UpstreamError;
}

/** Turns deltas into the frames of one client's stream: text of server-sent events, "" for nothing. */
export interface ChatSink {
  push(delta: ChatDelta): string;
  /** The end of a whole answer. `usage` null: none is known. */
  end(usage: Json | null): string;
  /** The end of an answer whose length the wallet cut, all choices of it; an error follows. */
  cut(usage: Json | null): string;
}

/** A client that speaks something else than chat completions. PURE. */
export interface ChatClient {
  /** The client's body as a chat request. @throws RefusedFieldError */
  request(body: Json): Json;
  /** A `chat.completion` (without `id`, `created` and `model`; `usage` may be absent) in the client's format. */
  answer(chat: Json, context: HubContext): Json;
  sink(context: HubContext): ChatSink;
}

/**
 * An endpoint with JSON answers that are never streamed, such as embeddings, at an upstream that speaks something else. One
 * request may need several calls. PURE.
 */
export interface JsonUpstream {
  /** The calls to make, at least one. @throws RefusedFieldError */
  requests(body: Json, target: HubTarget): readonly HubCall[];
  /** The answers to all of them, in their order, as one in OpenAI's shape, with usage; null: this is no answer. */
  answer(answers: readonly JsonAnswer[], body: Json, target: HubTarget, context: HubContext): Json | null;
  error: ChatUpstream["error"];
}

export interface JsonAnswer {
  readonly body: Json;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}
