/** PURE. What of a realtime event matters here, found on its bytes; and the events that the gateway makes itself. */

import type { ErrorFields } from "../errors.ts";
import { decodeString, JsonScanError, scanObject, skipSpace, skipString } from "../json_scan.ts";

/** Where a member's value stands in the frame. */
export type Range = readonly [start: number, end: number];

export interface EventHead {
  /** "": it has none. */
  readonly type: string;
  /** A member that matters stands there twice: the two sides might not read the same one. */
  readonly ambiguous: boolean;
  readonly eventId: string;
  readonly responseId: string;
  /** Bytes of the `delta` between its quotes, 0 if it has none. */
  readonly deltaBytes: number;
  /** Bytes of the `audio` between its quotes. */
  readonly audioBytes: number;
}

/** Longer keys are none that matter, escapes included. */
const KEY_BYTES_MAX = 64;
const ID_CHARS_MAX = 128;
const QUOTE = 0x22;
const COLON = 0x3a;

const NAMES = new Set(["type", "event_id", "response_id", "delta", "audio", "session", "response"]);

/** Null: the frame is no JSON object. */
export function readHead(frame: Buffer): EventHead | null {
  const found = new Map<string, Range>();
  let ambiguous = false;
  try {
    scanObject(frame, skipSpace(frame, 0), 0, (start, keyEnd, valueStart, valueEnd) => {
      if (keyEnd - start > KEY_BYTES_MAX) return;
      const name = decodeString(frame, start, keyEnd);
      if (!NAMES.has(name)) return;
      if (found.has(name)) ambiguous = true;
      found.set(name, [valueStart, valueEnd]);
    });
    const text = (name: string): string => {
      const range = found.get(name);
      if (range === undefined || frame[range[0]] !== QUOTE || range[1] - range[0] > ID_CHARS_MAX) return "";
      return decodeString(frame, range[0], range[1]);
    };
    const bytes = (name: string): number => {
      const range = found.get(name);
      return range === undefined || frame[range[0]] !== QUOTE ? 0 : range[1] - range[0] - 2;
    };
    return {
      type: text("type"),
      ambiguous,
      eventId: text("event_id"),
      responseId: text("response_id"),
      deltaBytes: bytes("delta"),
      audioBytes: bytes("audio"),
    };
  } catch (error) {
    if (error instanceof JsonScanError) return null;
    throw error;
  }
}

export type Fields = Readonly<Record<string, unknown>>;

export function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

/** The whole event. Empty if it is no JSON object. */
export function parseEvent(frame: Buffer): Fields {
  try {
    return fieldsOf(JSON.parse(frame.toString("utf8")));
  } catch {
    return {};
  }
}

export function textOf(value: unknown): string {
  return typeof value === "string" && value.length <= ID_CHARS_MAX ? value : "";
}

/** What an event with content brings along: text, audio and images. */
export interface Media {
  readonly textBytes: number;
  /** Bytes of base64. */
  readonly audioBytes: number;
  readonly images: number;
}

const AUDIO_KEY = Buffer.from('"audio"');
const DATA_URL = Buffer.from(";base64,");

/** Base64 has no escapes, so that its ends are found by searching. */
export function mediaOf(frame: Buffer): Media {
  let audioBytes = 0;
  let imageBytes = 0;
  let images = 0;
  for (let at = frame.indexOf(AUDIO_KEY); at !== -1; at = frame.indexOf(AUDIO_KEY, at + AUDIO_KEY.length)) {
    const colon = skipSpace(frame, at + AUDIO_KEY.length);
    const value = skipSpace(frame, colon + 1);
    if (frame[colon] === COLON && frame[value] === QUOTE)
      audioBytes += Math.max(0, skipString(frame, value) - value - 2);
  }
  for (let at = frame.indexOf(DATA_URL); at !== -1;) {
    const end = frame.indexOf(QUOTE, at);
    imageBytes += (end === -1 ? frame.length : end) - at;
    images++;
    at = end === -1 ? -1 : frame.indexOf(DATA_URL, end);
  }
  return { textBytes: Math.max(0, frame.length - audioBytes - imageBytes), audioBytes, images };
}

/** An `error` event as the upstream sends them, so that clients need to know one kind only. `to`: the client's event. */
export function errorEvent(id: string, fields: ErrorFields, to = ""): Buffer {
  const { message, type, param = null, code, checkout_url } = fields;
  const error = { type, code, message, param, event_id: to === "" ? null : to, checkout_url };
  return Buffer.from(JSON.stringify({ type: "error", event_id: `event_${id}`, error }));
}

export function cancelEvent(responseId: string): Buffer {
  return Buffer.from(
    JSON.stringify({ type: "response.cancel", ...(responseId === "" ? {} : { response_id: responseId }) }),
  );
}

/** A `response.create` whose answer has `tokens` at most. */
export function limitOutput(frame: Buffer, tokens: number): Buffer {
  const event = parseEvent(frame);
  const response = fieldsOf(event["response"]);
  return Buffer.from(JSON.stringify({ ...event, response: { ...response, max_output_tokens: tokens } }));
}

/**
 * A `session.update` as the upstream knows the model: as it came if it names none or the upstream's, and with that in place
 * of the client's own name for it. Null: it names another one.
 */
export function withModel(frame: Buffer, own: string, upstreamName: string): Buffer | null {
  const event = parseEvent(frame);
  const session = fieldsOf(event["session"]);
  const { model = null } = session as { model?: unknown };
  if (model === null || model === upstreamName) return frame;
  if (model !== own) return null;
  return Buffer.from(JSON.stringify({ ...event, session: { ...session, model: upstreamName } }));
}

/** `max_output_tokens` of a response or session; 0: none, or `inf`. The older name counts too. */
export function outputLimitOf(fields: Fields): number {
  const limit = fields["max_output_tokens"] ?? fields["max_response_output_tokens"];
  return typeof limit === "number" && Number.isInteger(limit) && limit > 0 ? limit : 0;
}
