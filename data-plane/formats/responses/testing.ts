/** For tests only: golden pairs of Responses clients, and chat completions as streams. */

import { readFileSync } from "node:fs";
import type { ChatDelta, HubContext, Json } from "../hub.ts";
import { listOf, objectOf, textOf } from "../json.ts";
import { responsesClient } from "./client.ts";

export function textFixture(name: string): string {
  return readFileSync(new URL(`../../../test/fixtures/responses/${name}`, import.meta.url), "utf8");
}

function fixture<T>(name: string): T {
  return JSON.parse(textFixture(name)) as T;
}

export const REQUESTS = fixture<{ name: string; responses: Json; chat: Json }[]>("client_requests.json");
export const ANSWERS =
  fixture<{ name: string; chat: Json; status: string; incomplete_details: Json | null; output: Json[]; usage: Json }[]>(
    "client_answers.json",
  );

export const context = (request: Json = {}): HubContext => ({
  id: "r1",
  createdS: 1_700_000_000,
  model: "lm",
  request,
});

export const delta = (fields: Json, finishReason: string | null = null, logprobs?: unknown): ChatDelta => ({
  index: 0,
  delta: fields,
  finishReason,
  logprobs,
});

/** The deltas of a chat completion, its strings cut into pieces and its calls of tools in turns. */
function deltasOf(chat: Json, cut: (text: string) => string[]): ChatDelta[] {
  const choice = objectOf(listOf(chat["choices"])[0]);
  const message = objectOf(choice["message"]);
  const deltas = [delta({ role: "assistant", content: "" })];
  for (const text of cut(textOf(message["reasoning_content"]))) deltas.push(delta({ reasoning_content: text }));
  const blocks = listOf(message["thinking_blocks"]);
  if (blocks.length > 0) deltas.push(delta({ thinking_blocks: blocks }));
  const logprobs = choice["logprobs"];
  const texts = cut(textOf(message["content"]));
  texts.forEach((content, at) => deltas.push(delta({ content }, null, at === 0 ? logprobs : undefined)));
  if (message["annotations"]) deltas.push(delta({ annotations: message["annotations"] }));
  for (const refusal of cut(textOf(message["refusal"]))) deltas.push(delta({ refusal }));
  const calls = listOf(message["tool_calls"]).map(objectOf);
  const rests: ChatDelta[][] = calls.map((call, index) => {
    const type = textOf(call["type"]);
    const { name, arguments: args, input } = objectOf(call[type]);
    const key = type === "custom" ? "input" : "arguments";
    const part = (text: string, more: Json = {}): ChatDelta =>
      delta({ tool_calls: [{ index, ...more, [type]: { ...(more["id"] ? { name } : {}), [key]: text } }] });
    return [part("", { id: call["id"], type }), ...cut(textOf(args ?? input)).map((text) => part(text))];
  });
  // All calls begin, then their arguments come in turns.
  for (const rest of rests) deltas.push(rest.shift()!);
  while (rests.some((rest) => rest.length > 0)) for (const rest of rests) deltas.push(...rest.splice(0, 1));
  return [...deltas, delta({}, textOf(choice["finish_reason"]))];
}

export function streamOf(
  chat: Json,
  request: Json,
  cut: (text: string) => string[],
  ending: "end" | "cut" = "end",
): string {
  const sink = responsesClient.sink(context(request));
  const usage = objectOf(chat["usage"]);
  return (
    deltasOf(chat, cut)
      .map((each) => sink.push(each))
      .join("") + sink[ending](usage)
  );
}

export const letters = (text: string): string[] => [...text];
