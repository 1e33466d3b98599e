import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BodyError, changeBody, lastUserText, scanBody } from "./body.ts";
import { JSON_DEPTH_MAX, JsonScanError, skipValue } from "./json_scan.ts";

const scan = (value: unknown) => scanBody(Buffer.from(typeof value === "string" ? value : JSON.stringify(value)));
const NO_CHANGES = {
  model: "up",
  includeUsage: false,
  outputTokensMax: null,
  outputTokensField: "max_tokens",
} as const;
const change = (value: unknown, changes: Partial<Parameters<typeof changeBody>[1]> = {}): any =>
  JSON.parse(changeBody(scan(value), { ...NO_CHANGES, ...changes }).toString());

/** JSON text of a value with arbitrary white space wherever it is allowed. */
function spaced(value: unknown, space: () => string): string {
  const s = space;
  if (Array.isArray(value))
    return `${s()}[${value.length === 0 ? s() : value.map((each) => spaced(each, s)).join(",")}]${s()}`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).map(([key, each]) => `${s()}${JSON.stringify(key)}${s()}:${spaced(each, s)}`);
    return `${s()}{${members.length === 0 ? s() : members.join(",")}}${s()}`;
  }
  return `${s()}${JSON.stringify(value)}${s()}`;
}

const spaces = fc.array(fc.constantFrom("", "", " ", "\n", "\r\n", "\t", "  \n "), { minLength: 1, maxLength: 12 });
function cycle(list: readonly string[]): () => string {
  let at = 0;
  return () => list[at++ % list.length]!;
}

describe("the scanner", () => {
  test("property: finds the end of any JSON value in any white space", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), spaces, (value, list) => {
        const text = spaced(value, cycle(list)).trim();
        const bytes = Buffer.from(`${text} ,"more"`);
        expect(skipValue(bytes, 0)).toBe(Buffer.byteLength(text));
      }),
      { numRuns: 500 },
    );
  });

  test("property: long strings with escapes and quotes end where JSON says", () => {
    const piece = fc.constantFrom('\\"', "\\\\", "x".repeat(30), "ü", "\\u00e9", "a", '\\\\\\"');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const text = `"${pieces.join("")}"`;
        JSON.parse(text);
        expect(skipValue(Buffer.from(`${text}"`), 0)).toBe(Buffer.byteLength(text));
      }),
    );
  });

  const broken = [
    "",
    " ",
    "{",
    "}",
    "[",
    "[1,]",
    "[1 2]",
    "[,1]",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{"a":1 "b":2}',
    "{a:1}",
    "{'a':1}",
    "{1:2}",
    "nul",
    "tru",
    "fals",
    "truex",
    "01",
    "1.",
    ".5",
    "-",
    "1e",
    "1e+",
    "+1",
    "0x10",
    "NaN",
    "Infinity",
    '"abc',
    '"abc\\"',
    '"a\nb"',
    "[1}",
    '{"a":1]',
    '{"a":[}',
    "[[]",
    '{"a":{"b":1}',
    "// x\n1",
    '"' + "x".repeat(100),
    '{"a":1}}',
  ];
  test.each(broken)("refuses %j", (text) => {
    expect(() => JSON.parse(text)).toThrow(SyntaxError);
    expect(() => {
      const bytes = Buffer.from(text);
      const end = skipValue(bytes, 0);
      if (end !== bytes.length) throw new JsonScanError("more", end);
    }).toThrow(JsonScanError);
    expect(() => scan(text)).toThrow(BodyError);
  });

  test("nesting has a named limit", () => {
    const nested = (depth: number) => `{"model":"m","x":${"[".repeat(depth)}${"]".repeat(depth)}}`;
    expect(scan(nested(JSON_DEPTH_MAX - 1)).model).toBe("m");
    expect(() => scan(nested(JSON_DEPTH_MAX))).toThrow(/nested deeper/);
    expect(() => scan(`{"model":"m","x":${"[".repeat(1_000_000)}`)).toThrow(/nested deeper/);
  });
});

