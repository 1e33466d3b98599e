/**
 * PURE. What of a JSON body is no text but media in base64: images, audio and files, in the shapes of OpenAI and Anthropic.
 * Found by native searches, without parsing.
 */

import { AUDIO_BYTES_PER_TOKEN, IMAGE_TOKENS } from "./input.ts";

/** No image costs more input than this at any upstream that is known; most cost a tenth of it. */
export const IMAGE_TOKENS_MAX = 16_384;
/** Below this no media are looked for: they count little. */
const MEDIA_BODY_BYTES_MIN = 16 * 1024;
/** Before the content of a data URL, and of audio. */
const DATA_URL = Buffer.from(";base64,");
const AUDIO = Buffer.from('"input_audio"');
const DATA_KEY = Buffer.from('"data"');
/** Anthropic's way to say what the base64 in `data` is. */
const MEDIA_TYPE = Buffer.from('"media_type"');
const IMAGE = Buffer.from("image/");
/** How far apart the fields of one source stand. */
const SOURCE_BYTES_MAX = 128;
const QUOTE = 0x22;

export interface Media {
  /** Bytes of base64. */
  readonly bytes: number;
  /** Tokens that they are expected to be. */
  readonly tokens: number;
  /** Of `bytes`, those of images, and the most tokens that these can be. */
  readonly imageBytes: number;
  readonly imageTokensMax: number;
}

const NO_MEDIA: Media = { bytes: 0, tokens: 0, imageBytes: 0, imageTokensMax: 0 };

class Counting {
  bytes = 0;
  tokens = 0;
  imageBytes = 0;
  imageTokensMax = 0;

  image(bytes: number): void {
    this.bytes += bytes;
    this.tokens += IMAGE_TOKENS;
    this.imageBytes += bytes;
    this.imageTokensMax += Math.min(bytes, IMAGE_TOKENS_MAX);
  }

  other(bytes: number, tokens: number): void {
    this.bytes += bytes;
    this.tokens += tokens;
  }
}

/** Where the string that `at` stands in, or before, ends. Base64 has no escapes. */
function stringEnd(body: Buffer, at: number): number {
  const end = body.indexOf(QUOTE, at);
  return end === -1 ? body.length : end;
}

/** `data:image/png;base64,…`: the type stands right before. */
function countDataUrls(body: Buffer, into: Counting): void {
  for (let at = body.indexOf(DATA_URL); at !== -1;) {
    const end = stringEnd(body, at);
    const start = body.lastIndexOf(QUOTE, at);
    const isImage = body.subarray(Math.max(0, start), at).includes(IMAGE);
    if (isImage) into.image(end - at);
    else into.other(end - at, IMAGE_TOKENS);
    at = body.indexOf(DATA_URL, end);
  }
}

/** `"media_type":"image/png","data":"…"`, as Anthropic's clients write it. */
function countSources(body: Buffer, into: Counting): void {
  for (let at = body.indexOf(MEDIA_TYPE); at !== -1;) {
    const key = body.indexOf(DATA_KEY, at);
    if (key === -1) return;
    if (key - at > SOURCE_BYTES_MAX) {
      at = body.indexOf(MEDIA_TYPE, at + MEDIA_TYPE.length);
      continue;
    }
    const start = stringEnd(body, key + DATA_KEY.length) + 1;
    const end = stringEnd(body, start);
    if (body.subarray(at, key).includes(IMAGE)) into.image(Math.max(0, end - start));
    else into.other(Math.max(0, end - start), IMAGE_TOKENS);
    at = body.indexOf(MEDIA_TYPE, end);
  }
}

function countAudio(body: Buffer, into: Counting): void {
  for (let at = body.indexOf(AUDIO); at !== -1;) {
    const key = body.indexOf(DATA_KEY, at);
    if (key === -1) return;
    const start = stringEnd(body, key + DATA_KEY.length) + 1;
    const end = stringEnd(body, start);
    const bytes = Math.max(0, end - start);
    into.other(bytes, Math.ceil(bytes / AUDIO_BYTES_PER_TOKEN));
    at = body.indexOf(AUDIO, end);
  }
}

export function mediaOf(body: Buffer): Media {
  if (body.length < MEDIA_BODY_BYTES_MIN) return NO_MEDIA;
  const counting = new Counting();
  countDataUrls(body, counting);
  countSources(body, counting);
  countAudio(body, counting);
  return counting;
}

/** The most tokens that a body can be as input: one for each byte of text, and so many for each image. */
export function inputTokensMax(body: Buffer, { imageBytes, imageTokensMax }: Media): number {
  return body.length - imageBytes + imageTokensMax;
}
