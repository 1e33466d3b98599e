/** Every official SDK at every upstream format: what it understands, what goes upstream, and what is billed. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Gateway } from "./testing.ts";
import { CLIENTS, type TestClient } from "./testing_clients.ts";
import { FORMAT_NAMES, type FormatName, imitate, type Imitation } from "./testing_formats.ts";
import { checkScenario, gatewayTo, type Scenario, SCENARIOS } from "./testing_matrix.ts";

/** The others differ from one of these in addresses and credentials only. */
const DISTINCT: ReadonlySet<FormatName> = new Set(["openai", "responses", "anthropic", "converse"]);
/** The AI SDK asks as the other clients do, and reads more strictly. */
const FOR_AI: ReadonlySet<string> = new Set([
  "cache",
  "thoughts",
  "parallel tools",
  "the result of a tool",
  "an image",
]);
const FOR_ALL: ReadonlySet<string> = new Set(["cache", "parallel tools"]);

function scenariosFor(format: FormatName, client: TestClient): readonly Scenario[] {
  if (!DISTINCT.has(format)) return SCENARIOS.filter(({ name }) => FOR_ALL.has(name));
  return client.name.startsWith("ai ") ? SCENARIOS.filter(({ name }) => FOR_AI.has(name)) : SCENARIOS;
}

describe.each(FORMAT_NAMES)("an upstream of the format %s", (format) => {
  let imitation: Imitation;
  let gateway: Gateway;
  beforeAll(async () => {
    imitation = await imitate(format);
    gateway = await gatewayTo([imitation]);
  });
  afterAll(async () => {
    await gateway.close();
    await imitation.close();
    expect(imitation.wrong).toEqual([]);
  });

  describe.each(CLIENTS)("$name", (client) => {
    test.each(scenariosFor(format, client))("$name", (scenario) => checkScenario(gateway, imitation, client, scenario));
  });
});
