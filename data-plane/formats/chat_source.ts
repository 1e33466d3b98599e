/**
 * PURE. Reads what OpenAI's chat completions, and servers that are nearly compatible with them, answer to clients of other
 * formats. Everything is parsed, unlike in `openai_stream.ts`, which forwards bytes. Facts: reference/UPSTREAM-FORMATS.md A2,
 * A3, A7, A11, B4.
 */

import type { SseEvent } from "../sse.ts";
import { type ChatDelta, type ChatSource, type Json, SourceState, type UpstreamError } from "./hub.ts";
import { countOf, listOf, objectOf, parseObject, textOf } from "./json.ts";
import { openAiError } from "./openai.ts";

const DONE = "[DONE]";
const NO_DELTAS: readonly ChatDelta[] = [];

/** Texts of parts, those that are thinking by themselves: Mistral's reasoning models answer so. */
function textsOf(content: readonly unknown[]): { text: string; thinking: string } {
  let text = "";
  let thinking = "";
  for (const each of content) {
    const part = objectOf(each);
    if (typeof each === "string") text += each;
    else if (part["type"] === "thinking") {
      const inner = part["thinking"];
      thinking += typeof inner === "string" ? inner : textsOf(listOf(inner)).text;
    } else text += textOf(part["text"]);
  }
  return { text, thinking };
}

/** A delta or message with the names and types that the hub has. */
function normalised(given: Json): Json {
  if (!("reasoning" in given) && !("reasoning_content" in given) && !Array.isArray(given["content"])) return given;
  const { content, reasoning, reasoning_content, ...rest } = given;
  const made: Record<string, unknown> = rest;
  let thought = textOf(reasoning_content) || textOf(reasoning);
  if (Array.isArray(content)) {
    const { text, thinking } = textsOf(content as unknown[]);
    made["content"] = text;
    thought ||= thinking;
  } else if (content !== undefined) made["content"] = content;
  if (thought !== "") made["reasoning_content"] = thought;
  return made;
}

/**
 * Usage as the hub has it, where servers say it otherwise: DeepSeek names cached tokens elsewhere, and xAI leaves reasoning
 * out of what was completed. Clients of other formats are told what is billed. Null: there is none.
 */
function hubUsage(value: unknown): Json | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  return withReasoning(withCached(value as Json));
}

function withCached(usage: Json): Json {
  const hit = countOf(usage["prompt_cache_hit_tokens"]);
  const details = objectOf(usage["prompt_tokens_details"]);
  if (hit === undefined || countOf(details["cached_tokens"]) !== undefined) return usage;
  return { ...usage, prompt_tokens_details: { ...details, cached_tokens: hit } };
}

/** The same signs as in `meter.ts`: the total has the reasoning on top, or it is more than there could be. */
function withReasoning(usage: Json): Json {
  const prompt = countOf(usage["prompt_tokens"]);
  const completion = countOf(usage["completion_tokens"]);
  const reasoning = countOf(objectOf(usage["completion_tokens_details"])["reasoning_tokens"]) ?? 0;
  if (prompt === undefined || completion === undefined || reasoning === 0) return usage;
  const whole = completion + reasoning;
  if (usage["total_tokens"] !== prompt + whole && completion >= reasoning) return usage;
  return { ...usage, completion_tokens: whole, total_tokens: prompt + whole };
}

/** What the status would have been, had the error come before the answer. */
function statusOf(error: Json): number {
  const code = Number(error["code"] ?? error["status"]);
  if (Number.isInteger(code) && code >= 400 && code <= 599) return code;
  const type = textOf(error["type"]);
  if (type === "invalid_request_error" || error["code"] === "context_length_exceeded") return 400;
  const limited = type === "rate_limit_error" || error["code"] === "rate_limit_exceeded";
  return limited || type === "requests" || type === "tokens" ? 429 : 500;
}

/** An error that came with status 200. */
function errorOf(value: unknown): UpstreamError {
  const error: Json = typeof value === "string" ? { message: value } : objectOf(value);
  const read = openAiError(statusOf(error), {}, Buffer.from(JSON.stringify({ error })));
  return { ...read, message: read.message || "The upstream reports an error." };
}

