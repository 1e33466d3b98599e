import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import { MeterSchema } from "../../proto/gen/tokenbill/v1/meter_pb.ts";
import { exactUnits, markupFactor, parseDecimal, times } from "./decimal.ts";
import { PriceFileError } from "./json_fields.ts";
import { readPriceFile } from "./price_file.ts";

const catalogue = (models: unknown, more: object = {}) =>
  JSON.stringify({ currency: "USD", credits_per_currency: "100000", markup_percent: "20", models, ...more });
const one = (model: object, more: object = {}) => catalogue([{ upstream_name: "m", ...model }], more);

/** `[meter, credits, per units, …]` of the only entry. */
function metersOf(text: string) {
  const { price } = readPriceFile(text).entries[0]!;
  if (price.case !== "detailedPrice") throw new Error("not detailed");
  return price.value.meters.map(({ meter, creditPerUnit, perUnits, size, quality, aboveInputTokens }) => [
    MeterSchema.value[meter]!.localName,
    creditPerUnit,
    perUnits,
    ...(size + quality === "" ? [] : [`${size}/${quality}`]),
    ...(aboveInputTokens === 0n ? [] : [aboveInputTokens]),
  ]);
}

const M = 1_000_000n;

describe("a catalogue in a currency", () => {
  test("every kind of price, with the markup", () => {
    const model = {
      per_million_tokens: { input: "2.50", cached_input: "1.25", output: "10" },
      above_input_tokens: [{ threshold: 200000, input: "5", output: "20" }],
      per_image: [{ price: "0.04" }, { size: "1024x1024", quality: "high", price: "0.17" }],
      per_minute: "0.006",
      per_million_characters: "15",
      per_request: "0.001",
      per_tool_call: "0.01",
      max_output_tokens: 16384,
    };
    const text = one({ ...model, provider: "openai" });
    expect(metersOf(text)).toStrictEqual([
      ["INPUT_TOKENS", "300000", M],
      ["CACHED_INPUT_TOKENS", "150000", M],
      ["OUTPUT_TOKENS", "1200000", M],
      ["INPUT_TOKENS", "600000", M, 200000n],
      ["OUTPUT_TOKENS", "2400000", M, 200000n],
      ["IMAGES", "4800", 1n],
      ["IMAGES", "20400", 1n, "1024x1024/high"],
      ["SECONDS", "12", 1n],
      ["CHARACTERS", "1800000", M],
      ["REQUESTS", "120", 1n],
      ["TOOL_CALLS", "1200", 1n],
    ]);
    const file = readPriceFile(text);
    expect(file).toMatchObject({ providers: ["openai"], list: "models" });
    expect(file.entries[0]).toMatchObject({ upstreamName: "m", providerId: "", maxOutputTokens: 16384n });
  });

  test("images of no listed size cost what the dearest does", () => {
    const images = ["0.04", "0.17", "0.08"].map((price, index) => ({ size: `${index}x${index}`, price }));
    expect(metersOf(one({ per_image: images }))[0]).toStrictEqual(["IMAGES", "20400", 1n]);
  });

  test("no markup is none, and a price per second is one", () => {
    const text = one({ per_second: "0.0001" }, { markup_percent: undefined, credits_per_currency: "1" });
    expect(metersOf(text)).toStrictEqual([["SECONDS", "0.0001", 1n]]);
  });

  test("more Credits for a million than a price can say are said for one", () => {
    const tokens = { input: "20000", output: "0" };
    expect(metersOf(one({ per_million_tokens: tokens }))[0]).toStrictEqual(["INPUT_TOKENS", "2400", 1n]);
  });

  test("the arithmetic is exact or refused", () => {
    const decimal = fc
      .tuple(fc.nat(10 ** 6), fc.integer({ min: 0, max: 8 }))
      .map(([digits, scale]) => formatCredits(BigInt(digits) * 10n ** BigInt(12 - scale)));
    fc.assert(
      fc.property(decimal, decimal, decimal, (price, credits, markup) => {
        const factor = times(parseDecimal(credits)!, markupFactor(parseDecimal(markup)!));
        const exact = exactUnits(times(parseDecimal(price)!, factor), M, 12);
        // pico * pico * pico, and a hundred for the percent.
        const up = parseCredits(price) * parseCredits(credits) * (100n * 10n ** 12n + parseCredits(markup));
        const down = M * 10n ** 24n * 100n;
        if (exact === null) expect(up % down).not.toBe(0n);
        else expect(exact * down).toBe(up);
      }),
    );
  });
});

