/** How a simulated upstream misbehaves. Everything is optional; `{}` is a healthy upstream. */

export interface Behaviour {
  /** Answers with this status and `body` (default: an OpenAI error of that status). */
  readonly status?: number;
  /** A string is sent as it is, everything else as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Waits before the head. */
  readonly delayMs?: number;
  /** The `code` of the error of `status`. */
  readonly code?: string;
  /** Answers 200 with an OpenAI error as JSON. */
  readonly errorBody?: boolean;
  /** `retry-after` in seconds. */
  readonly retryAfter?: number;
  /** `retry-after` as the date in so many seconds. */
  readonly retryAfterDate?: number;
  /** `retry-after-ms`. */
  readonly retryAfterMs?: number;
  /** So many of 100 calls misbehave as it says here, the others are healthy. The upstream's seed decides which. */
  readonly failPercent?: number;
  /** Never goes on: before the head, right after it, or after `afterChunks` content chunks. */
  readonly hang?: Moment;
  /** Breaks the connection. */
  readonly reset?: Moment;
  /** Ends the body without `[DONE]`. */
  readonly end?: Moment;
  /** Sends `[DONE]` and ends the body. */
  readonly done?: Moment;
  /** Never gets to the content: sends comments, roles or empty deltas for ever, every 20 ms. Of JSON: white space. */
  readonly forever?: "comments" | "roles" | "deltas";
  /** Sends an SSE error frame, then ends. Of JSON: an error body in place of the answer. */
  readonly errorFrame?: Moment;
  /** Sends a frame that is not JSON, then goes on. Of JSON: half of the answer in place of it, with a right length. */
  readonly brokenFrame?: Moment;
  /** How many content chunks go before a "middle". Default 3. */
  readonly afterChunks?: number;
  /** Sends a comment before every frame. */
  readonly comments?: boolean;
  /** Ends lines with CR LF. */
  readonly crlf?: boolean;
  /** `none`: never says usage. `every`: a running usage on every chunk. `unasked`: at the end even if not asked for. */
  readonly usage?: "none" | "every" | "unasked";
  /** Sends everything in pieces of so many bytes, each in a packet of its own. */
  readonly dripBytes?: number;
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

/**
 * `head`: before the status line. `content`: after it, before any content. `middle`: after `afterChunks` chunks; if there
 * are not so many, after the last frame but `[DONE]`.
 */
export type Moment = "head" | "content" | "middle";

/** Behaviours that calls draw from, by weight. */
export type Mix = readonly { readonly weight: number; readonly behaviour: Behaviour }[];

const NUMBERS = new Set([
  "status",
  "retryAfter",
  "retryAfterDate",
  "retryAfterMs",
  "failPercent",
  "delayMs",
  "afterChunks",
  "chunkDelayMs",
  "dripBytes",
  "words",
  "cachedTokens",
  "reasoningTokens",
]);
const FLAGS = new Set(["comments", "crlf", "hold", "errorBody"]);
const MOMENTS = ["head", "content", "middle"];
const TEXTS: Readonly<Record<string, readonly string[] | null>> = {
  hang: MOMENTS,
  reset: MOMENTS,
  end: MOMENTS,
  done: MOMENTS,
  errorFrame: MOMENTS,
  brokenFrame: MOMENTS,
  forever: ["comments", "roles", "deltas"],
  usage: ["none", "every", "unasked"],
  code: null,
};

/**
 * A model name can carry its behaviour: `any-name~status=503`, `any-name~reset=middle~afterChunks=5`, `any-name~comments`.
 * Every field of `Behaviour` but `body` and `headers` can be given so: numbers whole, flags by their name alone.
 * @throws on a part that means nothing, so that a typing error does not become a healthy upstream
 */
export function behaviourOfName(model: string): Behaviour {
  const behaviour: Record<string, unknown> = {};
  for (const part of model.split("~").slice(1)) {
    const [name = "", value] = part.split("=", 2);
    const known = TEXTS[name];
    if (NUMBERS.has(name) && value !== undefined && /^\d+$/.test(value)) behaviour[name] = Number(value);
    else if (known !== undefined && value !== undefined && (known?.includes(value) ?? true)) behaviour[name] = value;
    else if (FLAGS.has(name) && value === undefined) behaviour[name] = true;
    else throw new Error(`"${part}" is no behaviour of the simulated upstream`);
  }
  return behaviour;
}

/** Draws one of a mix. `random` in [0, 1). */
export function drawBehaviour(mix: Mix, random: () => number): Behaviour {
  let left = random() * mix.reduce((sum, { weight }) => sum + weight, 0);
  for (const { weight, behaviour } of mix) if ((left -= weight) < 0) return behaviour;
  return mix.at(-1)?.behaviour ?? {};
}
