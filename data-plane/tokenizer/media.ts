/**
 * PURE. What of a JSON body is no text but media in base64: images, audio and files, in the shapes of OpenAI and Anthropic.
 * They count only where upstreams look for them: what merely looks like one, in a text, a schema or the input of a tool, is
 * text, and each of its bytes may be a token.
 */

import { decodeString, JsonScanError, scanArray, scanObject, skipSpace } from "../json_scan.ts";
import { AUDIO_BYTES_PER_TOKEN, IMAGE_TOKENS } from "./input.ts";

/** No image costs more input than this at any upstream that is known (gpt-4o-mini, 8 tiles); most cost a thousand. */
export const IMAGE_TOKENS_MAX = 49_152;
/** No model that is known reads more of one file: it is as much as the longest contexts hold. */
export const FILE_TOKENS_MAX = 1_000_000;
/** Base64 of a recording has at least so many for each token: 32 tokens a second at 8 kbit/s. */
export const AUDIO_BYTES_PER_TOKEN_MIN = 32;
/** Below this no media are looked for: they count little. */
const MEDIA_BODY_BYTES_MIN = 16 * 1024;
/**
 * Without one of these there are none. Words of up to seven bytes are looked for by their first one alone, which is a
 * tenth of the cost where that is a quote: there are few in long texts.
 */
const MARKS = [";base64,", '"base64', '"input_audio"'].map((mark) => Buffer.from(mark));
/** Parts stand in messages, in results of tools, and in those of a message. */
const DEPTH_MAX = 12;
const TYPE_CHARS_MAX = 64;

const QUOTE = 0x22;
const OBJECT = 0x7b;
const ARRAY = 0x5b;

export interface Media {
  /** Bytes of base64. */
  readonly bytes: number;
  /** Tokens that they are expected to be, and the most that they can be. */
  readonly tokens: number;
  readonly tokensMax: number;
}

const NO_MEDIA: Media = { bytes: 0, tokens: 0, tokensMax: 0 };

/** Where lists of messages or items stand at the top level, and where images do, which some servers take as strings. */
const LISTS = new Set(["messages", "input"]);
const IMAGE_LISTS = new Set(["images", "image"]);

interface Range {
  readonly start: number;
  readonly end: number;
}

class Counting {
  bytes = 0;
  tokens = 0;
  tokensMax = 0;
  private readonly body: Buffer;

  constructor(body: Buffer) {
    this.body = body;
  }

  top(): void {
    const { body } = this;
    scanObject(body, skipSpace(body, 0), 0, (member, keyEnd, start) => {
      const key = decodeString(body, member, keyEnd);
      if (LISTS.has(key)) this.list(start, 1);
      else if (IMAGE_LISTS.has(key)) this.images(start);
      else if (key === "mask") this.thing(start, 1);
    });
  }

  private list(at: number, depth: number): void {
    if (this.body[at] === ARRAY) scanArray(this.body, at, depth, (start) => this.thing(start, depth + 1));
    else this.thing(at, depth);
  }

  private images(at: number): void {
    if (this.body[at] !== ARRAY) return;
    scanArray(this.body, at, 1, (start, end) => {
      if (this.body[start] === QUOTE) this.image({ start, end }, "data:image/");
      else this.thing(start, 2);
    });
  }

  /** A message, an item, or a part of one. */
  private thing(at: number, depth: number): void {
    if (this.body[at] !== OBJECT || depth > DEPTH_MAX) return;
    const fields = this.fieldsOf(at, depth);
    const { content, output } = fields;
    if (content !== undefined) this.list(content.start, depth + 1);
    if (output !== undefined) this.list(output.start, depth + 1);
    this.part(this.text(fields["type"]), fields, depth);
  }

  private part(type: string, fields: Readonly<Record<string, Range>>, depth: number): void {
    const inside = (name: string, key: string): Range | undefined => {
      const range = fields[name];
      if (range === undefined || this.body[range.start] !== OBJECT) return range;
      return this.fieldsOf(range.start, depth + 1)[key];
    };
    switch (type) {
      case "image_url":
      case "input_image":
      case "computer_screenshot":
      case "":
        return this.image(inside("image_url", "url"), "data:image/");
      case "image":
      case "document": {
        const source = fields["source"];
        if (source === undefined || this.body[source.start] !== OBJECT) return;
        const { type: kind, data } = this.fieldsOf(source.start, depth + 1);
        if (this.text(kind) !== "base64") return;
        return type === "image" ? this.image(data, "") : this.file(data);
      }
      case "input_audio":
        return this.audio(inside("input_audio", "data"));
      case "file":
        return this.file(inside("file", "file_data"));
      case "input_file":
        return this.file(fields["file_data"]);
      default:
    }
  }

  /** The last of members with the same name counts, as it does for parsers. */
  private fieldsOf(at: number, depth: number): Record<string, Range> {
    const fields = Object.create(null) as Record<string, Range>;
    scanObject(this.body, at, depth, (member, keyEnd, start, end) => {
      if (keyEnd - member <= TYPE_CHARS_MAX) fields[decodeString(this.body, member, keyEnd)] = { start, end };
    });
    return fields;
  }

  private text(range: Range | undefined): string {
    if (range === undefined || this.body[range.start] !== QUOTE || range.end - range.start > TYPE_CHARS_MAX) return "";
    return decodeString(this.body, range.start, range.end);
  }

  /** The bytes of a string that begins so; 0: it is none. */
  private sizeOf(range: Range | undefined, prefix: string): number {
    if (range === undefined || this.body[range.start] !== QUOTE) return 0;
    const from = range.start + 1;
    const begins = prefix === "" || this.body.toString("latin1", from, from + prefix.length) === prefix;
    return begins ? range.end - 1 - from : 0;
  }

  private image(range: Range | undefined, prefix: string): void {
    const bytes = this.sizeOf(range, prefix);
    if (bytes > 0) this.add(bytes, IMAGE_TOKENS, IMAGE_TOKENS_MAX);
  }

  private file(range: Range | undefined): void {
    const bytes = this.sizeOf(range, "");
    if (bytes > 0) this.add(bytes, IMAGE_TOKENS, FILE_TOKENS_MAX);
  }

  private audio(range: Range | undefined): void {
    const bytes = this.sizeOf(range, "");
    if (bytes > 0)
      this.add(bytes, Math.ceil(bytes / AUDIO_BYTES_PER_TOKEN), Math.ceil(bytes / AUDIO_BYTES_PER_TOKEN_MIN));
  }

  private add(bytes: number, tokens: number, tokensMax: number): void {
    this.bytes += bytes;
    this.tokens += tokens;
    this.tokensMax += Math.min(bytes, tokensMax);
  }
}

export function mediaOf(body: Buffer): Media {
  if (body.length < MEDIA_BODY_BYTES_MIN || !MARKS.some((mark) => body.includes(mark))) return NO_MEDIA;
  const counting = new Counting(body);
  try {
    counting.top();
  } catch (error) {
    // Bad escapes are left to the upstream: then all of it is text.
    if (!(error instanceof JsonScanError)) throw error;
    return NO_MEDIA;
  }
  return counting;
}

/** The most tokens that a body can be as input: one for each byte of text, and so many for media. */
export function inputTokensMax(body: Buffer, { bytes, tokensMax }: Media): number {
  return body.length - bytes + tokensMax;
}
