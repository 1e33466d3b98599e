/**
 * PURE. Images from text by InvokeModel: Amazon's models, and Stability's, which make one image per call
 * (reference/UPSTREAM-FORMATS.md D9).
 */

import { type HubTarget, type Json, type JsonAnswer, RefusedFieldError } from "../hub.ts";
import { countOf, listOf, objectOf, textOf } from "../json.ts";

/** As OpenAI has it. */
export const IMAGES_MAX = 10;
const AMAZON_IMAGES_MAX = 5;
/** What Amazon's models use when they are told no seed: calls for one request need different ones. */
const AMAZON_SEED = 12;

export interface ImageWish {
  readonly prompt: string;
  readonly count: number;
  /** Null: as the model likes. */
  readonly size: { readonly width: number; readonly height: number } | null;
  readonly quality: "standard" | "premium";
  readonly outputFormat: string | null;
  readonly negativePrompt: string | null;
  readonly seed: number | undefined;
}

export interface ImageFamily {
  /** @throws RefusedFieldError */
  bodies(wish: ImageWish): readonly Json[];
  /** Base64 of each image that one answer holds, null for those that were withheld; null: this is no answer. */
  images(body: Json): readonly (string | null)[] | null;
  /** Members of the answer that say what was made, for prices that depend on it. */
  details(wish: ImageWish): Json;
}

const QUALITIES: Readonly<Record<string, ImageWish["quality"]>> = {
  auto: "standard",
  standard: "standard",
  low: "standard",
  medium: "standard",
  high: "premium",
  hd: "premium",
  premium: "premium",
};

function sizeOf(size: unknown): ImageWish["size"] {
  if (size === undefined || size === null || size === "auto") return null;
  const [, width, height] = /^(\d{2,5})x(\d{2,5})$/.exec(textOf(size)) ?? [];
  if (width === undefined || height === undefined)
    throw new RefusedFieldError(
      "invalid_value",
      "size",
      "`size` must be `auto`, or a width and a height such as `1024x1024`.",
    );
  return { width: Number(width), height: Number(height) };
}

/** @throws RefusedFieldError */
export function imageWishOf(body: Json): ImageWish {
  const { prompt, n, response_format, quality, output_format, negative_prompt } = body;
  if (typeof prompt !== "string" || prompt.trim() === "")
    throw new RefusedFieldError("missing_required_parameter", "prompt", "`prompt` must be a text.");
  const count = n === undefined || n === null ? 1 : countOf(n);
  if (count === undefined || count < 1 || count > IMAGES_MAX)
    throw new RefusedFieldError("invalid_value", "n", `\`n\` must be from 1 to ${IMAGES_MAX}.`);
  if (response_format !== undefined && response_format !== null && response_format !== "b64_json")
    throw new RefusedFieldError("unsupported_value", "response_format", "This model gives images as `b64_json` only.");
  if (body["stream"] === true)
    throw new RefusedFieldError("unsupported_value", "stream", "This model does not stream images.");
  const wanted = quality === undefined || quality === null ? "auto" : textOf(quality);
  if (!Object.hasOwn(QUALITIES, wanted))
    throw new RefusedFieldError("invalid_value", "quality", "This is no quality of images.");
  return {
    prompt,
    count,
    size: sizeOf(body["size"]),
    quality: QUALITIES[wanted]!,
    outputFormat: typeof output_format === "string" ? output_format : null,
    negativePrompt: typeof negative_prompt === "string" && negative_prompt !== "" ? negative_prompt : null,
    seed: countOf(body["seed"]),
  };
}

function refuseFormat(): never {
  throw new RefusedFieldError("unsupported_value", "output_format", "This model does not give images of this format.");
}

