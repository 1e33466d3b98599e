/** Requests and answers from end to end, as bridges put them together: client, hub, upstream and back. */

import { describe, expect, test } from "vitest";
import { scanBody } from "../body.ts";
import { CHAT, COMPLETIONS, MESSAGES, RESPONSES } from "../endpoints.ts";
import { RouteTable } from "../route_table.ts";
import type { RoutePm } from "../route_types.ts";
import { gatewayResources, snapshot, VE } from "../testing.ts";
import type { Asked, EndpointSpec } from "./format.ts";
import { bridgeOf } from "./index.ts";

interface Target {
  readonly format: number;
  readonly baseUrl: string;
  readonly apis?: readonly number[];
}

const ANTHROPIC: Target = { format: 3, baseUrl: "https://api.anthropic.com" };
const CONVERSE: Target = { format: 4, baseUrl: "https://bedrock-runtime.us-east-1.amazonaws.com" };
const OPENAI: Target = { format: 1, baseUrl: "https://api.openai.com/v1" };
const GENERIC: Target = { format: 1, baseUrl: "https://x.example/v1" };

function pmOf({ format, baseUrl, apis = [] }: Target, upstreamName: string): RoutePm {
  const table = new RouteTable();
  const options = { provider: { format, baseUrl }, pm: { upstreamName, apis } };
  snapshot(table, gatewayResources([baseUrl], options));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group.pms[0]!;
}

function askedOf(endpoint: EndpointSpec, fields: Record<string, unknown>, clampTo: number | null): Asked {
  const body = scanBody(Buffer.from(JSON.stringify({ model: "gpt", ...fields })), endpoint === MESSAGES ? 0 : 1);
  const { stream } = body;
  const id = "usg_1";
  return {
    id,
    arriveMs: 0,
    endpoint,
    body,
    stream,
    clampTo,
    pinSecret: "",
    previousId: null,
    form: null,
    mediaSeconds: null,
  };
}

/** The body that the upstream gets. */
function sent(
  endpoint: EndpointSpec,
  pm: RoutePm,
  fields: Record<string, unknown>,
  clampTo: number | null = null,
): any {
  const call = bridgeOf(endpoint, pm)!.request(pm, askedOf(endpoint, fields, clampTo), []);
  return JSON.parse((call.body as Buffer).toString());
}

const MESSAGE = { messages: [{ role: "user", content: "Hi" }] };

describe("a limit of the answer's length in another endpoint's field, by which Credits are held", () => {
  test.each<[string, EndpointSpec, RoutePm, Record<string, unknown>, (body: any) => unknown]>([
    ["chat at Anthropic", CHAT, pmOf(ANTHROPIC, "claude-opus-4-5"), MESSAGE, (body) => body.max_tokens],
    [
      "chat at Converse",
      CHAT,
      pmOf(CONVERSE, "amazon.nova-pro-v1:0"),
      MESSAGE,
      (body) => body.inferenceConfig.maxTokens,
    ],
    ["chat at a server of any kind", CHAT, pmOf(GENERIC, "llama"), MESSAGE, (body) => body.max_tokens],
    ["chat at OpenAI", CHAT, pmOf(OPENAI, "gpt-5"), MESSAGE, (body) => body.max_completion_tokens],
    ["completions", COMPLETIONS, pmOf(GENERIC, "llama"), { prompt: "Hi" }, (body) => body.max_tokens],
  ])("%s: is one there too", (_, endpoint, pm, fields, limit) => {
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7 }))).toBe(7);
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7, max_tokens: null }))).toBe(7);
    // It is not lowered by it.
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7, max_tokens: 9 }))).toBe(9);
    expect(limit(sent(endpoint, pm, { ...fields, max_output_tokens: 7 }, 3))).toBe(3);
  });

  test.each([
    ["responses", pmOf(OPENAI, "gpt-5"), (body: any) => body.max_output_tokens],
    ["responses, translated", pmOf(CONVERSE, "amazon.nova-pro-v1:0"), (body: any) => body.inferenceConfig.maxTokens],
  ])("%s: is one there too", (_, pm, limit) => {
    expect(limit(sent(RESPONSES, pm, { input: "Hi", max_tokens: 7 }))).toBe(7);
    expect(limit(sent(RESPONSES, pm, { input: "Hi", max_completion_tokens: 7, max_output_tokens: 9 }))).toBe(9);
  });
});
