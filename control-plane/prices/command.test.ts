/** The command against a real control plane, and once as a process. */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { UnitKind } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { ProviderFormat } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { type Clients, clientsOf } from "../api/test_fixture.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import { EXIT_DECLINED, EXIT_DONE, importCommand, type PricesCommand, PricesCommandError } from "./command.ts";
import { PriceFileError } from "./json_fields.ts";

const CATALOGUE = {
  currency: "USD",
  credits_per_currency: "100000",
  markup_percent: "20",
  models: [
    {
      upstream_name: "gpt-4o",
      per_million_tokens: { input: "2.50", cached_input: "1.25", output: "10" },
      max_output_tokens: 16384,
    },
    { upstream_name: "gpt-image", per_image: [{ price: "0.04" }, { size: "1024x1536", price: "0.06" }] },
    { upstream_name: "nobody", provider: "openai", per_request: "1" },
  ],
};

describe("npm run prices", () => {
  let db: Database;
  let cp: TestControlPlane;
  let api: Clients;
  let token: string;
  let count = 0;
  beforeAll(async () => {
    db = await openTestDatabases()[0]!.open();
    cp = await startTestControlPlane(db);
  });
  afterAll(async () => {
    await cp.close();
    await db.close();
  });
  beforeEach(async () => {
    count += 1;
    ({ token } = await cp.makeMerchant(`merchant ${count}`));
    api = clientsOf(cp, token);
    const { provider } = await api.providers.createProvider({
      name: "openai",
      format: ProviderFormat.OPENAI,
      baseUrl: "http://127.0.0.1:9/v1",
    });
    const price = { creditPerUnit: "250", unit: UnitKind.TOKENS, perUnits: 1000n };
    for (const upstreamName of ["gpt-4o", "gpt-image", "claude"]) {
      await api.providers.createPhysicalModel({
        providerId: provider!.id,
        upstreamName,
        price: upstreamName === "gpt-4o" ? { case: "simplePrice", value: price } : { case: undefined },
      });
    }
  });

  async function run(content: unknown, more: Partial<PricesCommand> = {}) {
    let output = "";
    let asked = "";
    const code = await importCommand({
      url: cp.url,
      token,
      text: typeof content === "string" ? content : JSON.stringify(content),
      preview: false,
      newRequestId: () => `prices-${count}-${Math.random()}`,
      print: (text) => void (output += text),
      confirm: (question) => {
        asked = question;
        return Promise.resolve(true);
      },
      ...more,
    });
    return { code, output, asked };
  }

  const priced = async () =>
    (await api.providers.listPhysicalModels({})).physicalModels.filter(({ price }) => price !== undefined).length;

  test("shows a table, and changes what it shows", async () => {
    const shown = await run(CATALOGUE, { preview: true });
    expect(shown.code).toBe(EXIT_DONE);
    expect(shown.asked).toBe("");
    expect(shown.output.split("\n").map((line) => line.replaceAll(/ {2,}/g, "|"))).toStrictEqual([
      "Physical Model|change|what|before|after",
      "gpt-4o|changed|all tokens|250000 per million|->|-",
      "|input tokens|-|->|300000 per million",
      "|cached input tokens|-|->|150000 per million",
      "|output tokens|-|->|1200000 per million",
      "|max output tokens|-|->|16384",
      "gpt-image|new|images|-|->|4800",
      "|images, 1024x1536|-|->|7200",
      "claude|not named",
      "Fits no Physical Model: models[2], nobody at openai",
      "1 new, 1 changed, 0 same, 1 not named",
      "",
    ]);
    expect(await priced()).toBe(1);
    const done = await run(CATALOGUE);
    expect(done).toMatchObject({ code: EXIT_DONE, asked: "Change 2 Physical Models?" });
    expect(done.output).toBe(`${shown.output}Done: 1 new, 1 changed, 0 same, 1 not named.\n`);
    expect(await priced()).toBe(2);
    const again = await run(CATALOGUE);
    expect(again).toMatchObject({ code: EXIT_DONE, asked: "" });
    expect(again.output).toContain("There is nothing to change.");
  });

  test("changes nothing unless it is wanted", async () => {
    const declined = await run(CATALOGUE, { confirm: () => Promise.resolve(false) });
    expect(declined.code).toBe(EXIT_DECLINED);
    expect(declined.output).toContain("Nothing was changed.");
    await expect(run(CATALOGUE, { confirm: () => Promise.resolve(null) })).rejects.toThrow(/--yes/);
    expect(await priced()).toBe(1);
  });

  test("takes entries as the call does", async () => {
    const simplePrice = { creditPerUnit: "2", unit: "UNIT_KIND_TOKENS" };
    expect((await run({ entries: [{ upstreamName: "*", simplePrice }] })).code).toBe(EXIT_DONE);
    expect(await priced()).toBe(3);
  });

  test.each([
    [
      { ...CATALOGUE, models: [{ upstream_name: "m", provider: "azure", per_request: "1" }] },
      /^models\[0\]\.provider: .*"azure"/,
    ],
    [{ entries: [{ providerId: "openai", upstreamName: "m", simplePrice: {} }] }, /^entries\[0\]\.provider_id: /],
    ["{", /^line 1, column 2: /],
  ])("a file that names nothing known is refused: %j", async (content, message) => {
    const failure = run(content);
    await expect(failure).rejects.toThrow(PriceFileError);
    await expect(failure).rejects.toThrow(message);
  });

  test("what the control plane refuses is said in the words of the file", async () => {
    const twice = { upstream_name: "m", per_request: "1" };
    const failure = run({ ...CATALOGUE, models: [twice, twice] });
    await expect(failure).rejects.toThrow(PricesCommandError);
    await expect(failure).rejects.toThrow(/models\[1\]\.upstream_name: is for the same as models\[0\]/);
  });

  test("a wrong token and a wrong address are told apart", async () => {
    await expect(run(CATALOGUE, { token: "tbt_wrong" })).rejects.toThrow(/does not take this token/);
    await expect(run(CATALOGUE, { url: "http://127.0.0.1:9" })).rejects.toThrow(/nothing answers at/);
  });

  test("as a process", async () => {
    const home = mkdtempSync(join(tmpdir(), "tokenbill-prices-"));
    try {
      writeFileSync(join(home, "merchant.token"), `${token}\n`);
      writeFileSync(join(home, "prices.json"), JSON.stringify(CATALOGUE));
      const start = async (...args: string[]) => {
        const child = spawn(
          process.execPath,
          [join(import.meta.dirname, "main.ts"), "import", join(home, "prices.json"), "--url", cp.url, ...args],
          { env: { ...process.env, TOKENBILL_HOME: home }, stdio: ["ignore", "pipe", "pipe"] },
        );
        let text = "";
        for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => void (text += String(data)));
        const { promise, resolve } = Promise.withResolvers<number | null>();
        child.on("close", resolve);
        return { code: await promise, text };
      };
      expect(await start()).toMatchObject({ code: 2, text: expect.stringContaining("give --yes") as string });
      expect(await start("--yes")).toMatchObject({ code: 0, text: expect.stringContaining("Done: 1 new") as string });
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });
});
