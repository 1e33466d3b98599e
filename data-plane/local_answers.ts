/** PURE. Answers that the gateway makes by itself, in the shape of the client. */

import type { ScannedBody } from "./body.ts";
import type { WalletBalance } from "./budget/budget.ts";
import type { PipelineDeps } from "./deps.ts";
import { bareId } from "./formats/call.ts";
import type { ClientShape } from "./formats/format.ts";
import { messagesMagicJson, messagesMagicStream, warmUpJson, warmUpStream } from "./formats/messages/magic.ts";
import { magicJson, magicStream, magicText } from "./magic.ts";
import { responseJson, responseStream } from "./magic_responses.ts";
import type { RouteVe } from "./route_types.ts";

export interface LocalAnswer {
  readonly stream: boolean;
  readonly body: Buffer;
}

/** `balance` null: nothing was heard of the wallet. `nowMs` is of the wall clock. */
export function magicAnswer(
  { table, budget }: Pick<PipelineDeps, "table" | "budget">,
  ve: RouteVe,
  balance: WalletBalance | null,
  shape: ClientShape,
  id: string,
  arriveMs: number,
  body: ScannedBody,
  nowMs: number,
): LocalAnswer {
  const text = magicText(table, ve, balance, budget.isLow(ve.id), nowMs);
  const { stream, model } = body;
  const createdS = Math.floor(arriveMs / 1000);
  if (shape === "messages")
    return { stream, body: (stream ? messagesMagicStream : messagesMagicJson)(bareId(id), model, text) };
  if (shape === "responses")
    return { stream, body: (stream ? responseStream : responseJson)(bareId(id), createdS, model, text) };
  const made = stream ? magicStream(id, createdS, model, text, body.usageAsked) : magicJson(id, createdS, model, text);
  return { stream, body: made };
}

/** No upstream lets others fill its caches through us: there is nothing to do. */
export function warmUpAnswer(id: string, { stream, model }: ScannedBody): LocalAnswer {
  return { stream, body: (stream ? warmUpStream : warmUpJson)(bareId(id), model) };
}
