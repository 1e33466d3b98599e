/**
 * PURE. Bridges between a client and an upstream that speak different formats, through the hub (`hub.ts`): any `ChatClient`
 * fits any `ChatUpstream`. Without a client, the client speaks chat completions itself.
 */

import { SseSplitter } from "../sse.ts";
import type { SseEvent } from "../sse.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "../tokenizer/tokens.ts";
import { bodyOf, contextOf, outbound, targetOf } from "./call.ts";
import { ChatChunkSink } from "./chat_sink.ts";
import { type AnswerReading, type Bridge, FrameKind, type FrameSplitter, type StreamReader } from "./format.ts";
import {
  type ChatClient,
  type ChatSink,
  type ChatSource,
  type ChatUpstream,
  type HubContext,
  type Json,
  SourceState,
} from "./hub.ts";
import { listOf, objectOf, parseObject } from "./json.ts";
import { measureValue, type TextMeasure } from "./openai_text.ts";

/** Limits of an answer's length, by which a hub request says them. */
const LIMITS = ["max_completion_tokens", "max_tokens"] as const;

/** The request with no more output tokens than `most`. */
export function clamped(chat: Json, most: number | null): Json {
  if (most === null) return chat;
  const limited: Record<string, unknown> = { ...chat };
  let found = false;
  for (const name of LIMITS) {
    const value = limited[name];
    if (typeof value !== "number") continue;
    found = true;
    limited[name] = Math.min(value, most);
  }
  if (!found) limited["max_completion_tokens"] = most;
  return limited;
}

function newMeasure(): TextMeasure {
  return { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) };
}

class TranslatedAnswer implements AnswerReading {
  readonly valid: boolean;
  readonly usage: unknown;
  private readonly chat: Json;
  private readonly client: ChatClient | null;
  private readonly context: HubContext;
  private measured: TextMeasure | null = null;
  private made: Buffer | null = null;

  constructor(chat: Json | null, client: ChatClient | null, context: HubContext) {
    this.valid = chat !== null;
    this.chat = chat ?? {};
    this.usage = this.chat["usage"] ?? null;
    this.client = client;
    this.context = context;
  }

  get bytes(): Buffer {
    this.made ??= Buffer.from(JSON.stringify(this.answer()));
    return this.made;
  }

  textBytes(): number {
    return this.measure().bytes;
  }

  sample(): TextSample {
    return this.measure().sampler.sample();
  }

  hasContent(): boolean {
    return this.measure().content;
  }

  private answer(): Json {
    const { chat, client, context } = this;
    if (client !== null) return client.answer(chat, context);
    const { id, createdS, model } = context;
    return { id: `chatcmpl-${id}`, object: "chat.completion", created: createdS, model, ...chat };
  }

  private measure(): TextMeasure {
    if (this.measured !== null) return this.measured;
    this.measured = newMeasure();
    for (const choice of listOf(this.chat["choices"])) measureValue(objectOf(choice)["message"], this.measured);
    return this.measured;
  }
}

class TranslatedStream implements StreamReader {
  pieces = 0;
  finished = false;
  private readonly source: ChatSource;
  private readonly sink: ChatSink;
  private readonly measure = newMeasure();
  /** What the last event is in the client's format. */
  private out = "";
  private ended = false;

  constructor(source: ChatSource, sink: ChatSink) {
    this.source = source;
    this.sink = sink;
  }

  get usage(): unknown {
    return this.source.usage;
  }

  get textBytes(): number {
    return this.measure.bytes;
  }

  sample(): TextSample {
    return this.measure.sampler.sample();
  }

  read(event: SseEvent, exact: boolean): FrameKind {
    this.out = "";
    const state = this.source.read(event);
    if (state === SourceState.ERROR) return FrameKind.ERROR;
    if (state === SourceState.BROKEN) return FrameKind.BROKEN;
    const content = this.take();
    if (state === SourceState.DONE) {
      // An answer can say why it ended in the very event that ends it, without any content before.
      if (exact && content) return FrameKind.CONTENT;
      this.out += this.end();
      return FrameKind.DONE;
    }
    if (content) return FrameKind.CONTENT;
    return event.data === null ? FrameKind.COMMENT : FrameKind.EMPTY;
  }

  replacement(): Buffer {
    return this.out === "" ? NOTHING : Buffer.from(this.out);
  }

  ending(): Buffer {
    return Buffer.from(this.end());
  }

  lengthFrame(): Buffer {
    return Buffer.from(this.sink.cut(this.source.usage));
  }

  /** The deltas of the last event. True: a client can use them. */
  private take(): boolean {
    const { source, sink, measure } = this;
    measure.content = false;
    let finish = false;
    for (const each of source.deltas) {
      measureValue(each.delta, measure);
      if (each.finishReason !== null) finish = true;
      this.out += sink.push(each);
    }
    if (finish || source.finished) this.finished = true;
    if (measure.content) this.pieces++;
    return measure.content || finish;
  }

  private end(): string {
    if (this.ended) return "";
    this.ended = true;
    this.finished = true;
    return this.sink.end(this.source.usage);
  }
}

const NOTHING = Buffer.alloc(0);

export interface TranslatedParts {
  /** Null: it speaks chat completions. */
  readonly client: ChatClient | null;
  readonly upstream: ChatUpstream;
  /** Absent: server-sent events. */
  readonly splitter?: () => FrameSplitter;
  /** The media type of a stream; absent: that of server-sent events. */
  readonly streamType?: string;
}

export function translated({ client, upstream, splitter, streamType }: TranslatedParts): Bridge {
  return {
    translated: true,
    whole: true,
    request(pm, asked) {
      const { stream } = asked;
      const body = bodyOf(asked);
      // Also a limit in a field that the client's endpoint does not know: what is held goes by it.
      const most = asked.clampTo ?? (asked.body.outputTokensMax || null);
      const chat = clamped(client === null ? body : client.request(body), most);
      const call = upstream.request(chat, targetOf(pm, stream));
      return outbound(pm, call, stream ? (streamType ?? "text/event-stream") : "application/json");
    },
    error: (status, headers, body) => upstream.error(status, headers, body),
    readAnswer(bytes, asked, pm) {
      const body = parseObject(bytes);
      const chat = body === null ? null : upstream.answer(body, targetOf(pm, asked.stream));
      return new TranslatedAnswer(chat, client, contextOf(asked));
    },
    readTail: () => null,
    streamReader(asked, pm) {
      const context = contextOf(asked);
      const sink = client === null ? new ChatChunkSink(context, asked.body.usageAsked) : client.sink(context);
      return new TranslatedStream(upstream.source(targetOf(pm, true)), sink);
    },
    splitter: splitter ?? (() => new SseSplitter()),
  };
}
