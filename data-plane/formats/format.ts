/** What the pipeline needs of a wire format. Adapters are pure: `proxy.ts` does the I/O. */

import type { UnitQuantity } from "../../core/meters.ts";
import type { ScannedBody } from "../body.ts";
import type { RoutePm } from "../route_types.ts";
import type { OnFrame, SseEvent } from "../sse.ts";
import type { TextSource } from "../tokenizer/tokens.ts";
import type { BodySource, OutboundRequest } from "../transport.ts";
import type { UpstreamError } from "./hub.ts";

/** How a client speaks, and in which shape it reads errors. */
export type ClientShape = "chat" | "completions" | "responses" | "messages" | "openai";

/** An API path of the gateway. `number` equals `tokenbill.v1.Endpoint`. */
export interface EndpointSpec {
  readonly number: number;
  /** After the base URL. */
  readonly path: string;
  readonly shape: ClientShape;
  /** False: its answers have no output tokens. */
  readonly hasOutput: boolean;
  /** `stream: true` means something. */
  readonly streams: boolean;
  /** `/tokenbill` is looked for among its messages. */
  readonly chat: boolean;
  /** Forms (multipart/form-data): refused, taken besides JSON, or in place of it. */
  readonly forms: "no" | "also" | "only";
  /** The kinds of Units that it can consume, as `kindBits` gives them. A target's price must cover one of them. */
  readonly kinds: number;
  /** What an upstream does not report of tokens is counted by a tokenizer. */
  readonly estimated: boolean;
  /** Of a JSON body. */
  readonly bodyBytesMax: number;
  /** Of a form, which is not held in memory. */
  readonly formBytesMax: number;
}

/** What a call is made of, besides its target. */
export interface Asked {
  readonly id: string;
  readonly arriveMs: number;
  readonly endpoint: EndpointSpec;
  readonly body: ScannedBody;
  readonly stream: boolean;
  /** The most output tokens of an answer, null: as the client wishes. */
  readonly clampTo: number | null;
  /** Of the VE: see `pins.ts`. */
  readonly pinSecret: string;
  /** The response that it continues, as the upstream knows it; null: none. */
  readonly previousId: string | null;
  /** The form with files that the client sent in place of a JSON body; null: it sent one. */
  readonly form: AskedForm | null;
  /** How long the recording is that it sent, in thousandths of a second: measured, or guessed; null: there is none. */
  readonly mediaSeconds: number | null;
}

export interface AskedForm {
  readonly contentType: string;
  /** For one call: with the model's name at that upstream. */
  source(upstreamName: string): BodySource;
  /** It is needed no more. */
  close(): void;
}

/** What a whole answer says. */
export interface AnswerReading extends TextSource {
  /** False: this is no answer (broken, empty, an error inside a 200). */
  readonly valid: boolean;
  /** The usage object, in the shape that `hub.ts` gives; null if there is none. */
  readonly usage: unknown;
  /** What it has of Units that are no tokens. */
  readonly counted?: readonly UnitQuantity[];
  /** What the client gets in place of the upstream's bytes. Absent: those. */
  readonly bytes?: Buffer;
  /** Bytes of generated text, for estimates. */
  textBytes(): number;
  /** Whether something was generated. Embeddings: always. */
  hasContent(): boolean;
}

export const FrameKind = {
  /** Nothing that a client could use: a comment, a role, an empty delta. */
  EMPTY: 0,
  /** Generated content, or the reason why it ended. */
  CONTENT: 1,
  /** The end of the stream. */
  DONE: 2,
  /** The upstream reports an error. */
  ERROR: 3,
  /** Not what the format allows. */
  BROKEN: 4,
  /** Only usage, which the client did not ask for: leave it out. */
  USAGE_ONLY: 5,
  /** A comment or a field without data. */
  COMMENT: 6,
} as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

/** Reads a stream, frame by frame. */
export interface StreamReader extends TextSource {
  /** The last usage object that was not null, in the shape that `hub.ts` gives. Never summed. */
  readonly usage: unknown;
  readonly textBytes: number;
  /** Frames with content. */
  readonly pieces: number;
  /** A choice said why it ended, or the end of the stream was marked. */
  readonly finished: boolean;
  /** What came of Units that are no tokens. */
  readonly counted?: readonly UnitQuantity[];
  /** @param exact check the whole frame: for the frames before the answer begins */
  read(event: SseEvent, exact: boolean): FrameKind;
  /** The bytes to send instead of the last frame read, null to send it as it came; none at all if they are empty. */
  replacement(buffer: Buffer, start: number, end: number): Buffer | null;
  /** What is still to be sent of a whole stream that closed without a mark of its end. Absent: nothing. */
  ending?(): Buffer | null;
  /** A frame that says of every choice that it ended for its length. */
  lengthFrame(choices: number): Buffer;
}

/** Cuts a stream into frames. @throws FrameError */
export interface FrameSplitter {
  push(chunk: Buffer, onFrame: OnFrame): void;
  /** The stream is over: what came after the last whole frame may be one as well. */
  finish(onFrame: OnFrame): void;
  parse(buffer: Buffer, start: number, end: number, out: SseEvent): void;
}

export type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** Reads an answer that is too long to keep. Every chunk is pushed, in their order. */
export interface LongReading {
  push(chunk: Buffer): void;
  readonly usage: unknown;
  readonly counted: readonly UnitQuantity[];
}

/** How an endpoint is served by an upstream of some format. PURE. */
export interface Bridge {
  /** The client does not see the upstream's own bytes, so that answers must be kept whole and streams are made anew. */
  readonly translated: boolean;
  /** An answer that should be a stream may be none; absent: that is an error. */
  readonly mayAnswerWhole?: boolean;
  /** Answers are kept until they are whole, however long they are, since they are changed. */
  readonly whole: boolean;
  /** The call without its credentials. @throws RefusedFieldError */
  request(pm: RoutePm, asked: Asked, forwarded: readonly string[]): OutboundRequest;
  /** Reads an answer that is not 2xx. */
  error(status: number, headers: AnswerHeaders, body: Buffer): UpstreamError;
  readAnswer(body: Buffer, asked: Asked, pm: RoutePm, headers: AnswerHeaders): AnswerReading;
  /** The usage object in the last bytes of an answer that was too long to keep. */
  readTail(tail: Buffer): unknown;
  /** For answers that must be read to their end however long they are; absent: `readTail` is enough. */
  longReading?(asked: Asked): LongReading;
  /** For answers that are neither JSON nor frames: they pass through as they come. Absent: there are none. */
  bytesReading?(asked: Asked): LongReading;
  streamReader(asked: Asked, pm: RoutePm): StreamReader;
  splitter(): FrameSplitter;
}
