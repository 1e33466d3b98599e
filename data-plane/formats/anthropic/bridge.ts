/** PURE. Messages clients at an upstream that speaks Messages: bytes pass through, but for what `through.ts` has to change. */

import { changeBody } from "../../body.ts";
import { SseSplitter } from "../../sse.ts";
import { CALL_HEADERS, pathOf, targetOf } from "../call.ts";
import type { Bridge } from "../format.ts";
import { anthropicError } from "./errors.ts";
import { AnthropicAnswer, AnthropicStream, usageInTail } from "./native.ts";
import { throughChanges } from "./through.ts";
import { MESSAGES_PATH, messagesHeaders } from "./upstream.ts";

/** Features in trial that clients ask for by a header go upstream as they came, but for what looks like none. */
const BETA = "anthropic-beta";
const BETAS = /^[A-Za-z0-9_.,\s-]{1,1024}$/;

function betasOf(forwarded: readonly string[]): readonly string[] {
  const at = forwarded.indexOf(BETA);
  const value = at === -1 ? "" : forwarded[at + 1]!;
  return BETAS.test(value) ? [BETA, value] : [];
}

export const anthropicBridge: Bridge = {
  translated: false,
  whole: false,
  request(pm, asked, forwarded) {
    const { provider } = pm;
    const accept = asked.stream ? "text/event-stream" : "application/json";
    const own = ["content-type", "application/json", "accept", accept, ...CALL_HEADERS, ...provider.headers];
    const changes = {
      model: pm.upstreamName,
      includeUsage: false,
      outputTokensMax: asked.clampTo,
      outputTokensField: "max_tokens",
    } as const;
    return {
      origin: provider.origin,
      path: pathOf(pm, MESSAGES_PATH),
      method: "POST",
      headers: [...own, ...messagesHeaders(targetOf(pm, asked.stream)), ...betasOf(forwarded)],
      body: changeBody(asked.body, changes, throughChanges(asked.body, asked.clampTo)),
    };
  },
  error: (status, _headers, body) => anthropicError(status, body),
  readAnswer: (body) => new AnthropicAnswer(body),
  readTail: (tail) => usageInTail(tail),
  streamReader: () => new AnthropicStream(),
  splitter: () => new SseSplitter(),
};
