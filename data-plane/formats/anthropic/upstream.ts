/** PURE. Anthropic's Messages API as an upstream of chat completions (reference/UPSTREAM-FORMATS.md C). */

import type { ChatUpstream, HubTarget } from "../hub.ts";
import { chatAnswer } from "./answer.ts";
import { anthropicError } from "./errors.ts";
import { messagesBody } from "./request.ts";
import { AnthropicSource } from "./source.ts";

/** The version that takes what clients may still send; the newer one refuses `temperature` even at its default. */
export const ANTHROPIC_VERSION = "2023-06-01";

/** After a base URL without the version, such as `https://api.anthropic.com`. */
export const MESSAGES_PATH = "/v1/messages";

/** The path after a Provider's base path, which may end in the version. */
export function messagesPath(basePath: string): string {
  return /\/v1\/*$/.test(basePath) ? "/messages" : MESSAGES_PATH;
}

/** Headers of a call, flat, without those that authenticate. Nothing that is used here needs `anthropic-beta`. */
export function messagesHeaders(target: HubTarget): readonly string[] {
  return ["anthropic-version", target.apiVersion || ANTHROPIC_VERSION];
}

export const anthropicChat: ChatUpstream = {
  request: (chat, target) => ({
    path: MESSAGES_PATH,
    headers: messagesHeaders(target),
    body: messagesBody(chat, target),
  }),
  answer: (body) => chatAnswer(body),
  source: () => new AnthropicSource(),
  error: (status, _headers, body) => anthropicError(status, body),
};
