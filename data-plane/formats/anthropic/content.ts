/**
 * PURE. Parts of OpenAI messages as content blocks of Anthropic's: text, images and documents, with the places where a
 * cache may begin. Facts are from reference/UPSTREAM-FORMATS.md C3.
 */

import type { Json } from "../hub.ts";
import { isBlank, objectOf, textOf } from "../json.ts";
import { optionalText, refuse, requiredText, unsupported } from "./refuse.ts";

export type Block = Record<string, unknown>;

const IMAGE_TYPES = new Set(["image/jpeg", "image/png", "image/gif", "image/webp"]);
/** Besides `text/*`, what is readable as it is. */
const TEXT_TYPES = new Set(["application/json", "application/xml", "application/yaml"]);
const PDF = "application/pdf";
/** What stands before the comma of a data URL is no longer than this. */
const DATA_URL_HEAD_CHARS_MAX = 256;

/** The hub's `cache_control`, or OpenAI's explicit breakpoint, as Anthropic takes it; undefined: none. */
export function cacheOf(from: Json): Json | undefined {
  const own = objectOf(from["cache_control"]);
  const breakpoint = objectOf(from["prompt_cache_breakpoint"]);
  if (own["type"] !== "ephemeral" && breakpoint["mode"] !== "explicit") return undefined;
  const ttl = own["type"] === "ephemeral" ? own["ttl"] : breakpoint["ttl"];
  return ttl === "1h" || ttl === "5m" ? { type: "ephemeral", ttl } : { type: "ephemeral" };
}

/** The block with the part's breakpoint, if it has one. */
export function cached(block: Block, from: Json): Block {
  const cache = cacheOf(from);
  if (cache !== undefined) block["cache_control"] = cache;
  return block;
}

/** What a message's parts may be. */
export type Allowed = "user" | "text" | "assistant" | "tool";

/**
 * The content of a message as blocks, without empty text.
 * @param at the path of the content
 * @throws RefusedFieldError
 */
export function blocksOf(content: unknown, allowed: Allowed, at: string): Block[] {
  if (content === undefined || content === null) return [];
  if (typeof content === "string") return isBlank(content) ? [] : [{ type: "text", text: content }];
  if (!Array.isArray(content)) return refuse("invalid_type", at, `\`${at}\` must be a string or a list of parts.`);
  const blocks: Block[] = [];
  for (const [index, each] of (content as readonly unknown[]).entries()) {
    const part: Json = typeof each === "string" ? { type: "text", text: each } : objectOf(each);
    const block = blockOf(part, allowed, `${at}[${index}]`);
    if (block !== null) blocks.push(cached(block, part));
  }
  return blocks;
}

function blockOf(part: Json, allowed: Allowed, at: string): Block | null {
  const type = textOf(part["type"]);
  if (type === "text") return textBlock(part, "text", at);
  if (type === "refusal" && allowed === "assistant") return textBlock(part, "refusal", at);
  if (type === "image_url" && (allowed === "user" || allowed === "tool")) return imageBlock(part["image_url"], at);
  if (type === "file" && (allowed === "user" || allowed === "tool")) return documentBlock(objectOf(part["file"]), at);
  if (type === "input_audio") return unsupported(at, "Audio input");
  return refuse(
    "unsupported_value",
    `${at}.type`,
    `Parts of the type \`${type.slice(0, 64)}\` are not supported here.`,
  );
}

function textBlock(part: Json, key: string, at: string): Block | null {
  const text = optionalText(part, key, `${at}.${key}`) ?? "";
  return isBlank(text) ? null : { type: "text", text };
}

interface DataUrl {
  readonly mediaType: string;
  readonly data: string;
  readonly base64: boolean;
}

/** Null if it is no data URL. The data may have many megabytes, so it is not searched. */
function dataUrlOf(url: string): DataUrl | null {
  const head = url.slice(0, DATA_URL_HEAD_CHARS_MAX);
  const comma = head.indexOf(",");
  if (comma === -1 || head.slice(0, 5).toLowerCase() !== "data:") return null;
  const [mediaType = "", ...rest] = head.slice(5, comma).toLowerCase().split(";");
  return { mediaType, data: url.slice(comma + 1), base64: rest.includes("base64") };
}

function isWeb(url: string): boolean {
  return /^https?:\/\//i.test(url.slice(0, 8));
}

function imageBlock(image: unknown, at: string): Block {
  const param = `${at}.image_url.url`;
  const url = typeof image === "string" ? image : requiredText(objectOf(image), "url", param);
  if (isWeb(url)) return { type: "image", source: { type: "url", url } };
  const data = dataUrlOf(url);
  if (data === null || !data.base64)
    return refuse("invalid_value", param, "Images must be http(s) URLs or data URLs in base64.");
  const mediaType = data.mediaType === "image/jpg" ? "image/jpeg" : data.mediaType;
  if (!IMAGE_TYPES.has(mediaType))
    return refuse("unsupported_value", param, "Images must be image/jpeg, image/png, image/gif or image/webp.");
  return { type: "image", source: { type: "base64", media_type: mediaType, data: data.data } };
}

function documentBlock(file: Json, at: string): Block {
  if (file["file_id"] !== undefined && file["file_id"] !== null)
    return unsupported(`${at}.file.file_id`, "A file by its id");
  const param = `${at}.file.file_data`;
  const url = requiredText(file, "file_data", param);
  const name = optionalText(file, "filename", `${at}.file.filename`) ?? "";
  const block: Block = { type: "document", source: sourceOf(url, name, param) };
  if (!isBlank(name)) block["title"] = name;
  return block;
}

function sourceOf(url: string, name: string, param: string): Block {
  if (isWeb(url)) return { type: "url", url };
  let file = dataUrlOf(url);
  // Some clients send the bare base64, and the name tells what it is.
  if (file === null && name.toLowerCase().endsWith(".pdf")) file = { mediaType: PDF, data: url, base64: true };
  if (file === null) return refuse("invalid_value", param, "Files must be data URLs.");
  if (file.mediaType === PDF && file.base64) return { type: "base64", media_type: PDF, data: file.data };
  if (!file.mediaType.startsWith("text/") && !TEXT_TYPES.has(file.mediaType))
    return refuse("unsupported_value", param, "Files must be application/pdf or text.");
  const data = plainText(file);
  if (data === null || isBlank(data)) return refuse("invalid_value", param, "The file holds no text.");
  return { type: "text", media_type: "text/plain", data };
}

function plainText({ data, base64 }: DataUrl): string | null {
  if (base64) return Buffer.from(data, "base64").toString("utf8");
  try {
    return decodeURIComponent(data);
  } catch {
    return null;
  }
}
