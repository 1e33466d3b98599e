/**
 * PURE. AWS Bedrock's Converse and ConverseStream as an upstream of chat completions. Facts are from
 * reference/UPSTREAM-FORMATS.md D and E1; docs/formats/bedrock.md has the table of all fields.
 */

import { encodeSegment } from "../../aws/sigv4.ts";
import { type ChatUpstream, type HubCall, type HubTarget, type Json, RefusedFieldError } from "../hub.ts";
import { listOf, objectOf } from "../json.ts";
import { chatCompletionOf } from "./answer.ts";
import { conversationOf } from "./content.ts";
import { bedrockError } from "./errors.ts";
import { familyOf } from "./family.ts";
import { inferenceConfigOf, outputLimitOf, reasoningOf, topKOf, wantsReasoning } from "./reasoning.ts";
import { ConverseSource } from "./source.ts";
import { planTools } from "./tools.ts";

/** As Converse has it. */
const METADATA_PAIRS_MAX = 16;
const METADATA_TEXT = /^[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}$/;
const TIERS = new Set(["flex", "priority"]);
/** So many cache points are taken, as at Anthropic. */
const CACHE_POINTS_MAX = 4;

/** What nothing on Converse answers to, and whose absence the client would notice. */
function refuse(chat: Json): void {
  const { n, audio, modalities, web_search_options } = chat;
  if (typeof n === "number" && n > 1)
    throw new RefusedFieldError("unsupported_value", "n", "This model gives one answer at a time: `n` must be 1.");
  if (typeof audio === "object" && audio !== null)
    throw new RefusedFieldError("unsupported_parameter", "audio", "This model gives no audio.");
  if (listOf(modalities).some((each) => each !== "text"))
    throw new RefusedFieldError("unsupported_value", "modalities", "This model answers in text only.");
  for (const param of ["functions", "function_call"]) {
    if (chat[param] !== undefined && chat[param] !== null)
      throw new RefusedFieldError(
        "unsupported_parameter",
        param,
        `Use \`tools\` and \`tool_choice\` instead of \`${param}\`.`,
      );
  }
  if (typeof web_search_options === "object" && web_search_options !== null)
    throw new RefusedFieldError("unsupported_parameter", "web_search_options", "This model cannot search the web.");
}

/** Who is asking, for the account's own logs. What the field does not take is left out. */
function requestMetadata(chat: Json): Json {
  const { user, safety_identifier, metadata } = chat;
  const pairs = Object.entries(objectOf(metadata));
  const who = user ?? safety_identifier;
  if (who !== undefined) pairs.unshift(["user", who]);
  const kept = pairs.filter(
    ([name, value]) => METADATA_TEXT.test(name) && typeof value === "string" && METADATA_TEXT.test(value),
  );
  // `user` stands first, and wins over a pair of that name.
  return Object.fromEntries(kept.slice(0, METADATA_PAIRS_MAX).toReversed());
}

/** The path of a model's call: ids and ARNs are one segment. */
export function modelPath(model: string, call: string): string {
  return `/model/${encodeSegment(model)}/${call}`;
}

/** Of too many cache points the last ones stay: they are those that the most stands before. */
function limitCachePoints(body: Record<string, unknown>): void {
  const lists = [
    objectOf(body["toolConfig"])["tools"],
    body["system"],
    ...listOf(body["messages"]).map((message) => objectOf(message)["content"]),
  ].map((list) => listOf(list) as unknown[]);
  const isPoint = (block: unknown) => objectOf(block)["cachePoint"] !== undefined;
  let surplus = lists.flat().filter(isPoint).length - CACHE_POINTS_MAX;
  for (const list of lists) {
    for (let at = 0; at < list.length && surplus > 0; at++) {
      if (!isPoint(list[at])) continue;
      list.splice(at--, 1);
      surplus--;
    }
  }
}

function request(chat: Json, target: HubTarget): HubCall {
  refuse(chat);
  const family = familyOf(target);
  const tools = planTools(chat, family, wantsReasoning(chat));
  const { system, messages } = conversationOf(chat, family, tools.toolConfig === null);
  const limit = outputLimitOf(chat, target, family);
  const reasoning = reasoningOf(chat, family, limit, tools.forced);
  const inferenceConfig = inferenceConfigOf(chat, family, limit, reasoning);
  const { toolConfig, toolChoice, outputConfig, instruction } = tools;
  const fields = {
    ...reasoning.fields,
    ...topKOf(chat, family, reasoning),
    ...(toolChoice === null ? {} : { tool_choice: toolChoice }),
  };
  const metadata = requestMetadata(chat);
  const tier = chat["service_tier"];
  const instructions = instruction === null ? system : [...system, { text: instruction }];
  const body: Record<string, unknown> = { messages };
  if (instructions.length > 0) body["system"] = instructions;
  if (Object.keys(inferenceConfig).length > 0) body["inferenceConfig"] = inferenceConfig;
  if (toolConfig !== null) body["toolConfig"] = toolConfig;
  if (Object.keys(fields).length > 0) body["additionalModelRequestFields"] = fields;
  if (outputConfig !== null) body["outputConfig"] = outputConfig;
  if (Object.keys(metadata).length > 0) body["requestMetadata"] = metadata;
  if (typeof tier === "string" && TIERS.has(tier)) body["serviceTier"] = { type: tier };
  limitCachePoints(body);
  return {
    path: modelPath(target.model, target.stream ? "converse-stream" : "converse"),
    headers: ["accept", target.stream ? "application/vnd.amazon.eventstream" : "application/json"],
    body,
  };
}

/** Streams are binary: split them with `EventStreamSplitter` and read their frames with `parseEventFrame`. */
export const converseChat: ChatUpstream = {
  request,
  answer: (body) => chatCompletionOf(body),
  source: () => new ConverseSource(),
  error: bedrockError,
};
