/** PURE. Server-sent events of Messages: each is named, and its data says the name again. */

import type { Json } from "../hub.ts";

export function frame(event: string, data: Json): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** Keeps an idle stream alive; allowed anywhere after the beginning of the message. */
export const PING_FRAME = frame("ping", { type: "ping" });