/** The calls of one choice, to tell them apart where the server does not. */
interface Calls {
  /** The index given out last. */
  last: number;
  /** By the server's index: ours, and the id of the call. */
  readonly known: Map<number, { index: number; id: string }>;
}

/** Servers number all calls 0, or none of them: a name with an id of its own is another call. */
function numbered(call: Json, calls: Calls): Json {
  const id = textOf(call["id"]);
  const named = textOf(objectOf(call["function"])["name"]) !== "";
  const given = countOf(call["index"]) ?? 0;
  const before = calls.known.get(given);
  const other = before !== undefined && named && id !== "" && before.id !== "" && id !== before.id;
  if (before !== undefined && !other) {
    if (before.id === "") before.id = id;
    return { ...call, index: before.index };
  }
  const index = ++calls.last;
  calls.known.set(given, { index, id });
  return { ...call, index };
}

class OpenAiChatSource implements ChatSource {
  deltas: readonly ChatDelta[] = NO_DELTAS;
  usage: Json | null = null;
  error: UpstreamError | null = null;
  finished = false;
  private readonly calls = new Map<number, Calls>();

  read(event: SseEvent): SourceState {
    this.deltas = NO_DELTAS;
    const { data } = event;
    const failed = event.event === "error";
    if (data === null) return failed ? this.fail({}) : SourceState.OPEN;
    const chunk = parseObject(data);
    if (chunk !== null && !failed) return this.readChunk(chunk);
    const text = data.toString("utf8").trim();
    if (text === DONE) {
      this.finished = true;
      return SourceState.DONE;
    }
    if (failed) return this.fail(chunk?.["error"] ?? chunk ?? { message: text });
    return text === "" ? SourceState.OPEN : SourceState.BROKEN;
  }

  private readChunk(chunk: Json): SourceState {
    // Usage of a failed answer counts too.
    const usage = hubUsage(chunk["usage"]) ?? hubUsage(objectOf(chunk["x_groq"])["usage"]);
    if (usage !== null) this.usage = usage;
    if (chunk["error"]) return this.fail(chunk["error"]);
    if (chunk["object"] === "error") return this.fail(chunk);
    this.deltas = listOf(chunk["choices"]).map((choice) => this.readChoice(objectOf(choice)));
    return SourceState.OPEN;
  }

  private readChoice(choice: Json): ChatDelta {
    const index = countOf(choice["index"]) ?? 0;
    const delta = normalised(objectOf(choice["delta"] ?? choice["message"]));
    const reason = choice["finish_reason"];
    const finishReason = typeof reason === "string" && reason !== "" ? reason : null;
    if (finishReason !== null) this.finished = true;
    const calls = delta["tool_calls"];
    const numberedCalls = Array.isArray(calls)
      ? { ...delta, tool_calls: calls.map((call: unknown) => numbered(objectOf(call), this.callsOf(index))) }
      : delta;
    const read: ChatDelta = { index, delta: numberedCalls, finishReason };
    return choice["logprobs"] ? { ...read, logprobs: choice["logprobs"] } : read;
  }

  private callsOf(choice: number): Calls {
    let calls = this.calls.get(choice);
    if (calls === undefined) this.calls.set(choice, (calls = { last: -1, known: new Map() }));
    return calls;
  }

  private fail(error: unknown): SourceState {
    this.error = errorOf(error);
    return SourceState.ERROR;
  }
}

/** For one stream of one upstream. */
export function chatSource(): ChatSource {
  return new OpenAiChatSource();
}

/**
 * A whole answer with the names and types that the hub has, without `id`, `created` and `model`. Null: this is no answer,
 * as in `openai.ts` (no list of choices, or an error inside of a 200).
 */
export function chatAnswer(body: Json): Json | null {
  if (body["error"] || !Array.isArray(body["choices"])) return null;
  const { id: _id, created: _created, model: _model, usage, ...rest } = body;
  const choices = listOf(body["choices"]).map((each, position) => {
    const choice = objectOf(each);
    const { finish_reason, message } = choice;
    const reason = typeof finish_reason === "string" && finish_reason !== "" ? finish_reason : null;
    const index = countOf(choice["index"]) ?? position;
    return { ...choice, index, message: normalised(objectOf(message)), finish_reason: reason };
  });
  const known = hubUsage(usage);
  return { ...rest, choices, ...(known === null ? {} : { usage: known }) };
}
