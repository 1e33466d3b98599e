/**
 * PURE. Looks for a few members at the top level of a JSON object that may be many megabytes long and comes in pieces:
 * base64 is skipped with native searches, and only the values that are asked for are kept.
 */

/** Of one value that is kept; a longer one is not. */
export const VALUE_BYTES_MAX = 16 * 1024;
const KEY_BYTES_MAX = 64;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const ARRAY = 0x5b;
const ARRAY_END = 0x5d;

export class TopLevel {
  /** Objects directly in the array that was to be counted. */
  counted = 0;
  /** That array was seen. */
  hasArray = false;
  private readonly wanted: ReadonlySet<string>;
  private readonly array: string;
  private readonly values = new Map<string, unknown>();
  private depth = 0;
  private begun = false;
  /** What stands here is no object, or its brackets do not fit. */
  private broken = false;
  private inString = false;
  /** The string began at the top level, where a key stands. */
  private inKey = false;
  private escaped = false;
  private expectsKey = false;
  private key = "";
  private keyBytes: number[] = [];
  private inArray = false;
  /** The present value is kept. */
  private keeping = false;
  private kept: Buffer[] = [];
  private keptBytes = 0;

  /**
   * @param wanted members whose values are kept, the last one if a member comes twice
   * @param array a member that is an array: the objects in it are counted
   */
  constructor(wanted: ReadonlySet<string>, array = "") {
    this.wanted = wanted;
    this.array = array;
  }

  /** The object has come to its end, and nothing but blanks came after it. */
  get complete(): boolean {
    return this.begun && !this.broken && this.depth === 0;
  }

  /** The value of a member, undefined if there was none, or it was too long. */
  value(name: string): unknown {
    return this.values.get(name);
  }

  /** True if one of the wanted members is there and is not null, however long it is. */
  has(name: string): boolean {
    return this.values.has(name) && this.values.get(name) !== null;
  }

  push(chunk: Buffer): void {
    let from = 0;
    let at = 0;
    while (at < chunk.length && !this.broken) {
      if (this.inString) {
        at = this.string(chunk, at);
        continue;
      }
      const byte = chunk[at]!;
      if (byte === QUOTE) {
        this.inString = true;
        this.inKey = this.depth === 1 && this.expectsKey;
        if (this.inKey) this.keyBytes = [];
        at++;
      } else if (byte <= 0x20) {
        at++;
      } else {
        const wasKeeping = this.keeping;
        if (wasKeeping && this.depth === 1 && (byte === COMMA || byte === OBJECT_END)) {
          this.keep(chunk, from, at);
          this.valueEnds();
        }
        this.mark(byte);
        at++;
        if (!wasKeeping && this.keeping) from = at;
      }
    }
    if (this.keeping) this.keep(chunk, from, chunk.length);
  }

  /** Inside a string; returns where to go on. */
  private string(chunk: Buffer, at: number): number {
    if (this.inKey) return this.keyByte(chunk, at);
    let pos = at;
    if (this.escaped) {
      this.escaped = false;
      pos++;
    }
    for (;;) {
      const quote = chunk.indexOf(QUOTE, pos);
      const end = quote === -1 ? chunk.length : quote;
      let before = end - 1;
      while (before >= pos && chunk[before] === BACKSLASH) before--;
      const odd = ((end - 1 - before) & 1) === 1;
      if (quote === -1) {
        this.escaped = odd;
        return end;
      }
      pos = quote + 1;
      if (!odd) {
        this.inString = false;
        return pos;
      }
    }
  }

  /** Keys that matter are short and have no escapes, or are decoded. */
  private keyByte(chunk: Buffer, at: number): number {
    const byte = chunk[at]!;
    if (this.escaped) this.escaped = false;
    else if (byte === BACKSLASH) this.escaped = true;
    else if (byte === QUOTE) {
      this.inString = this.inKey = this.expectsKey = false;
      this.key = decodeKey(Buffer.from(this.keyBytes));
      return at + 1;
    }
    if (this.keyBytes.length < KEY_BYTES_MAX) this.keyBytes.push(byte);
    return at + 1;
  }

  private mark(byte: number): void {
    if (this.depth === 0) {
      if (byte !== OBJECT || this.begun) this.broken = true;
      this.begun = true;
      this.depth = 1;
      this.expectsKey = true;
      return;
    }
    switch (byte) {
      case COLON:
        if (this.depth === 1 && !this.keeping) {
          this.inArray = false;
          this.keeping = this.wanted.has(this.key);
        }
        break;
      case COMMA:
        if (this.depth === 1) this.expectsKey = true;
        break;
      case OBJECT:
      case ARRAY:
        this.opens(byte);
        break;
      case OBJECT_END:
      case ARRAY_END:
        this.depth--;
        break;
    }
  }

  private opens(byte: number): void {
    if (this.depth === 1 && byte === ARRAY && this.key === this.array) {
      this.inArray = this.hasArray = true;
      this.counted = 0;
    } else if (this.depth === 2 && byte === OBJECT && this.inArray) {
      this.counted++;
    }
    this.depth++;
  }

  private keep(chunk: Buffer, from: number, to: number): void {
    this.keptBytes += to - from;
    if (this.keptBytes <= VALUE_BYTES_MAX) this.kept.push(Buffer.from(chunk.subarray(from, to)));
  }

  private valueEnds(): void {
    const bytes = this.keptBytes <= VALUE_BYTES_MAX ? Buffer.concat(this.kept) : null;
    this.keeping = false;
    this.kept = [];
    this.keptBytes = 0;
    try {
      this.values.set(this.key, bytes === null ? undefined : JSON.parse(bytes.toString("utf8")));
    } catch {
      this.broken = true;
    }
  }
}

function decodeKey(bytes: Buffer): string {
  const raw = bytes.toString("utf8");
  if (!raw.includes("\\")) return raw;
  try {
    return JSON.parse(`"${raw}"`) as string;
  } catch {
    return raw;
  }
}
