/**
 * PURE. Chat requests at an upstream that only has the Responses API. Nothing is stored there; reasoning that has to be
 * replayed travels in `thinking_blocks`, see `reasoning.ts`. See docs/formats/responses.md.
 */

import type { ChatUpstream } from "../hub.ts";
import { openAiError } from "../openai.ts";
import { chatAnswer } from "./upstream_answer.ts";
import { responsesRequest } from "./upstream_request.ts";
import { ResponsesSource } from "./upstream_source.ts";

export const responsesChat: ChatUpstream = {
  request: (chat, target) => ({ path: "/responses", headers: [], body: responsesRequest(chat, target) }),
  answer: (body) => chatAnswer(body),
  source: () => new ResponsesSource(),
  error: openAiError,
};