/** Nova Canvas and Titan Image. */
const AMAZON: ImageFamily = {
  bodies: ({ prompt, count, size, quality, outputFormat, negativePrompt, seed }) => {
    if (outputFormat !== null && outputFormat !== "png") refuseFormat();
    const bodies: Json[] = [];
    for (let made = 0; made < count; made += AMAZON_IMAGES_MAX) {
      const several = count > AMAZON_IMAGES_MAX;
      const own = seed === undefined && !several ? {} : { seed: (seed ?? AMAZON_SEED) + bodies.length };
      bodies.push({
        taskType: "TEXT_IMAGE",
        textToImageParams: { text: prompt, ...(negativePrompt === null ? {} : { negativeText: negativePrompt }) },
        imageGenerationConfig: {
          numberOfImages: Math.min(AMAZON_IMAGES_MAX, count - made),
          ...size,
          quality,
          ...own,
        },
      });
    }
    return bodies;
  },
  images: ({ images, error }) => {
    if (!Array.isArray(images)) return typeof error === "string" ? [] : null;
    return images.every((each) => typeof each === "string") ? (images as string[]) : null;
  },
  details: ({ size, quality }) => ({
    size: size === null ? "1024x1024" : `${size.width}x${size.height}`,
    quality,
    output_format: "png",
  }),
};

const RATIOS: readonly (readonly [string, number])[] = [
  ["1:1", 1],
  ["16:9", 16 / 9],
  ["21:9", 21 / 9],
  ["2:3", 2 / 3],
  ["3:2", 3 / 2],
  ["4:5", 4 / 5],
  ["5:4", 5 / 4],
  ["9:16", 9 / 16],
  ["9:21", 9 / 21],
];

/** These models know shapes, not sizes: the nearest. */
function aspectRatio({ width, height }: NonNullable<ImageWish["size"]>): string {
  const wanted = Math.log(width / height);
  const off = ([, ratio]: readonly [string, number]) => Math.abs(Math.log(ratio) - wanted);
  return RATIOS.reduce((best, each) => (off(each) < off(best) ? each : best))[0];
}

/** SD 3.5, Core and Ultra. */
const STABILITY: ImageFamily = {
  bodies: ({ prompt, count, size, outputFormat, negativePrompt, seed }) => {
    if (outputFormat !== null && outputFormat !== "png" && outputFormat !== "jpeg") refuseFormat();
    return Array.from({ length: count }, (_, index) => ({
      prompt,
      ...(negativePrompt === null ? {} : { negative_prompt: negativePrompt }),
      ...(size === null ? {} : { aspect_ratio: aspectRatio(size) }),
      ...(seed === undefined ? {} : { seed: seed + index }),
      output_format: outputFormat ?? "png",
    }));
  },
  images: (body) => {
    const artifacts = listOf(body["artifacts"]).map((each) => textOf(objectOf(each)["base64"]) || null);
    if (artifacts.length > 0) return artifacts;
    if (!Array.isArray(body["images"]) && !Array.isArray(body["finish_reasons"])) return null;
    const images = listOf(body["images"]);
    const reasons = listOf(body["finish_reasons"]);
    return Array.from({ length: Math.max(images.length, reasons.length) }, (_, index) => {
      const withheld = reasons[index] !== undefined && reasons[index] !== null;
      return withheld ? null : textOf(images[index]) || null;
    });
  },
  details: ({ outputFormat }) => ({ output_format: outputFormat ?? "png" }),
};

/** @throws RefusedFieldError */
export function imageFamilyOf(target: HubTarget): ImageFamily {
  const name = (target.family || target.model).toLowerCase();
  if (name.includes("nova-canvas") || name.includes("titan-image")) return AMAZON;
  if (name.includes("stability") || name.includes("stable-") || name.includes("sd3")) return STABILITY;
  throw new RefusedFieldError("unsupported_value", "model", "This model makes no images.");
}

/** Withheld images are not in `data`, which is what is counted. Null: this is no answer. */
export function imageAnswer(
  answers: readonly JsonAnswer[],
  wish: ImageWish,
  family: ImageFamily,
  createdS: number,
): Json | null {
  const data: Json[] = [];
  for (const { body } of answers) {
    const images = family.images(body);
    if (images === null) return null;
    for (const image of images) if (image !== null) data.push({ b64_json: image });
  }
  return { created: createdS, data, ...family.details(wish) };
}
