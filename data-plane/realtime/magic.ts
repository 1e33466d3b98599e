/**
 * The Magic Command in a session: a user's message that is exactly `/tokenbill`, and the `response.create` after it. Both
 * stay here: the answer is made by the gateway, free, and also when the wallet is empty.
 */

import { magicText } from "../magic.ts";
import { type EventHead, fieldsOf, parseEvent, textOf } from "./events.ts";
import type { Party } from "./turn.ts";

const COMMAND = "/tokenbill";
/** Longer events are not looked into: there is more in them than the command. */
const EVENT_BYTES_MAX = 4096;

const NO_USAGE = { total_tokens: 0, input_tokens: 0, output_tokens: 0 };

/** The item of such a message; null: it is another one. */
function commandItem(frame: Buffer): Record<string, unknown> | null {
  if (frame.length > EVENT_BYTES_MAX || !frame.includes(COMMAND)) return null;
  const item = fieldsOf(parseEvent(frame)["item"]);
  const content: unknown = item["content"];
  if (item["role"] !== "user" || !Array.isArray(content) || content.length !== 1) return null;
  const { type, text } = fieldsOf(content[0]) as { type?: unknown; text?: unknown };
  return type === "input_text" && typeof text === "string" && text.trim() === COMMAND ? item : null;
}

export class Magic {
  private readonly party: Party;
  private readonly send: (event: Buffer) => void;
  /** The last message was the command. */
  private asked = false;

  /** `send` takes events for the client. */
  constructor(party: Party, send: (event: Buffer) => void) {
    this.party = party;
    this.send = send;
  }

  /** True: the event was part of it, and must not go upstream. */
  takes(head: EventHead, frame: Buffer): boolean {
    if (head.type === "response.create" && this.asked) {
      this.asked = false;
      this.answer();
      return true;
    }
    if (head.type !== "conversation.item.create") return false;
    const item = commandItem(frame);
    this.asked = item !== null;
    if (item === null) return false;
    const id = textOf(item["id"]) || this.newId("item_");
    const added = { ...item, id, object: "realtime.item", status: "completed" };
    this.event({ type: "conversation.item.added", previous_item_id: null, item: added });
    this.event({ type: "conversation.item.done", previous_item_id: null, item: added });
    return true;
  }

  private answer(): void {
    const { core, key } = this.party;
    const { budget, table, metrics } = core.deps;
    budget.readBalance(key.ve.id, (balance) => {
      this.say(magicText(table, key.ve, balance, budget.isLow(key.ve.id), core.wallNow()));
      metrics.request(0, 200, 0, 0);
    });
  }

  /** The events of a response of one text. */
  private say(text: string): void {
    const response_id = this.newId("resp_");
    const item_id = this.newId("item_");
    const response = {
      object: "realtime.response",
      id: response_id,
      conversation_id: null,
      output_modalities: ["text"],
    };
    const item = { id: item_id, object: "realtime.item", type: "message", role: "assistant" };
    const at = { response_id, output_index: 0 };
    const part = { ...at, item_id, content_index: 0 };
    const done = { ...item, status: "completed", content: [{ type: "output_text", text }] };
    const events = [
      { type: "response.created", response: { ...response, status: "in_progress", output: [], usage: null } },
      { type: "response.output_item.added", ...at, item: { ...item, status: "in_progress", content: [] } },
      { type: "response.content_part.added", ...part, part: { type: "text", text: "" } },
      { type: "response.output_text.delta", ...part, delta: text },
      { type: "response.output_text.done", ...part, text },
      { type: "response.content_part.done", ...part, part: { type: "text", text } },
      { type: "response.output_item.done", ...at, item: done },
      { type: "response.done", response: { ...response, status: "completed", output: [done], usage: NO_USAGE } },
    ];
    for (const event of events) this.event(event);
  }

  private event(event: Record<string, unknown>): void {
    this.send(Buffer.from(JSON.stringify({ event_id: this.newId("event_"), ...event })));
  }

  /** Ids that no upstream makes. */
  private newId(prefix: string): string {
    return prefix + this.party.core.deps.newId("usg_");
  }
}