describe("what is read", () => {
  test("fields, defaults and nulls", () => {
    expect(scan({ model: "m" })).toMatchObject({
      model: "m",
      stream: false,
      usageAsked: false,
      outputTokensMax: 0,
      answers: 1,
      choices: 1,
    });
    expect(scan({ model: "m", stream: null, max_tokens: null, n: null, stream_options: null })).toMatchObject({
      stream: false,
      outputTokensMax: 0,
      answers: 1,
    });
    expect(scan({ model: "m", stream: true, max_tokens: 5, max_completion_tokens: 9, n: 3, best_of: 4 })).toMatchObject(
      { stream: true, outputTokensMax: 9, answers: 4, choices: 3 },
    );
    expect(() => scan({ model: "m", max_tokens: 0 })).toThrow("expected an integer of at least 1");
    expect(scan({ model: "m", max_output_tokens: 70, max_tokens: 9 }).outputTokensMax).toBe(70);
    expect(scan({ model: "m", stream: true, stream_options: { include_usage: true } }).usageAsked).toBe(true);
    expect(scan({ model: "m", stream: true, stream_options: { include_usage: false } }).usageAsked).toBe(false);
  });

  test("only what stands at the top counts", () => {
    expect(scan({ a: { model: "x", stream: true }, model: "m", b: [{ max_tokens: 7 }] })).toMatchObject({
      model: "m",
      stream: false,
      outputTokensMax: 0,
    });
  });

  test.each([
    [["a", "b", "c"], 3],
    [[1, 2, 3], 1],
    [[[1, 2], [3]], 2],
    ["a", 1],
    [[], 1],
  ])("prompts of %j have %i answers", (prompt, answers) => {
    expect(scan({ model: "m", prompt }).answers).toBe(answers);
    expect(scan({ model: "m", prompt, n: 2 }).answers).toBe(2 * answers);
  });

  test.each([
    [{}, "model", "missing_required_parameter"],
    [{ model: null }, "model", "missing_required_parameter"],
    [{ model: 5 }, "model", "invalid_type"],
    [{ model: ["m"] }, "model", "invalid_type"],
    [{ model: "m", stream: "true" }, "stream", "invalid_type"],
    [{ model: "m", stream: 1 }, "stream", "invalid_type"],
    [{ model: "m", max_tokens: "5" }, "max_tokens", "invalid_type"],
    [{ model: "m", max_tokens: -5 }, "max_tokens", "invalid_type"],
    [{ model: "m", max_completion_tokens: 1.5 }, "max_completion_tokens", "invalid_type"],
    [{ model: "m", max_output_tokens: true }, "max_output_tokens", "invalid_type"],
    [{ model: "m", n: 0 }, "n", "invalid_type"],
    [{ model: "m", n: 1e300 }, "n", "invalid_type"],
    [{ model: "m", n: 100_000_000 }, "n", "invalid_type"],
    [{ model: "m", best_of: 129 }, "best_of", "invalid_type"],
    [{ model: "m", prompt: Array.from({ length: 2049 }, () => "p") }, "prompt", "invalid_type"],
    ["[]", null, "invalid_json"],
    ['"model"', null, "invalid_json"],
    ["null", null, "invalid_json"],
    ['{"model":"m"} x', null, "invalid_json"],
    ['{"model":"\\q"}', null, "invalid_json"],
    ['{"mod\\qel":"m"}', null, "invalid_json"],
  ])("%j is refused for %s", (body, param, code) => {
    expect(() => scan(body)).toThrow(expect.objectContaining({ name: "Error", code, param }));
  });

  test("bytes that are no UTF-8 are refused", () => {
    expect(() =>
      scanBody(Buffer.concat([Buffer.from('{"model":"'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')])),
    ).toThrow(BodyError);
  });
});

describe("splicing", () => {
  test("leaves every other byte alone", () => {
    const text =
      ' {\n "seed" : 12345678901234567890 , "x":1.0e+2,\t"model" : "gpt" ,"messages":[{"role":"user","content":"\\u00e9 \\/"}] } ';
    const out = changeBody(scan(text), { ...NO_CHANGES, model: "up" }).toString();
    expect(out).toBe(text.replace('"gpt"', '"up"'));
  });

  test("a name with quotes, line breaks and more is written as JSON", () => {
    expect(change({ model: "m" }, { model: 'a"b\\c\nü🙂' }).model).toBe('a"b\\c\nü🙂');
  });

  test("copies of a field are cut, so that only the last one can be read", () => {
    const text = '{"model":"first","max_tokens":1, "model" : "second" ,"stream":false,"max_tokens":2,"stream":true}';
    expect(scan(text)).toMatchObject({ model: "second", stream: true, outputTokensMax: 2 });
    const out = changeBody(scan(text), { ...NO_CHANGES, includeUsage: true }).toString();
    expect(out.match(/"model"/g)).toHaveLength(1);
    expect(out.match(/"max_tokens"/g)).toHaveLength(1);
    expect(JSON.parse(out)).toEqual({
      model: "up",
      max_tokens: 2,
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  test("a key spelled with escapes is the key", () => {
    expect(change('{"\\u006dodel":"m","x":1}')).toEqual({ model: "up", x: 1 });
    expect(scan('{"model":"a","mode\\u006c":"b"}').model).toBe("b");
  });

  test.each([
    [undefined, { include_usage: true }],
    [null, { include_usage: true }],
    [{}, { include_usage: true }],
    [
      { include_usage: false, include_obfuscation: false },
      { include_usage: true, include_obfuscation: false },
    ],
    [{ include_usage: true }, { include_usage: true }],
    ["odd", "odd"],
  ])("stream_options %j become %j", (before, after) => {
    const body = { model: "m", stream: true, ...(before === undefined ? {} : { stream_options: before }) };
    expect(change(body, { includeUsage: true }).stream_options).toEqual(after);
  });

  test.each([
    [{}, { max_tokens: 10 }],
    [{ max_tokens: 5 }, { max_tokens: 5 }],
    [{ max_tokens: 50 }, { max_tokens: 10 }],
    [{ max_completion_tokens: 50 }, { max_completion_tokens: 10 }],
    [
      { max_tokens: 50, max_completion_tokens: 5 },
      { max_tokens: 10, max_completion_tokens: 5 },
    ],
    [{ max_tokens: null }, { max_tokens: 10 }],
    [{ max_output_tokens: 50 }, { max_output_tokens: 10 }],
    [
      { max_output_tokens: 50, max_completion_tokens: 60, max_tokens: 7 },
      { max_output_tokens: 10, max_completion_tokens: 10, max_tokens: 7 },
    ],
  ])("a clamp to 10 turns %j into %j", (before, after) => {
    expect(change({ model: "m", ...before }, { outputTokensMax: 10 })).toEqual({ model: "up", ...after });
  });

  test("property: the result parses to the expected object, in every white space", () => {
    const other = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }), { maxKeys: 6 });
    const known = fc.record(
      {
        model: fc.string({ unit: "binary" }).map((text) => text.toWellFormed()),
        stream: fc.boolean(),
        stream_options: fc.record({ include_usage: fc.boolean(), x: fc.string() }, { requiredKeys: [] }),
        max_tokens: fc.integer({ min: 1, max: 100 }),
        messages: fc.array(fc.jsonValue({ maxDepth: 2 })),
      },
      { requiredKeys: ["model"] },
    );
    fc.assert(
      fc.property(
        other,
        known,
        spaces,
        fc.option(fc.nat(50), { nil: null }),
        fc.shuffledSubarray([0, 1]),
        (a, b, list, max, order) => {
          for (const key of ["n", "best_of", "max_completion_tokens", "max_output_tokens", "prompt", "__proto__"])
            delete a[key];
          const value = (order[0] === 1 ? { ...b, ...a, ...b } : { ...a, ...b }) as Record<string, any>;
          const text = spaced(value, cycle(list));
          const out = changeBody(scan(text), {
            ...NO_CHANGES,
            includeUsage: value["stream"] === true,
            outputTokensMax: max,
          });
          const expected: Record<string, any> = { ...value, model: "up" };
          if (value["stream"] === true)
            expected["stream_options"] = { ...value["stream_options"], include_usage: true };
          if (max !== null) expected["max_tokens"] = Math.min(value["max_tokens"] ?? max, max);
          expect(JSON.parse(out.toString())).toEqual(JSON.parse(JSON.stringify(expected)));
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("the last user message", () => {
  const last = (messages: unknown, raw?: string) => lastUserText(scan(raw ?? { model: "m", messages }), "tokenbill");
  test("is found as text or as text parts", () => {
    expect(last([{ role: "user", content: " /tokenbill\n" }])).toBe(" /tokenbill\n");
    expect(
      last([
        {
          role: "user",
          content: [
            { type: "text", text: "/token" },
            { type: "text", text: "bill" },
            { type: "text", text: "tokenbill" },
          ],
        },
      ]),
    ).toBe("/tokenbilltokenbill");
    expect(
      last([
        { role: "user", content: "/tokenbill" },
        { role: "assistant", content: "x" },
      ]),
    ).toBe("/tokenbill");
    expect(
      last([
        { role: "user", content: "/tokenbill" },
        { role: "assistant", content: "x" },
        { role: "user", content: "hello" },
      ]),
    ).toBe("hello");
  });
  test("is nothing when it is not text alone", () => {
    expect(
      last([
        {
          role: "user",
          content: [
            { type: "text", text: "/tokenbill" },
            { type: "image_url", image_url: { url: "x" } },
          ],
        },
      ]),
    ).toBeNull();
    expect(last([{ role: "system", content: "/tokenbill" }])).toBeNull();
    expect(last("tokenbill")).toBeNull();
    expect(last([null, 5, "tokenbill", { role: "user" }])).toBeNull();
  });
  test("is not looked for when the word cannot be in it, but escapes do not hide it", () => {
    expect(last([{ role: "user", content: "hello" }])).toBeNull();
    expect(last(null, '{"model":"m","messages":[{"role":"user","content":"\\/\\u0074okenbill"}]}')).toBe("/tokenbill");
    expect(last(null, '{"model":"m","messages":[{"role":"user","content":"\\u00e9"}]}')).toBeNull();
  });
});
