/** PURE. How large a request is, as far as that shows before it is answered. */

import type { ScannedBody } from "./body.ts";
import type { RequestSize } from "./budget/estimate.ts";
import { Endpoint } from "./endpoints.ts";
import { readSpeechRequest } from "./formats/audio_speech.ts";
import type { EndpointSpec } from "./formats/format.ts";
import { IMAGE_TOKENS_MAX, inputTokensMax, type Media } from "./tokenizer/media.ts";

function spokenCharacters(body: ScannedBody): number {
  return readSpeechRequest(body.bytes).characters ?? 0;
}

/** What is known of speech and recordings of OpenAI's models: tokens of a second of audio, and characters spoken in one. */
const AUDIO_TOKENS_PER_S = 25;
const TEXT_TOKENS_PER_S = 8;
const CHARACTERS_PER_S = 12;
/** A large image of the highest quality, and one that is sent in to be changed. */
const IMAGE_OUTPUT_TOKENS = 6_500;
/** A recording that cannot be measured is taken for one at so many bytes a second, which is a low bitrate. */
const UNKNOWN_BYTES_PER_S = 2_000;

interface MediaSize {
  readonly images: number;
  readonly characters: number;
  readonly seconds: number;
  readonly mediaInputTokens: number;
  readonly mediaOutputTokens: number;
}

const NO_MEDIA: MediaSize = { images: 0, characters: 0, seconds: 0, mediaInputTokens: 0, mediaOutputTokens: 0 };

function heard({ seconds, fileBytes }: UploadSize): MediaSize {
  const thousandths = seconds ?? Math.ceil((fileBytes * 1000) / UNKNOWN_BYTES_PER_S);
  const wholeS = Math.ceil(thousandths / 1000);
  const mediaInputTokens = wholeS * AUDIO_TOKENS_PER_S;
  return { ...NO_MEDIA, seconds: thousandths, mediaInputTokens, mediaOutputTokens: wholeS * TEXT_TOKENS_PER_S };
}

function spoken(characters: number): MediaSize {
  const wholeS = Math.ceil(characters / CHARACTERS_PER_S);
  return { ...NO_MEDIA, characters, seconds: wholeS * 1000, mediaOutputTokens: wholeS * AUDIO_TOKENS_PER_S };
}

function mediaSizeOf({ number }: EndpointSpec, body: ScannedBody, upload: UploadSize | null): MediaSize {
  switch (number) {
    case Endpoint.IMAGES_GENERATIONS:
    case Endpoint.IMAGES_EDITS: {
      const files = upload?.files ?? 0;
      const mediaInputTokens = files * IMAGE_TOKENS_MAX;
      return {
        ...NO_MEDIA,
        images: body.choices,
        mediaInputTokens,
        mediaOutputTokens: body.choices * IMAGE_OUTPUT_TOKENS,
      };
    }
    case Endpoint.AUDIO_SPEECH:
      return spoken(spokenCharacters(body));
    case Endpoint.AUDIO_TRANSCRIPTIONS:
    case Endpoint.AUDIO_TRANSLATIONS:
      return upload === null ? NO_MEDIA : heard(upload);
    default:
      return NO_MEDIA;
  }
}

/** What counts of a form with files. */
export interface UploadSize {
  /** Thousandths; null: not known. */
  readonly seconds: number | null;
  readonly fileBytes: number;
  readonly files: number;
}

/** @param imageTokens what STRICT holds for images besides their bytes */
export function sizeOf(
  endpoint: EndpointSpec,
  body: ScannedBody,
  media: Media,
  upload: UploadSize | null,
  imageTokens: number,
): RequestSize {
  const { images, characters, seconds, mediaInputTokens, mediaOutputTokens } = mediaSizeOf(endpoint, body, upload);
  return {
    inputTokens: inputTokensMax(body.bytes, media) + imageTokens,
    images,
    characters,
    seconds,
    mediaInputTokens,
    mediaOutputTokens,
    hasOutput: endpoint.hasOutput,
    stream: body.stream && endpoint.streams,
    outputTokensMax: body.outputTokensMax,
    answers: body.answers,
  };
}
