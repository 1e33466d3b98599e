/** What the pipeline needs of a wire format. Adapters are pure: `proxy.ts` does the I/O. */

import type { ErrorAnswer, ErrorFields } from "../errors.ts";
import type { FailureKind } from "../health.ts";
import type { RoutePm, RouteProvider } from "../route_types.ts";
import type { BodyChanges, ScannedBody } from "../body.ts";
import type { SseEvent } from "../sse.ts";
import type { TextSource } from "../tokenizer/tokens.ts";
import type { OutboundRequest } from "../transport.ts";

/** An API path of the gateway. `number` equals `tokenbill.v1.Endpoint`. */
export interface EndpointSpec {
  readonly number: number;
  /** After the base URL. */
  readonly path: string;
  /** False: its answers have no output tokens. */
  readonly hasOutput: boolean;
  /** `stream: true` means something. */
  readonly streams: boolean;
  /** `/tokenbill` is looked for in `messages`. */
  readonly chat: boolean;
  readonly bodyBytesMax: number;
}

/** What an upstream status that is not 2xx leads to. */
export interface StatusVerdict {
  /** True: the client's own fault, told to it; no other target is tried. */
  readonly clientFault: boolean;
  readonly health: FailureKind;
}

/** What a whole JSON answer says. */
export interface AnswerReading extends TextSource {
  /** False: this is no answer (broken, empty, an error inside a 200). */
  readonly valid: boolean;
  /** The usage object as the upstream sent it, null if it sent none. */
  readonly usage: unknown;
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
  /** The last usage object that was not null. Never summed. */
  readonly usage: unknown;
  readonly textBytes: number;
  /** Frames with content. */
  readonly pieces: number;
  /** A choice said why it ended, or the end of the stream was marked. */
  readonly finished: boolean;
  /** @param exact check the whole frame: for the frames before the answer begins */
  read(event: SseEvent, exact: boolean): FrameKind;
  /** The bytes to send instead of the last frame read, null to send it as it came. */
  replacement(buffer: Buffer, start: number, end: number): Buffer | null;
  /** A frame that ends every choice with `finish_reason: "length"`. */
  lengthFrame(choices: number): Buffer;
}

export interface Format {
  request(
    pm: RoutePm,
    endpoint: EndpointSpec,
    body: ScannedBody,
    changes: BodyChanges,
    forwarded: readonly string[],
  ): OutboundRequest;
  /** Which field an answer's length is limited with when the client used none. */
  outputTokensField(provider: RouteProvider, endpoint: EndpointSpec): BodyChanges["outputTokensField"];
  classify(status: number, body: Buffer): StatusVerdict;
  /** The upstream's code of a refusal, for the request log; "" if it gave none, or one that tells of its account. */
  refusalCode(body: Buffer, provider: RouteProvider): string;
  /** The client's view of a refusal: the upstream's words without anything of its account. */
  refusal(status: number, body: Buffer, provider: RouteProvider): ErrorAnswer;
  readAnswer(body: Buffer, endpoint: EndpointSpec): AnswerReading;
  /** The usage object in the last bytes of an answer that was too long to keep. */
  readTail(tail: Buffer): unknown;
  streamReader(endpoint: EndpointSpec, stripUsage: boolean): StreamReader;
  errorFrame(fields: ErrorFields): Buffer;
}
