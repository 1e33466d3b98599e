/** PURE. images/generations and images/edits at OpenAI and servers compatible with it: bytes pass through. */

import type { UnitQuantity } from "../../core/meters.ts";
import { SseSplitter } from "../sse.ts";
import { bodyOf } from "./call.ts";
import type { Dialect } from "./dialects.ts";
import type { AnswerReading, Asked, Bridge, LongReading, StreamReader } from "./format.ts";
import {
  IMAGE_FRAME_BYTES_MAX,
  ImageAnswer,
  ImageCounter,
  imageQuantity,
  ImageStream,
  type ImagesRead,
} from "./images.ts";
import { textOf } from "./json.ts";
import { nativeBody, nativeCall } from "./openai.ts";

function countedBy(read: ImagesRead, asked: Asked): readonly UnitQuantity[] {
  const { size, quality } = bodyOf(asked);
  return [imageQuantity(read, { size: textOf(size), quality: textOf(quality) })];
}

/** The upstream's own readers, with the images as a quantity. */
function counting<T extends ImagesRead & object>(
  read: T,
  asked: Asked,
): T & { readonly counted: readonly UnitQuantity[] } {
  return Object.defineProperty(read, "counted", { get: () => countedBy(read, asked) }) as T & {
    readonly counted: readonly UnitQuantity[];
  };
}

export function imagesBridge(dialect: Dialect, error: Bridge["error"]): Bridge {
  return {
    translated: false,
    whole: false,
    mayAnswerWhole: true,
    request: (pm, asked, forwarded) => nativeCall(pm, asked, nativeBody(dialect, pm, asked), forwarded),
    error,
    readAnswer: (body, asked): AnswerReading => counting(new ImageAnswer(body), asked),
    longReading: (asked): LongReading => counting(new ImageCounter(), asked),
    readTail: () => null,
    streamReader: (asked): StreamReader => counting(new ImageStream(), asked),
    splitter: () => new SseSplitter(IMAGE_FRAME_BYTES_MAX),
  };
}
