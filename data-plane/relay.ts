/**
 * How an answer travels from the upstream to the client: JSON answers whole, streams frame by frame as they come. Relays
 * decide what is content and what is the end; `proxy.ts` decides what follows from it.
 */

import type { Admitted } from "./admitted.ts";
import type { UnitQuantity } from "../core/meters.ts";
import {
  type AnswerReading,
  type Bridge,
  FrameKind,
  type FrameSplitter,
  type LongReading,
  type StreamReader,
} from "./formats/format.ts";
import { estimateTokens } from "./meter.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, type TextSource } from "./tokenizer/tokens.ts";
import { BytesRelay } from "./bytes_relay.ts";
import type { RoutePm } from "./route_types.ts";
import { FrameError, type SseEvent } from "./sse.ts";
import type { AnswerHead } from "./upstream_head.ts";

/** JSON answers up to this size are checked whole before they are sent; the rest of a longer one passes through. */
export const ANSWER_BUFFER_BYTES_MAX = 1024 * 1024;
/** How much of the end of a longer answer is kept to find its usage in. */
export const ANSWER_TAIL_BYTES = 64 * 1024;
/** Answers that are changed are kept whole, up to this size. */
export const WHOLE_BYTES_MAX = 64 * 1024 * 1024;
/** Frames without content that are held back before the answer begins; more of them are an error. */
export const HELD_BYTES_MAX = 4 * 1024 * 1024;

/** What an upstream has delivered so far. */
export interface Delivered {
  /** The usage object as reported, null if none was. */
  readonly usage: unknown;
  /** What was delivered of Units that are no tokens. */
  readonly counted: readonly UnitQuantity[];
  /** Estimate of the output tokens that arrived. */
  readonly outputTokens: number;
  /** Least number of output tokens that arrived: one for each piece of a stream. */
  readonly pieces: number;
  readonly hasContent: boolean;
  /** The generated text for the tokenizer; null: none was kept. */
  readonly text: TextSource | null;
}

/** What a relay tells the request it works for. */
export interface RelayHost {
  /** The answer begins: the head goes to the client. `bytes` is the length of the answer if it is known. */
  commit(contentType: string, bytes: number | null): void;
  /** Sends bytes to the client, unless it is gone. */
  write(bytes: Uint8Array): void;
  /** The answer is no answer, and why, in a word; nothing was sent. */
  badAnswer(detail: string): void;
  /** The answer is whole. `final` is sent once the settlement is journaled. */
  complete(final: Uint8Array | null): void;
  /** The answer broke after it began, and how, in a word. */
  broken(detail: string): void;
  /** So much generated text arrived by now. The host stops the relay when the wallet covers no more. */
  metered(textBytes: number, pieces: number): void;
}

export interface Relay {
  /** The head was sent. */
  readonly committed: boolean;
  onChunk(chunk: Buffer): void;
  onEnd(): void;
  delivered(): Delivered;
  /** Frames that end a stream whose length the wallet cut; null if there is no such thing. */
  lengthFrame(choices: number): Buffer | null;
  /** Takes no more notice of the upstream. */
  stop(): void;
}

/** The relay for an answer whose head came. */
export function relayFor(host: RelayHost, bridge: Bridge, request: Admitted, pm: RoutePm, head: AnswerHead): Relay {
  if (streams(bridge, request, head)) return new StreamRelay(host, bridge, request, pm, head);
  const reading = bridge.bytesReading?.(request);
  if (reading !== undefined) return new BytesRelay(host, reading, head);
  return new JsonRelay(host, bridge, request, pm, head);
}

/** The answer is, or should be, a stream. */
export function streams(bridge: Bridge, { stream, endpoint }: Admitted, head: AnswerHead): boolean {
  if (bridge.mayAnswerWhole !== true) return stream;
  // Speech says by a field of its own whether its bytes come in frames.
  return endpoint.streams && head.contentType.includes("event-stream");
}

/** What is made anew has a type of our own. */
function contentTypeOf(bridge: Bridge, head: AnswerHead): string {
  return bridge.translated ? "" : head.contentType;
}

const NO_UNITS: readonly UnitQuantity[] = [];

/** Its text is only measured where the usage cannot be used. */
class WholeAnswer implements Delivered {
  readonly usage: unknown;
  readonly counted: readonly UnitQuantity[];
  readonly pieces = 0;
  readonly text: TextSource;
  private readonly reading: AnswerReading;

  constructor(reading: AnswerReading) {
    this.reading = reading;
    this.usage = reading.usage;
    this.counted = reading.counted ?? NO_UNITS;
    this.text = reading;
  }

  get outputTokens(): number {
    return estimateTokens(this.reading.textBytes(), 0);
  }

  get hasContent(): boolean {
    return this.reading.hasContent();
  }
}

