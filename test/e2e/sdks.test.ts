/** Both published SDKs do the quickstart against the running system: TypeScript as built for npm, Go with its toolchain. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { mustRun, ROOT } from "../../scripts/run.ts";
import { untilServed } from "../support/shop.ts";
import { System } from "../support/system.ts";
import { startUpstream, type Upstream } from "../support/upstream.ts";

let system: System;
let upstream: Upstream;

beforeAll(async () => {
  upstream = await startUpstream({ address: "127.0.0.1:0" });
  system = await System.start();
});

afterAll(async () => {
  await system?.stop();
  await upstream?.close();
});

async function env(): Promise<NodeJS.ProcessEnv> {
  return {
    TOKENBILL_URL: system.controlPlaneUrl,
    TOKENBILL_TOKEN: await system.token("merchant"),
    UPSTREAM_URL: upstream.url,
    UPSTREAM_KEY: "simulated-key",
  };
}

/** The example prints the VE, the access key and the balance: the key must open a data plane that answers. */
async function answersWith(printed: string): Promise<void> {
  const [veId, key, balance] = printed.trim().split(" ") as [string, string, string];
  expect(veId).toMatch(/^ve_[a-z2-7]{26}$/);
  expect(balance).toBe("10");
  await untilServed(system.node, { key, model: "chat" });
  const answer = await system.node.openai(key).chat.completions.create({
    model: "chat",
    messages: [{ role: "user", content: "Good morning" }],
  });
  expect(answer.choices[0]!.message.content).toContain("simulated answer");
}

test("TypeScript: the package builds, and its example works from the build", async () => {
  await mustRun("tsc", ["-p", "clients/ts/tsconfig.build.json"]);
  const script = fileURLToPath(new URL("../../clients/ts/examples/quickstart.ts", import.meta.url));
  await answersWith(await mustRun("node", [script], { env: await env() }));
});

test("Go: the module's tests pass, and its example works", async () => {
  const cwd = join(ROOT, "clients/go");
  await mustRun("go", ["vet", "./..."], { cwd });
  await mustRun("go", ["test", "./..."], { cwd });
  await answersWith(await mustRun("go", ["run", "./examples/quickstart"], { cwd, env: await env() }));
}, 300_000);
