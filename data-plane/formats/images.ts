/**
 * PURE. Answers of images/generations and images/edits at OpenAI and servers compatible with it: what they used, and how
 * many images there are. Facts: reference/UPSTREAM-FORMATS.md A1, A5, and the types of the openai package.
 */

import { Meter, type UnitQuantity, UnitSource } from "../../core/meters.ts";
import type { SseEvent } from "../sse.ts";
import { NO_TEXT, type TextSample } from "../tokenizer/tokens.ts";
import type { AnswerReading, StreamReader } from "./format.ts";
import { FrameKind } from "./format.ts";
import type { Json } from "./hub.ts";
import { countOf, objectOf, textOf } from "./json.ts";
import { TopLevel } from "./top_level.ts";

/** One frame holds a whole image as base64: of 4096 x 4096 pixels that can be so much. */
export const IMAGE_FRAME_BYTES_MAX = 64 * 1024 * 1024;

/** What an answer says of its images. */
export interface ImagesRead {
  /** Whole images; partial ones are not counted. */
  readonly images: number;
  /** As the upstream said, "" if it did not. */
  readonly size: string;
  readonly quality: string;
  readonly outputFormat: string;
  /** In the hub's shape, null if none was reported. */
  readonly usage: Json | null;
  /** `svg_usage` as sent: tokens of another model, which `usage` does not include; null if there is none. */
  readonly svgUsage: Json | null;
}

/**
 * Usage of images in the hub's shape: `prompt_tokens_details` and `completion_tokens_details` say how many tokens are those
 * of images. Without details of the output all of it is image. Null: this is no such usage.
 */
export function imageUsage(value: unknown): Json | null {
  const usage = objectOf(value);
  const completion = countOf(usage["output_tokens"]) ?? countOf(usage["completion_tokens"]);
  const total = countOf(usage["total_tokens"]);
  let prompt = countOf(usage["input_tokens"]) ?? countOf(usage["prompt_tokens"]);
  if (prompt === undefined && total !== undefined && completion !== undefined) prompt = countOf(total - completion);
  if (prompt === undefined || completion === undefined) return null;
  const input = objectOf(usage["input_tokens_details"] ?? usage["prompt_tokens_details"]);
  const output = objectOf(usage["output_tokens_details"] ?? usage["completion_tokens_details"]);
  const outputText = countOf(output["text_tokens"]) ?? 0;
  const reasoning = countOf(output["reasoning_tokens"]);
  const outputImage = countOf(output["image_tokens"]) ?? completion - outputText - (reasoning ?? 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: total ?? prompt + completion,
    prompt_tokens_details: {
      image_tokens: Math.min(countOf(input["image_tokens"]) ?? 0, prompt),
      cached_tokens: Math.min(countOf(input["cached_tokens"]) ?? 0, prompt),
    },
    completion_tokens_details: {
      image_tokens: Math.min(Math.max(outputImage, 0), completion),
      ...(reasoning === undefined ? {} : { reasoning_tokens: reasoning }),
    },
  };
}

/** A size or a quality, as prices name them. Whatever else a client writes there must not get into its record. */
const LABEL = /^[A-Za-z0-9._:-]{1,32}$/;

function labelOf(text: string): string {
  return text !== "auto" && LABEL.test(text) ? text : "";
}

/** The images of an answer as a quantity. Where the answer says less than was asked, the request's words are used. */
export function imageQuantity(
  read: Pick<ImagesRead, "images" | "size" | "quality">,
  asked: { readonly size: string; readonly quality: string },
): UnitQuantity {
  const size = labelOf(read.size || asked.size);
  const quality = labelOf(read.quality || asked.quality);
  return {
    meter: Meter.IMAGES,
    quantity: read.images,
    source: UnitSource.REPORTED,
    ...(size === "" ? {} : { size }),
    ...(quality === "" ? {} : { quality }),
  };
}

const ANSWER_KEYS = new Set(["usage", "svg_usage", "size", "quality", "output_format", "error"]);
/**
 * An answer that comes in pieces. Push every chunk, also those that were sent on already: the images are counted by their
 * keys, and nothing is kept.
 */
export class ImageCounter implements ImagesRead {
  private readonly top = new TopLevel(ANSWER_KEYS, "data");

