/**
 * PURE. The text of a request in OpenAI's formats or in Messages, for counting: messages, prompts, inputs, instructions,
 * system and tools. Images, audio and files are not text and count by constants.
 */

import { decodeString, JsonScanError, scanObject, skipSpace, skipString, skipValue } from "../json_scan.ts";
import { INPUT_SAMPLE_BYTES_MAX, Sampler, type TextSample } from "./tokens.ts";

/** What surrounds a message, its role included; measured by OpenAI's cookbook ("How to count tokens with tiktoken"). */
export const MESSAGE_TOKENS = 4;
/** More for a message with a name, and for a call of a tool. */
export const NAME_TOKENS = 1;
export const TOOL_CALL_TOKENS = 3;
/** Every answer is primed with so many. */
export const PRIMING_TOKENS = 3;
/** What surrounds all tools, each of them, and each of its properties beyond name, type and description. */
export const TOOLS_TOKENS = 12;
export const TOOL_TOKENS = 7;
export const PROPERTY_TOKENS = 3;
/** An image of 1024 x 1024 for gpt-4o, and one of low detail. */
export const IMAGE_TOKENS = 765;
export const IMAGE_LOW_TOKENS = 85;
/** The same image for Claude: width x height / 750. Clients that speak Messages count with that. */
export const MESSAGES_IMAGE_TOKENS = 1399;
/** A page or two: nothing is known of what is in a file. */
export const FILE_TOKENS = 765;
/** Ten tokens a second, of MP3 at 128 kbit/s in base64. */
export const AUDIO_BYTES_PER_TOKEN = 2048;

const OBJECT = 0x7b;
const ARRAY = 0x5b;
const ARRAY_END = 0x5d;
const QUOTE = 0x22;
const COMMA = 0x2c;

/** Strings that are no text of the model's input. */
const SILENT = new Set([
  "role",
  "type",
  "id",
  "tool_call_id",
  "tool_use_id",
  "call_id",
  "item_id",
  "detail",
  "format",
  "mime_type",
  "media_type",
  "status",
  "cache_control",
  "citations",
  "annotations",
  // Bytes that stand for a model's thoughts, not the thoughts.
  "signature",
  "encrypted_content",
  "data",
  // They say again what stands in `reasoning_content`.
  "thinking_blocks",
]);
/** Where text stands at the top level. */
const PLACES = new Set(["messages", "prompt", "input", "instructions", "suffix", "system"]);
/** The lists whose objects are messages, or items like them. */
const MESSAGES = new Set(["messages", "input"]);
const TOOLS = new Set(["tools", "functions"]);

export function readInput(body: Buffer): TextSample {
  const reader = new Reader(body);
  try {
    scanObject(body, skipSpace(body, 0), 0, (member, keyEnd, value) => {
      const key = decodeString(body, member, keyEnd);
      if (PLACES.has(key)) reader.place(key, value);
      else if (TOOLS.has(key)) reader.tools(value);
    });
  } catch (error) {
    // The body was sound when it was admitted; a bad escape in a key is all that can be left.
    if (!(error instanceof JsonScanError)) throw error;
  }
  return reader.sampler.sample();
}

class Reader {
  readonly sampler = new Sampler(INPUT_SAMPLE_BYTES_MAX);
  private readonly bytes: Buffer;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  place(key: string, at: number): void {
    const { bytes, sampler } = this;
    // The input of embeddings is a list too, but of no objects.
    const list = MESSAGES.has(key) && bytes[at] === ARRAY;
    if (list && (key === "messages" || bytes[skipSpace(bytes, at + 1)] === OBJECT)) sampler.tokens += PRIMING_TOKENS;
    if (key === "system") sampler.tokens += MESSAGE_TOKENS;
    this.value(key, at);
  }

  /** Each tool with its name and description, and each property with its own, much as OpenAI writes them out. */
  tools(at: number): void {
    if (this.bytes[at] !== ARRAY) return;
    this.sampler.tokens += TOOLS_TOKENS;
    this.each(at, (element) => {
      this.sampler.tokens += TOOL_TOKENS;
      return this.schema(element);
    });
  }

  // All of these return where the value ends, so that nothing is read once more for each level that it stands in.

  private value(key: string, at: number): number {
    const { bytes } = this;
    switch (bytes[at]) {
      case QUOTE:
        return this.string(key, at);
      case OBJECT:
        return this.object(key, at);
      case ARRAY:
        return this.each(at, (element) => this.value(key, element));
      default:
        // Prompts and inputs may come as tokens; other numbers are settings.
        if ((key === "prompt" || key === "input") && bytes[at]! >= 0x30 && bytes[at]! <= 0x39) this.sampler.tokens++;
        return skipValue(bytes, at);
    }
  }

