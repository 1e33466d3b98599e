/** PURE. The Magic Command: `/tokenbill` as a chat message tells how the VE stands. Free, and without any upstream. */

import { formatCredits } from "../core/credits.ts";
import { lastUserText, mayHold, type ScannedBody } from "./body.ts";
import type { WalletBalance } from "./budget/budget.ts";
import { checkoutUrl } from "./checkout_link.ts";
import type { ClientShape } from "./formats/format.ts";
import type { Json } from "./formats/hub.ts";
import { listOf, objectOf, parseObject, textOf } from "./formats/json.ts";
import { lastUserText as lastMessagesText } from "./formats/messages/last_text.ts";
import type { RouteTable } from "./route_table.ts";
import type { RouteVe } from "./route_types.ts";

const COMMAND = "/tokenbill";

/** The last user message, trimmed, is exactly the command. */
export function isMagic(body: ScannedBody, shape: ClientShape): boolean {
  // With its slash, which is rarer than letters: a native search is many times as fast.
  if (shape === "chat") return lastUserText(body, COMMAND)?.trim() === COMMAND;
  if (!mayHold(body.bytes, COMMAND)) return false;
  const parsed = parseObject(body.bytes) ?? {};
  const text = shape === "messages" ? lastMessagesText(parsed) : lastInputText(parsed);
  return text?.trim() === COMMAND;
}

/** The same of a Responses body: its input is a text, or items whose last message of the user is text alone. */
function lastInputText(body: Json): string | null {
  const { input } = body;
  if (typeof input === "string") return input;
  const last = listOf(input)
    .map(objectOf)
    .findLast(({ role }) => role === "user");
  if (last === undefined) return null;
  if (typeof last["content"] === "string") return last["content"];
  const parts = listOf(last["content"]).map(objectOf);
  const texts = parts.every(({ type, text }) => type === "input_text" && typeof text === "string");
  return texts && parts.length > 0 ? parts.map(({ text }) => textOf(text)).join("") : null;
}

/**
 * `balance` is null when nothing was heard of the wallet: then its fields are null too. `nowMs` is of the wall clock, for
 * the link.
 */
export function magicText(
  table: RouteTable,
  ve: RouteVe,
  balance: WalletBalance | null,
  low: boolean,
  nowMs: number,
): string {
  const info: Record<string, unknown> = {
    ve_id: ve.id,
    name: ve.name,
    credit_remaining: balance === null ? null : formatCredits(balance.creditRemaining),
    credit_budget: balance === null ? null : formatCredits(balance.creditBudget),
    logical_models: [...table.logicalModels(ve)].map((lm) => lm.spec.name).sort(),
  };
  const isLow = low || (balance !== null && (balance.creditRemaining <= 0n || balance.creditRemaining < ve.lowBalance));
  if (isLow) info["checkout_url"] = checkoutUrl(ve, nowMs);
  return `TokenBill VE Info\n${JSON.stringify(info, null, 2)}`;
}

const NO_USAGE = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };

/** The answer as a `chat.completion`. */
export function magicJson(id: string, createdS: number, model: string, text: string): Buffer {
  return Buffer.from(
    JSON.stringify({
      id: `chatcmpl-${id}`,
      object: "chat.completion",
      created: createdS,
      model,
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: text, refusal: null },
          logprobs: null,
          finish_reason: "stop",
        },
      ],
      usage: NO_USAGE,
    }),
  );
}

/** The answer as `chat.completion.chunk` frames and `[DONE]`, with a usage chunk if the client asked for one. */
export function magicStream(id: string, createdS: number, model: string, text: string, usageAsked: boolean): Buffer {
  const frame = (choices: readonly unknown[], usage: unknown): string => {
    const chunk: Record<string, unknown> = {
      id: `chatcmpl-${id}`,
      object: "chat.completion.chunk",
      created: createdS,
      model,
      choices,
    };
    if (usageAsked) chunk["usage"] = usage;
    return `data: ${JSON.stringify(chunk)}\n\n`;
  };
  const choice = (delta: unknown, reason: string | null) => [
    { index: 0, delta, logprobs: null, finish_reason: reason },
  ];
  return Buffer.from(
    frame(choice({ role: "assistant", content: "" }, null), null) +
      frame(choice({ content: text }, null), null) +
      frame(choice({}, "stop"), null) +
      (usageAsked ? frame([], NO_USAGE) : "") +
      "data: [DONE]\n\n",
  );
}
