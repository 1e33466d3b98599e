/** How a simulated upstream misbehaves. Everything is optional; `{}` is a healthy upstream. */

export interface Behaviour {
  /** Answers with this status and `body` (default: an OpenAI error of that status). */
  readonly status?: number;
  /** A string is sent as it is, everything else as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Waits before the head. */
  readonly delayMs?: number;
  /** Never goes on: before the head, right after it, or after `afterChunks` content chunks. */
  readonly hang?: Moment;
  /** Breaks the connection. */
  readonly reset?: Moment;
  /** Ends the body without `[DONE]`. */
  readonly end?: Moment;
  /** Sends an SSE error frame, then ends. */
  readonly errorFrame?: Moment;
  /** Sends a frame that is not JSON, then goes on. */
  readonly brokenFrame?: Moment;
  /** How many content chunks go before a "middle". Default 3. */
  readonly afterChunks?: number;
  /** Sends a comment before every frame. */
  readonly comments?: boolean;
  /** Ends lines with CR LF. */
  readonly crlf?: boolean;
  /** `none`: never says usage. `every`: a running usage on every chunk. `unasked`: at the end even if not asked for. */
  readonly usage?: "none" | "every" | "unasked";
  /** Waits before every content chunk. */
  readonly chunkDelayMs?: number;
  /** Every content chunk waits for `upstream.release(model)`. */
  readonly hold?: boolean;
  /** Length of an answer in words, which is in tokens. */
  readonly words?: number;
  /** So many of the prompt tokens are reported as cached. */
  readonly cachedTokens?: number;
  /** So many reasoning tokens are added to each choice. */
  readonly reasoningTokens?: number;
}

/** `head`: before the status line. `content`: after it, before any content. `middle`: after `afterChunks` chunks. */
export type Moment = "head" | "content" | "middle";

const NUMBERS = new Set([
  "status",
  "delayMs",
  "afterChunks",
  "chunkDelayMs",
  "words",
  "cachedTokens",
  "reasoningTokens",
]);
const FLAGS = new Set(["comments", "crlf", "hold"]);
const TEXTS = new Set(["hang", "reset", "end", "errorFrame", "brokenFrame", "usage"]);

/**
 * A model name can carry its behaviour: `any-name~status=503`, `any-name~reset=middle~afterChunks=5`, `any-name~comments`.
 * @throws on a part that means nothing, so that a typing error does not become a healthy upstream
 */
export function behaviourOfName(model: string): Behaviour {
  const behaviour: Record<string, unknown> = {};
  for (const part of model.split("~").slice(1)) {
    const [name = "", value] = part.split("=", 2);
    if (NUMBERS.has(name) && value !== undefined && /^\d+$/.test(value)) behaviour[name] = Number(value);
    else if (TEXTS.has(name) && value !== undefined) behaviour[name] = value;
    else if (FLAGS.has(name) && value === undefined) behaviour[name] = true;
    else throw new Error(`"${part}" is no behaviour of the simulated upstream`);
  }
  return behaviour;
}
