import { describe, expect, test } from "vitest";
import type { HubTarget, Json } from "../hub.ts";
import { capabilitiesOf, effortOf, UNKNOWN_MODEL } from "./models.ts";
import { messagesBody } from "./request.ts";

describe("names", () => {
  test.each([
    ["claude-opus-4-20250514", "claude-opus-4"],
    ["claude-opus-4-1-20250805", "claude-opus-4-1"],
    ["claude-opus-4-6", "claude-opus-4-6"],
    ["anthropic.claude-opus-4-6-v1", "claude-opus-4-6"],
    ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"],
    ["arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"],
    ["anthropic/claude-opus-4.8", "claude-opus-4-8"],
    ["claude-sonnet-4@20250514", "claude-sonnet-4"],
    ["Claude-Haiku-4-5", "claude-haiku-4-5"],
    ["claude-sonnet-5-20260401", "claude-sonnet-5"],
    ["claude-sonnet-5-5-20260901", "claude-sonnet-5-5"],
  ])("%s is %s", (name, same) => {
    expect(capabilitiesOf(name)).toBe(capabilitiesOf(same));
    expect(capabilitiesOf(name)).not.toBe(UNKNOWN_MODEL);
  });

  test.each(["claude-opus-4-9", "claude-opus-6", "claude-sonnet-5-7", "claude-next", "claude-opus-55", "gpt-4o", ""])(
    "%j is not known, and treated with care",
    (name) => expect(capabilitiesOf(name)).toBe(UNKNOWN_MODEL),
  );

  test("many names are no burden", () => {
    for (let each = 0; each < 3000; each++) capabilitiesOf(`claude-x-${each}`);
    expect(capabilitiesOf("claude-3-haiku-20240307").maxOutputTokens).toBe(4096);
  });

  test("efforts go down to what is known", () => {
    expect(effortOf("xhigh", capabilitiesOf("claude-opus-4-6"))).toBe("high");
    expect(effortOf("max", capabilitiesOf("claude-opus-4-6"))).toBe("max");
    expect(effortOf("max", capabilitiesOf("claude-opus-4-5"))).toBe("high");
    expect(effortOf("low", capabilitiesOf("claude-sonnet-4-5"))).toBeNull();
  });
});

const TOOLS = [{ type: "function", function: { name: "f" } }];

function bodyOf(model: string, fields: Json): Json {
  const target: HubTarget = { model, family: "", maxOutputTokens: 0, apiVersion: "", stream: true };
  return messagesBody({ messages: [{ role: "user", content: "Hi" }], ...fields }, target);
}

/** What goes upstream of each thing that models differ in, in few letters. */
function effects(model: string): Json {
  const sampling = bodyOf(model, { temperature: 0.5, top_p: 0.5 });
  const forced = bodyOf(model, { tools: TOOLS, tool_choice: "required" });
  const thinking = (reasoning_effort: string): unknown => {
    const body = bodyOf(model, { reasoning_effort });
    const { type } = (body["thinking"] ?? {}) as { type?: string };
    const { effort } = (body["output_config"] ?? {}) as { effort?: string };
    return [type, effort].filter((each) => each !== undefined).join(" ");
  };
  const schema = bodyOf(model, {
    response_format: { type: "json_schema", json_schema: { schema: { type: "object" } } },
  });
  const later = [
    { role: "system", content: "S" },
    { role: "assistant", content: "A" },
    { role: "user", content: "B" },
  ];
  const system = bodyOf(model, { messages: [{ role: "user", content: "Hi" }, ...later] });
  const prefill = (): boolean => {
    try {
      bodyOf(model, {
        messages: [
          { role: "user", content: "Hi" },
          { role: "assistant", content: "A" },
        ],
      });
      return true;
    } catch {
      return false;
    }
  };
  return {
    max: sampling["max_tokens"],
    sampling: ["temperature", "top_p"].filter((key) => sampling[key] !== undefined).join(" "),
    forced: (forced["tool_choice"] as Json)["type"],
    none: thinking("none"),
    high: thinking("high"),
    xhigh: thinking("xhigh"),
    schema: schema["output_config"] === undefined ? "tool" : "field",
    system: system["system"] === undefined ? "stays" : "hoisted",
    prefill: prefill(),
  };
}

describe("what a model is asked", () => {
  const old = { sampling: "temperature top_p", forced: "any", schema: "tool", system: "hoisted", prefill: true };
  const silent = { none: "", high: "", xhigh: "" };
  const budget = { none: "disabled", high: "enabled", xhigh: "enabled" };
  const v45 = { ...old, max: 64_000, sampling: "temperature", schema: "field", ...budget };
  const v46 = {
    ...v45,
    max: 128_000,
    none: "disabled",
    high: "adaptive high",
    xhigh: "adaptive high",
    prefill: false,
  };
  const v47 = { ...v46, sampling: "", xhigh: "adaptive xhigh" };
  const v5 = { ...v47, system: "stays" };
  const strict = { ...v5, none: "low", forced: "auto" };
  test.each<[string, Json]>([
    ["claude-sonnet-5-5", { ...strict, none: "between_tools low" }],
    ["claude-opus-5-5", strict],
    ["claude-haiku-5-5", v5],
    ["claude-opus-5", v5],
    ["claude-fable-5-1", strict],
    ["claude-mythos-5-1", strict],
    ["claude-fable-5", { ...strict, forced: "any" }],
    ["claude-mythos-5", { ...strict, forced: "any" }],
    ["claude-opus-4-8", v5],
    ["claude-opus-4-7", v47],
    ["claude-sonnet-5", v5],
    ["claude-opus-4-6", v46],
    ["claude-sonnet-4-6", v46],
    ["claude-opus-4-5", v45],
    ["claude-sonnet-4-5", v45],
    ["claude-haiku-4-5", v45],
    ["claude-opus-4-1", { ...old, max: 32_000, sampling: "temperature", ...budget }],
    ["claude-opus-4", { ...old, max: 32_000, ...budget }],
    ["claude-sonnet-4", { ...old, max: 64_000, ...budget }],
    ["claude-3-7-sonnet", { ...old, max: 64_000, ...budget }],
    ["claude-3-5-sonnet", { ...old, max: 8192, ...silent }],
    ["claude-3-haiku", { ...old, max: 4096, ...silent }],
    ["claude-unheard-of", { ...strict, system: "hoisted" }],
  ])("%s", (model, expected) => expect(effects(model)).toEqual(expected));

  test("the family tells where the name does not", () => {
    const target = { model: "my-deployment", maxOutputTokens: 0, apiVersion: "", stream: true };
    const chat = { messages: [{ role: "user", content: "Hi" }], temperature: 0.5 };
    expect(messagesBody(chat, { ...target, family: "" })["temperature"]).toBeUndefined();
    const body = messagesBody(chat, { ...target, family: "claude-sonnet-4-5" });
    expect([body["temperature"], body["model"]]).toEqual([0.5, "my-deployment"]);
  });
});
