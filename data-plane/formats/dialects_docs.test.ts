/** The tables of docs/formats/openai.md are those of the data. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ModelApi } from "../route_types.ts";
import { allDialects, type Dialect, OPENAI_ONLY } from "./dialects.ts";

const code = (words: readonly string[]) => (words.length === 0 ? "" : words.map((word) => `\`${word}\``).join(" "));
const yes = (value: boolean) => (value ? "yes" : "");

const BACK = { drop: "", tools: "with tool calls", keep: "yes" };
const USAGE = {
  openai: "",
  cache_hit: "`prompt_cache_hit_tokens`",
  x_groq: "`x_groq.usage` (older)",
  reasoning_outside: "reasoning outside `completion_tokens`",
};
const REASONING = {
  reasoning_effort: "`reasoning_effort`",
  thinking: "`reasoning_effort`, `none` as `thinking`",
  enable_thinking: "`enable_thinking`, `thinking_budget`",
  none: "left out",
};

const COLUMNS: readonly (readonly [string, (dialect: Dialect) => string])[] = [
  ["limit", ({ limit, oneLimit }) => `\`${limit}\`${oneLimit ? " only" : ""}`],
  ["`stream_options`", ({ streamOptions }) => yes(streamOptions)],
  ["developer role", ({ developerRole }) => yes(developerRole)],
  ["empty `tools`", ({ emptyTools }) => (emptyTools ? "" : "left out")],
  ["ids of tool calls", ({ toolCallId }) => (toolCallId === "nine" ? "nine letters or digits" : "")],
  ["how much to think", ({ reasoning }) => REASONING[reasoning]],
  ["reasoning in answers", ({ reasoningField }) => `\`${reasoningField}\``],
  ["reasoning back", ({ reasoningBack }) => BACK[reasoningBack]],
  ["`top_k`", ({ topK }) => yes(topK)],
  ["`cache_control`", ({ cacheControl }) => yes(cacheControl)],
  ["usage", ({ usage }) => USAGE[usage]],
  ["APIs", ({ apis }) => (apis.includes(ModelApi.RESPONSES) ? "chat, responses" : "chat")],
  ["keep-alive", ({ keepAlive }) => keepAlive],
];

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.join(" | ")} |`.replaceAll("|  |", "| |").replaceAll("|  |", "| |");
  return [line(head), `|${head.map(() => "---").join("|")}|`, ...rows.map(line)].join("\n");
}

/** Dialects side by side: first what they take, then what is left out of requests. */
function expected(): string {
  const dialects = allDialects();
  const first = table(
    ["", ...dialects.map((dialect) => dialect.title)],
    COLUMNS.map(([name, cell]) => [name, ...dialects.map(cell)]),
  );
  const second = table(
    ["dialect", "left out", "renamed", "left out of messages and parts"],
    dialects
      .filter(({ drops, messageDrops }) => drops.length > 0 || messageDrops.length > 0)
      .map(({ title, drops, renames, messageDrops }) => [
        title,
        code(drops),
        Object.entries(renames)
          .map(([from, to]) => `\`${from}\` to \`${to}\``)
          .join(" "),
        code(messageDrops),
      ]),
  );
  return `${first}\n\n${second}\n\nOnly OpenAI's: ${code(OPENAI_ONLY)}.`;
}

test("docs/formats/openai.md has these tables", () => {
  const text = readFileSync(new URL("../../docs/formats/openai.md", import.meta.url), "utf8");
  const [, shown = ""] = /<!-- dialects -->\n\n([\s\S]*?)\n\n<!-- end of dialects -->/.exec(text) ?? [];
  expect(shown).toBe(expected());
});
