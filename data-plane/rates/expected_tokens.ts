/** PURE. What a request is expected to use of limits of tokens, before anything is known of its answer. */

import { STREAM_OUTPUT_TOKENS, type RequestSize } from "../budget/estimate.ts";
import { BYTES_PER_TOKEN } from "../meter.ts";
import { AUDIO_BYTES_PER_TOKEN, IMAGE_TOKENS } from "../tokenizer/input.ts";

/** Tokens that a request is expected to use, and how many of them are its input. */
export interface ExpectedTokens {
  readonly all: number;
  readonly input: number;
}

/** Below this no media are looked for: they count little. */
const MEDIA_BODY_BYTES_MIN = 16 * 1024;
/** Before the content of a data URL, and of audio. */
const DATA_URL = Buffer.from(";base64,");
const AUDIO = Buffer.from('"input_audio"');
const DATA_KEY = Buffer.from('"data"');
const QUOTE = 0x22;

interface Media {
  bytes: number;
  tokens: number;
}

/** Where the string that `at` stands in, or before, ends. Base64 has no escapes. */
function stringEnd(body: Buffer, at: number): number {
  const end = body.indexOf(QUOTE, at);
  return end === -1 ? body.length : end;
}

/** Images and files by data URL: so many bytes are no text. */
function countDataUrls(body: Buffer, media: Media): void {
  for (let at = body.indexOf(DATA_URL); at !== -1;) {
    const end = stringEnd(body, at);
    media.bytes += end - at;
    media.tokens += IMAGE_TOKENS;
    at = body.indexOf(DATA_URL, end);
  }
}

function countAudio(body: Buffer, media: Media): void {
  for (let at = body.indexOf(AUDIO); at !== -1;) {
    const key = body.indexOf(DATA_KEY, at);
    if (key === -1) return;
    const start = stringEnd(body, key + DATA_KEY.length) + 1;
    const end = stringEnd(body, start);
    media.bytes += Math.max(0, end - start);
    media.tokens += Math.ceil(Math.max(0, end - start) / AUDIO_BYTES_PER_TOKEN);
    at = body.indexOf(AUDIO, end);
  }
}

/** The input by its bytes, but for media, and as long an answer as is expected. */
export function expectedTokens(body: Buffer, size: RequestSize): ExpectedTokens {
  const { hasOutput, outputTokensMax, answers } = size;
  const media: Media = { bytes: 0, tokens: 0 };
  if (body.length >= MEDIA_BODY_BYTES_MIN) {
    countDataUrls(body, media);
    countAudio(body, media);
  }
  const input = Math.ceil(Math.max(0, body.length - media.bytes) / BYTES_PER_TOKEN) + media.tokens;
  return { input, all: hasOutput ? input + (outputTokensMax || STREAM_OUTPUT_TOKENS) * answers : input };
}
