/** PURE. Clients that speak Anthropic Messages: its SDKs, Claude Code. See docs/formats/messages.md. */

import type { ChatClient } from "../hub.ts";
import { messagesAnswer } from "./answer.ts";
import { chatRequest } from "./request.ts";
import { MessagesSink } from "./sink.ts";

/** `anthropic-version` is not part of a body: `checkVersion` comes before. */
export const messagesClient: ChatClient = {
  request: chatRequest,
  answer: messagesAnswer,
  sink: (context) => new MessagesSink(context),
};