class JsonRelay implements Relay {
  committed = false;
  private readonly host: RelayHost;
  private readonly bridge: Bridge;
  private readonly request: Admitted;
  private readonly pm: RoutePm;
  private readonly head: AnswerHead;
  private chunks: Buffer[] = [];
  private bytes = 0;
  private stopped = false;
  private whole: Delivered | null = null;
  /** Of an answer that is too long to keep. */
  private long: LongReading | null = null;

  constructor(host: RelayHost, bridge: Bridge, request: Admitted, pm: RoutePm, head: AnswerHead) {
    this.host = host;
    this.bridge = bridge;
    this.request = request;
    this.pm = pm;
    this.head = head;
  }

  onChunk(chunk: Buffer): void {
    if (this.stopped) return;
    this.chunks.push(chunk);
    this.bytes += chunk.length;
    this.long?.push(chunk);
    if (this.committed) this.passOn();
    else if (this.bytes > ANSWER_BUFFER_BYTES_MAX) this.overflow();
  }

  onEnd(): void {
    if (this.stopped) return;
    const rest = this.chunks.length === 1 ? this.chunks[0]! : Buffer.concat(this.chunks);
    if (this.committed) {
      this.whole = this.longAnswer(rest);
      this.host.complete(rest);
      return;
    }
    const { bridge, head } = this;
    const reading = bridge.readAnswer(rest, this.request, this.pm, head.headers);
    if (!reading.valid) return this.host.badAnswer(rest.length === 0 ? "empty" : "not_an_answer");
    this.whole = new WholeAnswer(reading);
    this.committed = true;
    const bytes = reading.bytes ?? rest;
    this.host.commit(contentTypeOf(bridge, head), bytes.length);
    this.host.complete(bytes);
  }

  delivered(): Delivered {
    if (this.whole !== null) return this.whole;
    const hasContent = this.bytes > 0;
    const outputTokens = estimateTokens(this.bytes, 0);
    // What went out already counts, whether or not the rest comes: an image is not free for who leaves before its end.
    const counted = this.long?.counted ?? NO_UNITS;
    return { usage: null, counted, outputTokens, pieces: 0, hasContent, text: null };
  }

  lengthFrame(): null {
    return null;
  }

  stop(): void {
    this.stopped = true;
    this.chunks = [];
  }

  /** Too long to be kept: what looks like an answer begins now. */
  private overflow(): void {
    if (this.bridge.whole) {
      if (this.bytes <= WHOLE_BYTES_MAX) return;
      this.stop();
      return this.host.badAnswer("too_large");
    }
    const start = this.chunks[0]!.toString("latin1", 0, 64).trimStart();
    if (!start.startsWith("{") || start.startsWith('{"error"')) {
      this.stop();
      return this.host.badAnswer("not_an_answer");
    }
    this.long = this.bridge.longReading?.(this.request) ?? null;
    for (const chunk of this.chunks) this.long?.push(chunk);
    this.committed = true;
    this.host.commit(this.head.contentType, null);
    this.passOn();
  }

  /** Sends all but the tail, which may hold the usage and must not leave before the settlement is journaled. */
  private passOn(): void {
    let kept = 0;
    let from = this.chunks.length;
    while (from > 0 && kept < ANSWER_TAIL_BYTES) kept += this.chunks[--from]!.length;
    for (const chunk of this.chunks.splice(0, from)) this.host.write(chunk);
  }

  private longAnswer(tail: Buffer): Delivered {
    return {
      usage: this.long === null ? this.bridge.readTail(tail) : this.long.usage,
      counted: this.long?.counted ?? NO_UNITS,
      outputTokens: estimateTokens(this.bytes, 0),
      pieces: 0,
      hasContent: true,
      text: { sample: () => ({ bytes: tail.subarray(0, OUTPUT_SAMPLE_BYTES_MAX), textBytes: this.bytes, tokens: 0 }) },
    };
  }
}

class StreamRelay implements Relay {
  committed = false;
  private readonly host: RelayHost;
  private readonly reader: StreamReader;
  private readonly splitter: FrameSplitter;
  private readonly event: SseEvent = { event: "", data: null };
  private readonly contentType: string;
  private stopped = false;
  private hasContent = false;
  /** Frames that wait for the first content. */
  private held: Buffer[] = [];
  private heldBytes = 0;
  /** Frames of the present chunk that go out untouched: `source[from..to)`. */
  private source: Buffer = NOTHING;
  private from = 0;
  private to = 0;
  private ready: Uint8Array[] = [];
  private meteredPieces = 0;

  constructor(host: RelayHost, bridge: Bridge, request: Admitted, pm: RoutePm, head: AnswerHead) {
    this.host = host;
    this.reader = bridge.streamReader(request, pm);
    this.splitter = bridge.splitter();
    this.contentType = contentTypeOf(bridge, head);
  }

