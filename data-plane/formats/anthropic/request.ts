/**
 * PURE. A chat request as Anthropic's `POST /v1/messages`. Its fields are a whitelist: what Anthropic does not know is
 * answered with 400 there. Facts are from reference/UPSTREAM-FORMATS.md C3 and E1; docs/formats/anthropic.md has the table.
 */

import type { HubTarget, Json } from "../hub.ts";
import { countOf, isBlank, listOf, objectOf } from "../json.ts";
import { type Block, cacheOf } from "./content.ts";
import { type Conversation, conversationOf } from "./conversation.ts";
import { type Capabilities, capabilitiesOf } from "./models.ts";
import { optionalNumber, optionalText, refuse, unsupported } from "./refuse.ts";
import { lengthOf, type Thinking, thinkingOf } from "./thinking.ts";
import { type ToolPlan, toolPlan } from "./tools.ts";

/** So many places where a cache may begin are taken. */
export const BREAKPOINTS_MAX = 4;
const USER_ID_CHARS_MAX = 256;
/** From this version on `temperature` and its like are refused whatever they say. */
const NO_SAMPLING_VERSION = "2026-10-21";
/** While it thinks, `top_p` may be no lower. */
const THINKING_TOP_P_MIN = 0.95;

/** The body of the call. @throws RefusedFieldError */
export function messagesBody(chat: Json, target: HubTarget): Json {
  const capabilities = capabilitiesOf(target.family || target.model);
  refuseWhatCannotBe(chat);
  const talk = conversationOf(chat, capabilities);
  if (talk.prefill !== null && !capabilities.prefill)
    return refuse("unsupported_value", talk.prefill, "This model does not go on with a message of the assistant.");
  const plan = toolPlan(chat, capabilities, talk.called);
  const thinking = thinkingOf(
    chat,
    capabilities,
    lengthOf(chat, target, capabilities),
    budgetAllowed(talk, plan, capabilities),
  );
  const body: Record<string, unknown> = { model: target.model, max_tokens: thinking.maxTokens };
  const system = [...talk.system, ...plan.instructions.map((text) => ({ type: "text", text }))];
  if (system.length > 0) body["system"] = system;
  body["messages"] = talk.turns;
  if (plan.tools.length > 0) body["tools"] = plan.tools;
  if (plan.choice !== null) body["tool_choice"] = plan.choice;
  if (thinking.thinking !== null) body["thinking"] = thinking.thinking;
  const output = { ...(thinking.effort && { effort: thinking.effort }), ...(plan.format && { format: plan.format }) };
  if (Object.keys(output).length > 0) body["output_config"] = output;
  Object.assign(body, sampling(chat, target, capabilities, thinking), others(chat));
  if (target.stream) body["stream"] = true;
  limitBreakpoints(body);
  return body;
}

/** With a budget there is no forced call, nothing to go on with, and no call that was not thought about. */
function budgetAllowed(talk: Conversation, plan: ToolPlan, capabilities: Capabilities): boolean {
  if (plan.forced && capabilities.rejectsForcedToolsThinking) return false;
  return talk.prefill === null && !talk.calledUnthinking;
}

function refuseWhatCannotBe(chat: Json): void {
  const n = optionalNumber(chat, "n");
  if (n !== undefined && n !== 1) refuse("unsupported_value", "n", "This model gives one answer at a time.");
  if (chat["audio"] !== undefined && chat["audio"] !== null) unsupported("audio", "Audio output");
  if (listOf(chat["modalities"]).includes("audio"))
    refuse("unsupported_value", "modalities", "Audio output is not supported by this model.");
  if (chat["web_search_options"] !== undefined && chat["web_search_options"] !== null)
    unsupported("web_search_options", "Web search");
}

function sampling(chat: Json, target: HubTarget, capabilities: Capabilities, thinking: Thinking): Json {
  const temperature = optionalNumber(chat, "temperature");
  const topP = optionalNumber(chat, "top_p");
  const topK = countOf(chat["top_k"]);
  if (capabilities.rejectsSampling || target.apiVersion >= NO_SAMPLING_VERSION) return {};
  const out: Record<string, unknown> = {};
  if (temperature !== undefined && !thinking.on) out["temperature"] = Math.min(temperature, 1);
  const both = out["temperature"] !== undefined && capabilities.temperatureXorTopP;
  if (topP !== undefined && !both && (!thinking.on || topP >= THINKING_TOP_P_MIN)) out["top_p"] = topP;
  if (topK !== undefined && topK > 0 && !thinking.on) out["top_k"] = topK;
  return out;
}

function others(chat: Json): Json {
  const out: Record<string, unknown> = {};
  const stop = stopSequences(chat["stop"]);
  if (stop.length > 0) out["stop_sequences"] = stop;
  const user = optionalText(chat, "safety_identifier", "safety_identifier") || optionalText(chat, "user", "user");
  if (user) out["metadata"] = { user_id: user.slice(0, USER_ID_CHARS_MAX) };
  const tier = chat["service_tier"];
  if (tier === "auto") out["service_tier"] = "auto";
  if (tier === "default") out["service_tier"] = "standard_only";
  const cache = cacheOf(chat);
  if (cache !== undefined) out["cache_control"] = cache;
  return out;
}

function stopSequences(stop: unknown): readonly string[] {
  if (stop === undefined || stop === null) return [];
  const list: readonly unknown[] = Array.isArray(stop) ? (stop as unknown[]) : [stop];
  if (!list.every((each) => typeof each === "string"))
    return refuse("invalid_type", "stop", "`stop` must be a string or a list of strings.");
  return list.filter((each) => !isBlank(each));
}

/** Of too many breakpoints the last ones stay: they are those that the most stands before. */
function limitBreakpoints(body: Record<string, unknown>): void {
  const own = body["cache_control"] === undefined ? 0 : 1;
  const marked: Block[] = [];
  const look = (blocks: unknown): void => {
    for (const each of listOf(blocks)) {
      const block = objectOf(each) as Block;
      look(block["content"]);
      if (block["cache_control"] !== undefined) marked.push(block);
    }
  };
  look(body["tools"]);
  look(body["system"]);
  for (const turn of listOf(body["messages"])) look(objectOf(turn)["content"]);
  for (const block of marked.slice(0, Math.max(0, marked.length - (BREAKPOINTS_MAX - own))))
    delete block["cache_control"];
}
