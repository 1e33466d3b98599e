/** PURE. How large a request is, as far as that shows before it is answered. */

import type { ScannedBody } from "./body.ts";
import type { RequestSize } from "./budget/estimate.ts";
import { Endpoint } from "./endpoints.ts";
import type { EndpointSpec } from "./formats/format.ts";
import { textOf, parseObject } from "./formats/json.ts";
import { inputTokensMax, type Media } from "./tokenizer/media.ts";

/** Characters as they are billed: code points, not halves of them. */
export function charactersOf(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0xdc00 || code > 0xdfff) count++;
  }
  return count;
}

function spokenCharacters(body: ScannedBody): number {
  return charactersOf(textOf(parseObject(body.bytes)?.["input"]));
}

const IMAGES: ReadonlySet<number> = new Set([Endpoint.IMAGES_GENERATIONS, Endpoint.IMAGES_EDITS]);

export function sizeOf(endpoint: EndpointSpec, body: ScannedBody, media: Media): RequestSize {
  const { number, hasOutput, streams } = endpoint;
  return {
    inputTokens: inputTokensMax(body.bytes, media),
    images: IMAGES.has(number) ? body.choices : 0,
    characters: number === Endpoint.AUDIO_SPEECH ? spokenCharacters(body) : 0,
    seconds: 0,
    hasOutput,
    stream: body.stream && streams,
    outputTokensMax: body.outputTokensMax,
    answers: body.answers,
  };
}