  push(chunk: Buffer): void {
    this.top.push(chunk);
  }

  /** It was an answer to its end. */
  get valid(): boolean {
    return this.top.complete && this.top.hasArray && !this.top.value("error");
  }
  get images(): number {
    return this.top.counted;
  }
  get size(): string {
    return textOf(this.top.value("size"));
  }
  get quality(): string {
    return textOf(this.top.value("quality"));
  }
  get outputFormat(): string {
    return textOf(this.top.value("output_format"));
  }
  get usage(): Json | null {
    return imageUsage(this.top.value("usage"));
  }
  get svgUsage(): Json | null {
    return svgUsageOf(this.top.value("svg_usage"));
  }
}

function svgUsageOf(value: unknown): Json | null {
  const usage = objectOf(value);
  return countOf(usage["input_tokens"]) === undefined ? null : usage;
}

/** A whole answer. */
export class ImageAnswer extends ImageCounter implements AnswerReading {
  constructor(body: Buffer) {
    super();
    this.push(body);
  }
  textBytes(): number {
    return 0;
  }
  sample(): TextSample {
    return NO_TEXT;
  }
  hasContent(): boolean {
    return this.images > 0;
  }
}

const EVENT_KEYS = new Set(["type", "b64_json", "url", ...ANSWER_KEYS]);
const DONE = "[DONE]";
const NOTHING = Buffer.alloc(0);

/**
 * Frames of `image_generation.*` and `image_edit.*`. There is no mark of the end: after a completed image a stream that
 * closes is whole. Each completed image reports what it used itself, so those are added up. Some servers send whole images
 * as `partial_succeeded`, and one `completed` without an image for all of them.
 */
export class ImageStream implements StreamReader, ImagesRead {
  usage: Json | null = null;
  svgUsage: Json | null = null;
  images = 0;
  size = "";
  quality = "";
  outputFormat = "";
  /** Partial images, which OpenAI counts as output tokens. */
  partials = 0;
  readonly textBytes = 0;
  pieces = 0;
  finished = false;

  sample(): TextSample {
    return NO_TEXT;
  }

  read({ event, data }: SseEvent): FrameKind {
    if (event === "error") return FrameKind.ERROR;
    if (data === null) return FrameKind.COMMENT;
    if (data.length < 16 && data.toString("latin1").trim() === DONE) {
      this.finished = true;
      return FrameKind.DONE;
    }
    const top = new TopLevel(EVENT_KEYS);
    top.push(data);
    if (!top.complete) return FrameKind.BROKEN;
    const type = textOf(top.value("type")) || event;
    if (top.value("error") || type === "error") return FrameKind.ERROR;
    if (type.endsWith(".partial_image")) this.partials++;
    else if (type.endsWith(".partial_succeeded")) this.look(top);
    else if (type.endsWith(".completed")) this.complete(top);
    else return FrameKind.EMPTY;
    this.pieces++;
    return FrameKind.CONTENT;
  }

  replacement(): null {
    return null;
  }

  /** An image has no shorter form: what follows is the error alone. */
  lengthFrame(): Buffer {
    return NOTHING;
  }

  private complete(top: TopLevel): void {
    this.finished = true;
    this.look(top);
    this.usage = added(this.usage, imageUsage(top.value("usage")));
    this.svgUsage = svgUsageOf(top.value("svg_usage")) ?? this.svgUsage;
  }

  /** What a frame says of its image, if it has one. */
  private look(top: TopLevel): void {
    if (top.has("b64_json") || top.has("url")) this.images++;
    this.size = textOf(top.value("size")) || this.size;
    this.quality = textOf(top.value("quality")) || this.quality;
    this.outputFormat = textOf(top.value("output_format")) || this.outputFormat;
  }
}

/** The sum of two usage objects of the hub's shape, member by member. */
function added(one: Json | null, other: Json | null): Json | null {
  if (one === null || other === null) return one ?? other;
  const sum: Record<string, unknown> = { ...one };
  for (const [key, value] of Object.entries(other)) {
    const before = sum[key];
    if (typeof value === "number") sum[key] = value + (typeof before === "number" ? before : 0);
    else sum[key] = added(objectOf(before), objectOf(value));
  }
  return sum;
}
