/**
 * PURE. How much there is in a conversation, and in the response that is being made, in tokens: for what a turn holds of
 * the wallet, and for bills where the upstream reports nothing. After each reported usage the conversation is known
 * exactly, and only what came since is estimated.
 */

import { Meter, type UnitQuantity } from "../../core/meters.ts";
import { BYTES_PER_TOKEN, estimateTokens } from "../meter.ts";
import { IMAGE_TOKENS } from "../tokenizer/input.ts";
import { type Fields, fieldsOf, type Media } from "./events.ts";
import { INPUT_AUDIO_TOKENS_PER_S, type InputTokens, OUTPUT_AUDIO_TOKENS_PER_S, type OutputTokens } from "./usage.ts";

/** Of `audio/pcm`: 24 kHz, 16 bits, one channel. G.711 has a byte for each of 8000 samples. */
const PCM_BYTES_PER_S = 48_000;
const G711_BYTES_PER_S = 8_000;

/** Bytes per second of an audio format: `{type, rate}`, or a name of the older API. */
function bytesPerSecond(format: unknown): number {
  const { type, rate } = fieldsOf(format) as { type?: unknown; rate?: unknown };
  const name = typeof format === "string" ? format : typeof type === "string" ? type : "";
  if (/pcmu|pcma|g711/.test(name)) return G711_BYTES_PER_S;
  return typeof rate === "number" && rate >= 8_000 && rate <= 48_000 ? 2 * rate : PCM_BYTES_PER_S;
}

function secondsOf(base64Bytes: number, perSecond: number): number {
  return (base64Bytes * 3) / 4 / perSecond;
}

function quantityOf(units: readonly UnitQuantity[], meters: readonly Meter[]): number {
  let sum = 0;
  for (const { meter, quantity } of units) if (meters.includes(meter)) sum += quantity;
  return sum;
}

const { INPUT_TOKENS, CACHED_INPUT_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS, AUDIO_INPUT_TOKENS } = Meter;
const { AUDIO_OUTPUT_TOKENS, IMAGE_INPUT_TOKENS } = Meter;

/** The conversation of a session, its instructions and tools included. */
export class Conversation {
  /** Of the last reported usage. */
  private known = { text: 0, audio: 0, image: 0 };
  /** Since then. */
  private textBytes = 0;
  private audioS = 0;
  private images = 0;
  /** Audio that was sent and is not yet part of the conversation. */
  private bufferedS = 0;
  private spokenFromMs = -1;
  private spokenMs = -1;
  private sessionBytes = 0;
  private inputBytesPerS = PCM_BYTES_PER_S;
  outputBytesPerS = PCM_BYTES_PER_S;
  /** The session's own limit of output tokens for each response, 0: none. */
  outputLimit = 0;

  /** `session.created` or `session.updated`, of so many bytes: most of them are instructions and tools. */
  session(session: Fields, bytes: number): void {
    const audio = fieldsOf(session["audio"]);
    this.inputBytesPerS = bytesPerSecond(fieldsOf(audio["input"])["format"] ?? session["input_audio_format"]);
    this.outputBytesPerS = bytesPerSecond(fieldsOf(audio["output"])["format"] ?? session["output_audio_format"]);
    this.textBytes += Math.max(0, bytes - this.sessionBytes);
    this.sessionBytes = bytes;
  }

  appended(base64Bytes: number): void {
    this.bufferedS += secondsOf(base64Bytes, this.inputBytesPerS);
  }

  cleared(): void {
    this.bufferedS = 0;
  }

  speechStarted(atMs: unknown): void {
    this.spokenFromMs = typeof atMs === "number" ? atMs : -1;
  }

  speechStopped(atMs: unknown): void {
    const known = typeof atMs === "number" && this.spokenFromMs >= 0 && atMs >= this.spokenFromMs;
    this.spokenMs = known ? (atMs as number) - this.spokenFromMs : -1;
  }

  /** What was sent is part of the conversation now; with voice detection only what was spoken. */
  committed(): void {
    this.audioS += this.spokenMs >= 0 ? Math.min(this.spokenMs / 1000, this.bufferedS) : this.bufferedS;
    this.bufferedS = 0;
    this.spokenMs = this.spokenFromMs = -1;
  }

  added({ textBytes, audioBytes, images }: Media): void {
    this.textBytes += textBytes;
    this.audioS += secondsOf(audioBytes, this.inputBytesPerS);
    this.images += images;
  }

  /** A response of the conversation was made, with this usage: its output is input from now on. */
  used(units: readonly UnitQuantity[]): void {
    this.known = {
      text: quantityOf(units, [INPUT_TOKENS, CACHED_INPUT_TOKENS, OUTPUT_TOKENS, REASONING_TOKENS]),
      audio: quantityOf(units, [AUDIO_INPUT_TOKENS, AUDIO_OUTPUT_TOKENS]),
      image: quantityOf(units, [IMAGE_INPUT_TOKENS]),
    };
    this.textBytes = this.audioS = this.images = 0;
  }

  /** `worst`: no text has more tokens than bytes. */
  tokens(worst: boolean): InputTokens {
    const { known } = this;
    return {
      text: known.text + Math.ceil(this.textBytes / (worst ? 1 : BYTES_PER_TOKEN)),
      audio: known.audio + Math.ceil(this.audioS * INPUT_AUDIO_TOKENS_PER_S),
      image: known.image + this.images * IMAGE_TOKENS,
    };
  }
}

const AUDIO_DELTAS = new Set(["response.output_audio.delta", "response.audio.delta"]);
const TEXT_DELTAS = new Set([
  "response.output_text.delta",
  "response.text.delta",
  "response.output_audio_transcript.delta",
  "response.audio_transcript.delta",
  "response.function_call_arguments.delta",
  "response.mcp_call_arguments.delta",
]);

/** True: such an event carries a piece of an answer. */
export function isDelta(type: string): boolean {
  return AUDIO_DELTAS.has(type) || TEXT_DELTAS.has(type);
}

/** What has arrived of one response. */
export class Answer {
  private textBytes = 0;
  private pieces = 0;
  private audioBytes = 0;

  delta(type: string, bytes: number): void {
    if (AUDIO_DELTAS.has(type)) this.audioBytes += bytes;
    else {
      this.textBytes += bytes;
      this.pieces++;
    }
  }

  get hasContent(): boolean {
    return this.pieces > 0 || this.audioBytes > 0;
  }

  tokens(bytesPerS: number): OutputTokens {
    return {
      text: estimateTokens(this.textBytes, this.pieces),
      audio: Math.ceil(secondsOf(this.audioBytes, bytesPerS) * OUTPUT_AUDIO_TOKENS_PER_S),
    };
  }
}
