/** PURE. Calls chat completions at a server that speaks OpenAI's format, for clients that do not. */

import type { Dialect } from "./dialects.ts";
import { dialectRequest } from "./dialect_request.ts";
import { without } from "./dialect_rules.ts";
import type { HubCall, HubTarget, Json } from "./hub.ts";
import { objectOf } from "./json.ts";

const STREAM_FIELDS = ["stream", "stream_options"];

/** Usage is always asked for: whether the client hears of it is for its own format to say. */
function streamMembers(dialect: Dialect, chat: Json): Json {
  if (!dialect.streamOptions) return { stream: true };
  return { stream: true, stream_options: { ...objectOf(chat["stream_options"]), include_usage: true } };
}

/** The call for a request of the hub, after the base URL. */
export function openAiChatRequest(chat: Json, target: HubTarget, dialect: Dialect): HubCall {
  const model = target.family === "" ? target.model : target.family;
  const plain = without(dialectRequest(dialect, chat, model), STREAM_FIELDS);
  const body = { ...plain, model: target.model, ...(target.stream ? streamMembers(dialect, chat) : {}) };
  return { path: "/chat/completions", headers: [], body };
}