describe("what is wrong is said with its place", () => {
  test.each([
    ["", /^line 1, column 1: not JSON/],
    ['{\n  "models": [,]\n}', /^line 2, column 14: not JSON/],
    ['{\n  "models": [', /^line 2, column 14: not JSON: it ends too early/],
    ['{"models": [{"upstream_name": "a"}\n{"upstream_name": "b"}]}', /^line 2, column 1: not JSON: "{" is not/],
    ['{\n"currency": nil}', /^line 2, column 14: not JSON/],
    ['{"currency": "USD",}', /^line 1, column 20: not JSON/],
    ["[]", /^the file: must be an object/],
    ["{}", /^models: is missing/],
    ['{"models": [], "price": 1}', /^price: there is no such field/],
    ['{"models": []}', /^currency: is missing/],
    ['{"entries": []}', /^entries: is empty/],
    [catalogue([]), /^models: is empty/],
    [catalogue({}), /^models: must be a list/],
    [catalogue([5]), /^models\[0\]: must be an object/],
    [one({}, { credits_per_currency: undefined }), /^credits_per_currency: is missing/],
    [one({}, { credits_per_currency: "0" }), /^credits_per_currency: is missing/],
    [one({}, { markup_percent: "-5" }), /^markup_percent: "-5" is no decimal/],
    [one({}), /^models\[0\]: has no price/],
    [catalogue([{ per_request: "1" }]), /^models\[0\]\.upstream_name: is missing/],
    [one({ per_mintue: "1" }), /^models\[0\]\.per_mintue: there is no such field; there are .*per_minute/],
    [one({ per_request: 0.1 }), /^models\[0\]\.per_request: must be a text; write it in quotes, "0.1"/],
    [one({ per_request: "1e3" }), /^models\[0\]\.per_request: "1e3" is no decimal/],
    [one({ per_million_tokens: { input: "1" } }), /^models\[0\]\.per_million_tokens\.output: is missing/],
    [
      one({ above_input_tokens: [{ threshold: 5, output: "1" }] }),
      /^models\[0\]\.per_million_tokens\.input: is missing/,
    ],
    [one({ per_million_tokens: { inputs: "1" } }), /^models\[0\]\.per_million_tokens\.inputs: there is no such field/],
    [one({ above_input_tokens: [{ input: "1" }] }), /^models\[0\]\.above_input_tokens\[0\]\.threshold: is missing/],
    [one({ above_input_tokens: [{ threshold: "5" }] }), /threshold: must be a whole number .*without quotes/],
    [one({ per_image: [{ price: "1" }, { size: "x" }] }), /^models\[0\]\.per_image\[1\]\.price: is missing/],
    [one({ max_output_tokens: 1.5, per_request: "1" }), /^models\[0\]\.max_output_tokens: must be a whole number/],
    [one({ per_request: "1000000" }), /^models\[0\]\.per_request: is more Credits than a price can be/],
    [
      one({ per_minute: "0.0001" }, { credits_per_currency: "1", markup_percent: "7" }),
      /^models\[0\]\.per_minute: is not exact in Credits: use fewer digits, .*or per_second/,
    ],
    [
      one({ per_million_tokens: { input: "0.15", output: "0.1234567" } }, { credits_per_currency: "1" }),
      /^models\[0\]\.per_million_tokens\.output: is not exact in Credits: use fewer digits/,
    ],
    ['{"entries": [{"upstreamName": "a"}, {"upstream": "b"}]}', /^entries\[1\]: .*upstream/],
    ['{"entries": [{"upstreamName": 5}]}', /^entries\[0\]: /],
  ])("%j", (text, message) => {
    const read = () => readPriceFile(text);
    expect(read).toThrow(PriceFileError);
    expect(read).toThrow(message);
  });

  test("whatever the file holds, it is read or refused in one line", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.json().map((json) => `{"models": [${json}]}`),
        ),
        (text) => {
          try {
            readPriceFile(text);
          } catch (error) {
            if (!(error instanceof PriceFileError)) throw error;
          }
        },
      ),
    );
  });
});

test("entries are read as the call takes them", () => {
  const simplePrice = { creditPerUnit: "0.05", unit: "UNIT_KIND_TOKENS", perUnits: "1000" };
  const file = readPriceFile(
    JSON.stringify({ entries: [{ providerId: "prov_a", upstreamName: "gpt-*", simplePrice }] }),
  );
  expect(file).toMatchObject({
    list: "entries",
    providers: ["prov_a"],
    entries: [{ upstreamName: "gpt-*", price: { value: { perUnits: 1000n } } }],
  });
});

test("the README's catalogue is one", () => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const text = /```json\n(\{\n {2}"currency"[\s\S]*?)```/.exec(readme)![1]!;
  expect(readPriceFile(text).entries.map(({ upstreamName }) => upstreamName)).toHaveLength(5);
});