  onChunk(chunk: Buffer): void {
    if (this.stopped) return;
    try {
      this.splitter.push(chunk, this.onFrame);
    } catch (error) {
      return this.unreadable(error);
    }
    this.flush();
  }

  onEnd(): void {
    if (this.stopped) return;
    try {
      this.splitter.finish(this.onFrame);
    } catch (error) {
      return this.unreadable(error);
    }
    this.flush();
    if (this.stopped) return;
    if (!this.committed) return this.fail("empty");
    // A stream without [DONE] is whole if its choices ended or its usage came.
    if (this.reader.finished || this.reader.usage !== null) this.end(this.reader.ending?.() ?? null);
    else this.fail("ended_early");
  }

  delivered(): Delivered {
    const { reader, hasContent } = this;
    const { usage, textBytes, pieces, counted = NO_UNITS } = reader;
    return { usage, counted, outputTokens: estimateTokens(textBytes, pieces), pieces, hasContent, text: reader };
  }

  lengthFrame(choices: number): Buffer {
    return this.reader.lengthFrame(choices);
  }

  stop(): void {
    this.stopped = true;
    this.held = [];
  }

  private readonly onFrame = (buffer: Buffer, start: number, end: number): void => {
    if (this.stopped) return;
    const { reader, event } = this;
    this.splitter.parse(buffer, start, end, event);
    switch (reader.read(event, !this.committed)) {
      case FrameKind.DONE:
        if (!this.committed) return this.fail("empty");
        return this.end(reader.replacement(buffer, start, end) ?? buffer.subarray(start, end));
      case FrameKind.ERROR:
        return this.fail("error_frame");
      case FrameKind.BROKEN:
        return this.fail("broken_frame");
      case FrameKind.USAGE_ONLY:
        return;
      case FrameKind.CONTENT:
        if (reader.pieces > 0) this.hasContent = true;
        if (!this.committed) this.begin();
        this.forward(buffer, start, end);
        this.meter();
        return;
      default:
        if (this.committed) this.forward(buffer, start, end);
        else this.hold(buffer, start, end, event.data === null);
    }
  };

  private begin(): void {
    this.committed = true;
    this.host.commit(this.contentType, null);
    this.ready.push(...this.held);
    this.held = [];
  }

  /** Frame by frame, since many may come at once. The one that crosses the line has arrived, and still goes out. */
  private meter(): void {
    const { textBytes, pieces } = this.reader;
    if (pieces === this.meteredPieces) return;
    this.meteredPieces = pieces;
    this.host.metered(textBytes, pieces);
  }

  private forward(buffer: Buffer, start: number, end: number): void {
    const replacement = this.reader.replacement(buffer, start, end);
    if (replacement !== null) {
      if (replacement.length === 0) return;
      this.closeRange();
      this.ready.push(replacement);
    } else if (this.source === buffer && this.to === start) {
      this.to = end;
    } else {
      this.closeRange();
      this.source = buffer;
      this.from = start;
      this.to = end;
    }
  }

  private closeRange(): void {
    if (this.to > this.from) this.ready.push(this.takeRange());
  }

  /** Views cost more than they look: what is forwarded whole, as most chunks are, goes as it is. */
  private takeRange(): Buffer {
    const { source, from, to } = this;
    this.source = NOTHING;
    this.from = this.to = 0;
    return from === 0 && to === source.length ? source : source.subarray(from, to);
  }

  private flush(): void {
    if (this.ready.length === 0) {
      if (this.to > this.from) this.host.write(this.takeRange());
      return;
    }
    this.closeRange();
    const { ready } = this;
    this.ready = [];
    this.host.write(ready.length === 1 ? ready[0]! : Buffer.concat(ready));
  }

  /** Comments beyond the limit are forgotten, since upstreams send them for as long as they think. */
  private hold(buffer: Buffer, start: number, end: number, comment: boolean): void {
    if (this.heldBytes + end - start <= HELD_BYTES_MAX) {
      const replacement = this.reader.replacement(buffer, start, end);
      this.held.push(replacement ?? Buffer.from(buffer.subarray(start, end)));
      this.heldBytes += end - start;
    } else if (!comment) {
      this.fail("no_content");
    }
  }

  private end(final: Uint8Array | null): void {
    this.flush();
    this.stop();
    this.host.complete(final);
  }

  private unreadable(error: unknown): void {
    if (!(error instanceof FrameError)) throw error;
    this.fail(error.detail);
  }

  private fail(detail: string): void {
    this.flush();
    this.stop();
    if (this.committed) this.host.broken(detail);
    else this.host.badAnswer(detail);
  }
}

/** What ends a stream that was cut: with `choices`, that its length was the reason; then the error. */
export function lastFrames(relay: Relay, choices: number, error: Buffer): Buffer {
  const length = choices === 0 ? null : relay.lengthFrame(choices);
  return length === null ? error : Buffer.concat([length, error]);
}

const NOTHING = Buffer.alloc(0);