  private object(key: string, at: number): number {
    const { bytes, sampler } = this;
    if (MESSAGES.has(key)) sampler.tokens += MESSAGE_TOKENS;
    if (key === "image_url") return this.image(at);
    if (key === "input_audio") return this.audio(at);
    if (key === "tool_calls") sampler.tokens += TOOL_CALL_TOKENS;
    if (key === "file") {
      sampler.tokens += FILE_TOKENS;
      return skipValue(bytes, at);
    }
    let type = "";
    return this.members(at, (member, keyEnd, value) => {
      const name = decodeString(bytes, member, keyEnd);
      if (name === "type" && bytes[value] === QUOTE) {
        const end = skipString(bytes, value);
        type = decodeString(bytes, value, end);
        if (type === "tool_use" || type === "function_call") sampler.tokens += TOOL_CALL_TOKENS;
        return end;
      }
      if (name === "name" && key === "messages" && bytes[value] === QUOTE) sampler.tokens += NAME_TOKENS;
      if (name === "source" && bytes[value] === OBJECT) return this.source(type, value);
      // What a tool is called with: its keys are text as well.
      if (name === "input" && bytes[value] === OBJECT) return this.json(value);
      return SILENT.has(name) ? skipValue(bytes, value) : this.value(name, value);
    });
  }

  /** JSON that the model reads as it is. */
  private json(at: number): number {
    const end = skipValue(this.bytes, at);
    this.sampler.add(this.bytes, at, end);
    this.sampler.endString();
    return end;
  }

  /** What an image or a document of Messages is: text, or bytes that count by a constant. */
  private source(block: string, at: number): number {
    const { bytes, sampler } = this;
    let type = "";
    let media = "";
    let data = -1;
    const end = this.members(at, (member, keyEnd, value) => {
      const name = decodeString(bytes, member, keyEnd);
      if (name === "content") return this.value(name, value);
      const valueEnd = skipValue(bytes, value);
      if (bytes[value] !== QUOTE) return valueEnd;
      if (name === "type") type = decodeString(bytes, value, valueEnd);
      else if (name === "media_type") media = decodeString(bytes, value, valueEnd);
      else if (name === "data") data = value;
      return valueEnd;
    });
    if (type === "text" && data !== -1) this.text(data);
    else if (type !== "text" && type !== "content")
      sampler.tokens += block === "image" || media.startsWith("image/") ? MESSAGES_IMAGE_TOKENS : FILE_TOKENS;
    return end;
  }

  private string(key: string, at: number): number {
    if (key === "image_url") this.sampler.tokens += IMAGE_TOKENS;
    else if (key === "file_data" || key === "file_id" || key === "file_url") this.sampler.tokens += FILE_TOKENS;
    else return this.text(at);
    return skipString(this.bytes, at);
  }

  private text(at: number): number {
    const end = skipString(this.bytes, at);
    this.sampler.add(this.bytes, at + 1, end - 1);
    this.sampler.endString();
    return end;
  }

  private image(at: number): number {
    let low = false;
    const end = scanObject(this.bytes, at, 1, (member, keyEnd, value, valueEnd) => {
      if (decodeString(this.bytes, member, keyEnd) !== "detail" || this.bytes[value] !== QUOTE) return;
      low = decodeString(this.bytes, value, valueEnd) === "low";
    });
    this.sampler.tokens += low ? IMAGE_LOW_TOKENS : IMAGE_TOKENS;
    return end;
  }

  private audio(at: number): number {
    return scanObject(this.bytes, at, 1, (member, keyEnd, value, end) => {
      if (decodeString(this.bytes, member, keyEnd) === "data")
        this.sampler.tokens += Math.ceil((end - value) / AUDIO_BYTES_PER_TOKEN);
    });
  }

  /** A tool or a part of its schema: names, descriptions, types and the values that are allowed. */
  private schema(at: number): number {
    const { bytes, sampler } = this;
    if (bytes[at] === ARRAY) return this.each(at, (element) => this.schema(element));
    if (bytes[at] === QUOTE) return this.text(at);
    if (bytes[at] !== OBJECT) return skipValue(bytes, at);
    return this.members(at, (member, keyEnd, value) => {
      const key = decodeString(bytes, member, keyEnd);
      const silent = key === "required" || key === "cache_control";
      if (silent || (key === "type" && bytes[value] === QUOTE)) return skipValue(bytes, value);
      if (key !== "properties" || bytes[value] !== OBJECT) return this.schema(value);
      sampler.tokens += PROPERTY_TOKENS;
      return this.members(value, (name, nameEnd, property) => {
        // The type is one token.
        sampler.tokens += PROPERTY_TOKENS + 1;
        sampler.add(bytes, name + 1, nameEnd - 1);
        sampler.endString();
        return this.schema(property);
      });
    });
  }

  /** `onElement` returns where its element ends. */
  private each(at: number, onElement: (start: number) => number): number {
    const { bytes } = this;
    let pos = skipSpace(bytes, at + 1);
    while (bytes[pos] !== ARRAY_END) {
      pos = skipSpace(bytes, onElement(pos));
      if (bytes[pos] !== COMMA) break;
      pos = skipSpace(bytes, pos + 1);
    }
    return pos + 1;
  }

  /** `onMember` returns where the value of its member ends. */
  private members(at: number, onMember: (member: number, keyEnd: number, value: number) => number): number {
    const { bytes } = this;
    let pos = skipSpace(bytes, at + 1);
    while (bytes[pos] === QUOTE) {
      const keyEnd = skipString(bytes, pos);
      const value = skipSpace(bytes, skipSpace(bytes, keyEnd) + 1);
      pos = skipSpace(bytes, onMember(pos, keyEnd, value));
      if (bytes[pos] !== COMMA) break;
      pos = skipSpace(bytes, pos + 1);
    }
    return pos + 1;
  }
}
