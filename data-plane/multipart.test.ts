/** Reading forms: however they are cut the result is the same, and nothing that arrives makes the reader crash or grow. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { boundaryOf, isMultipart, MultipartError } from "./multipart_head.ts";
import { MULTIPART_LIMITS, type MultipartLimits, type MultipartPart, MultipartReader } from "./multipart.ts";
import { createFormReader, formModel, readForm } from "./multipart_form.ts";

const B = "xYz";
const TYPE = `multipart/form-data; boundary=${B}`;

const field = (name: string, value: string): string =>
  `--${B}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const file = (name: string, value: string, filename = "a.mp3"): string =>
  `--${B}\r\nContent-Disposition: form-data; name="${name}"; filename="${filename}"\r\nContent-Type: audio/mpeg\r\n\r\n${value}\r\n`;
const END = `--${B}--\r\n`;

function read(body: string | Buffer, cuts: readonly number[] = [], limits?: MultipartLimits): MultipartReader {
  const reader = limits === undefined ? createFormReader(TYPE) : new MultipartReader(B, {}, limits);
  const bytes = Buffer.from(body);
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    // A copy that is spoilt afterwards, as the socket's buffer is.
    const chunk = Buffer.from(bytes.subarray(from, cut));
    reader.push(chunk);
    chunk.fill(0xff);
    from = cut;
  }
  reader.end();
  return reader;
}

function codeOf(run: () => unknown): [string, string | null] {
  try {
    run();
  } catch (error) {
    if (error instanceof MultipartError) return [error.code, error.param];
    throw error;
  }
  return ["none", null];
}

describe("forms", () => {
  const body = file("file", "ID3 data") + field("model", "whisper-1") + field("stream", "true") + field("n", "2") + END;

  test("parts and their places", () => {
    const { parts } = read(body);
    expect(parts.map(({ name, filename, contentType, text }) => [name, filename, contentType, text])).toEqual([
      ["file", "a.mp3", "audio/mpeg", null],
      ["model", null, "", "whisper-1"],
      ["stream", null, "", "true"],
      ["n", null, "", "2"],
    ]);
    expect(parts.map(({ start, end }) => body.slice(start, end))).toEqual(["ID3 data", "whisper-1", "true", "2"]);
  });

  test("fields", () => {
    const more = field("response_format", "srt") + field("timestamp_granularities[]", "word") + field("size", "");
    const form = readForm(read(body.replace(END, more + END)));
    expect(form).toMatchObject({ stream: true, choices: 2, responseFormat: "srt", size: "", quality: "", prompt: "" });
    expect(form.files.map(({ name }) => name)).toEqual(["file"]);
    expect(body.slice(form.model.start, form.model.end)).toBe(form.model.name);
  });

  test("the model is known as soon as its part ended", () => {
    const reader = createFormReader(TYPE);
    const start = Buffer.from(field("model", "m"));
    reader.push(start);
    expect(formModel(reader.parts)).toBeNull();
    reader.push(Buffer.from(`--${B}`));
    expect(formModel(reader.parts)).toMatchObject({ name: "m" });
    expect(reader.complete).toBe(false);
  });

  const tolerated: [string, string][] = [
    ["an epilogue", `${body}bye\r\n--${B}\r\n`],
    ["a line end before the first boundary", `\r\n${body}`],
    ["blanks after boundaries", body.replaceAll(`--${B}\r\n`, `--${B} \t\r\n`)],
    ["no line end after the last boundary", body.slice(0, -2)],
    ["what looks like a boundary", body.replace("ID3 data", `\r\n--xY\r\n-${B}--${B}\r\r\n\r\n`)],
    ["names without quotes", body.replaceAll('"', "")],
    ["other letters", body.replaceAll("Content-Disposition: form-data", "content-disposition:Form-Data")],
    ["arrays", body + ""].map((text) => text.replace(END, field("include[]", "a") + field("include[]", "b") + END)) as [
      string,
      string,
    ],
  ];
  test.each(tolerated)("tolerates %s", (_, text) => {
    expect(readForm(read(text)).model.name).toBe("whisper-1");
  });
});

test("what the official SDK sends", async () => {
  const data = new FormData();
  data.append("file", new File([Buffer.from("\r\n--\r\n")], 'Grüße "1".mp3', { type: "audio/mpeg" }));
  data.append("timestamp_granularities[]", "word");
  data.append("timestamp_granularities[]", "segment");
  data.append("chunking_strategy[type]", "server_vad");
  data.append("prompt", "zwei\nZeilen");
  data.append("model", "gpt-4o-transcribe");
  const sent = new Response(data);
  const reader = createFormReader(sent.headers.get("content-type")!);
  const bytes = Buffer.from(await sent.arrayBuffer());
  reader.push(bytes);
  reader.end();
  const form = readForm(reader);
  expect(form).toMatchObject({ model: { name: "gpt-4o-transcribe" }, prompt: "zwei\r\nZeilen", stream: false });
  const [{ start, end, contentType, filename }] = form.files as [MultipartPart];
  expect([bytes.toString("latin1", start, end), contentType]).toEqual(["\r\n--\r\n", "audio/mpeg"]);
  expect(filename).toMatch(/\.mp3$/);
});

describe("what is refused", () => {
  const model = field("model", "m");
  const cases: [string, string, string, string | null][] = [
    ["nothing", "", "invalid_multipart", null],
    ["no boundary at all", "hello", "invalid_multipart", null],
    ["another boundary", model.replaceAll(B, "other"), "invalid_multipart", null],
    ["no last boundary", model, "invalid_multipart", null],
    ["half of the last boundary", `${model}--${B}-`, "invalid_multipart", null],
    ["text after a boundary", `${model}--${B}x\r\n`, "invalid_multipart", null],
    ["text after the last boundary", `${model}--${B}--x\r\n`, "invalid_multipart", null],
    ["lone line feeds", (model + END).replaceAll("\r\n", "\n"), "invalid_multipart", null],
    ["a lone line feed before a boundary", `${field("a", `1\n--${B}`)}${END}`, "invalid_multipart", null],
    ["a boundary right after a head", model.replace("m\r\n", "") + END, "invalid_multipart", null],
    ["a part before the first boundary", `x${field("model", "other")}${model}${END}`, "invalid_multipart", null],
    ["a preamble", `hello\r\nyou\r\n${model}${END}`, "invalid_multipart", null],
    ["no head", `--${B}\r\n\r\nx\r\n${END}`, "invalid_multipart", null],
    ["no name", model.replace(' name="model"', "") + END, "invalid_multipart", null],
    ["an empty name", model.replace('"model"', '""') + END, "invalid_multipart", null],
    ["two names", model.replace('"model"', '"model"; name="b"') + END, "invalid_multipart", null],
    ["a name in another coding", model.replace("name=", "name*=") + END, "invalid_multipart", null],
    ["a name with an escape", model.replace('"model"', '"mo\\"del"') + END, "invalid_multipart", null],
    ["a folded header", model.replace("; name", ";\r\n name") + END, "invalid_multipart", null],
    [
      "two dispositions",
      model.replace("Content", "Content-Disposition: form-data\r\nContent") + END,
      "invalid_multipart",
      null,
    ],
    [
      "base64",
      model.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n") + END,
      "invalid_multipart",
      null,
    ],
    ["no model", field("a", "b") + END, "missing_required_parameter", "model"],
    ["an empty model", field("model", "") + END, "missing_required_parameter", "model"],
    ["two models", model + field("model", "x") + END, "duplicate_parameter", "model"],
    ["two of another field that counts", model + field("n", "1") + field("n", "9") + END, "duplicate_parameter", "n"],
    ["a model that is a file", file("model", "m") + END, "invalid_type", "model"],
    ["a long model", field("model", "m".repeat(600)) + END, "string_above_max_length", "model"],
    ["a very long model", field("model", "m".repeat(200_000)) + END, "string_above_max_length", "model"],
    ["n of zero", model + field("n", "0") + END, "invalid_type", "n"],
    ["a stream of another word", model + field("stream", "maybe") + END, "invalid_type", "stream"],
    [
      "long headers",
      model.replace("\r\n\r\n", `\r\nx: ${"y".repeat(9000)}\r\n\r\n`) + END,
      "part_headers_too_large",
      null,
    ],
    ["headers that do not end", `--${B}\r\n${"a: b\r\n".repeat(2000)}`, "part_headers_too_large", null],
    ["too many parts", field("a", "").repeat(257) + END, "too_many_parts", null],
  ];
  test.each(cases)("%s", (_, body, code, param) => {
    const run = (cuts: number[]) => () => readForm(read(body, cuts));
    expect(codeOf(run([]))).toEqual([code, param]);
    // The same when it comes byte by byte.
    if (body.length < 2000) expect(codeOf(run(Array.from(body, (_, i) => i)))).toEqual([code, param]);
  });

  test.each([
    ["multipart/form-data", false],
    ["multipart/form-data; boundary=", false],
    ['multipart/form-data; boundary=""', false],
    ["multipart/form-data; boundary=a; boundary=b", false],
    [`multipart/form-data; boundary=${"a".repeat(71)}`, false],
    ['multipart/form-data; boundary="a\\"b"', false],
    ['multipart/form-data; boundary="a "', false],
    ["Multipart/Form-Data; charset=utf-8; Boundary=abc", true],
    ['multipart/form-data;boundary="a b:c"', true],
    ["multipart/form-data; boundary=a;", true],
  ])("content type %s", (type, good) => {
    expect(isMultipart(type)).toBe(true);
    expect(codeOf(() => boundaryOf(type))[0]).toBe(good ? "none" : "invalid_multipart");
  });

  test.each(["application/json", "multipart/mixed; boundary=a", "multipart/form-datax", ""])("%s is no form", (type) =>
    expect(isMultipart(type)).toBe(false),
  );
});

describe("limits", () => {
  test("long fields keep their place but not their text", () => {
    const body = field("prompt", "p".repeat(2000)) + field("model", "m") + END;
    const { parts } = read(body, [], { ...MULTIPART_LIMITS, field_bytes_max: 1000 });
    expect(parts.map(({ text, start, end }) => [text, end - start])).toEqual([
      [null, 2000],
      ["m", 1],
    ]);
  });

  test("all fields together", () => {
    const body = field("a", "p".repeat(800)) + field("b", "p".repeat(800)) + field("c", "p".repeat(100)) + END;
    const { parts } = read(body, [], { ...MULTIPART_LIMITS, fields_bytes_max: 1000 });
    expect(parts.map(({ text }) => text?.length ?? null)).toEqual([800, null, 100]);
  });
});

/** Texts that are full of pieces of boundaries. */
const tricky = fc
  .array(fc.constantFrom("\r", "\n", "-", "--", B, `\r\n--x`, `--${B}`, "\r\n-", "a", "\0", "é"), { maxLength: 20 })
  .map((pieces) => pieces.join(""))
  .filter((text) => !`\n${text}`.includes(`\n--${B}`));

describe("properties", () => {
  test("any cuts give the same parts", () => {
    const form = fc.array(fc.record({ isFile: fc.boolean(), value: tricky }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(form, fc.array(fc.nat(), { maxLength: 40 }), tricky, (parts, where, epilogue) => {
        const text =
          parts.map(({ isFile, value }, i) => (isFile ? file : field)(`f${i}`, value)).join("") + END + epilogue;
        const bytes = Buffer.from(text);
        const cuts = where.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b);
        const { parts: found } = read(text, cuts);
        expect(found).toEqual(read(text).parts);
        expect(found.map(({ start, end }) => bytes.toString("utf8", start, end))).toEqual(
          parts.map((each) => each.value),
        );
        expect(found.map((each) => each.text)).toEqual(parts.map(({ isFile, value }) => (isFile ? null : value)));
      }),
      { numRuns: 300 },
    );
  });

  test("each begin has its end, in order", () => {
    const events: string[] = [];
    const note = (what: string) => (part: MultipartPart) => void events.push(`${what} ${part.name}`);
    const reader = new MultipartReader(B, { onPartBegin: note("begin"), onPartEnd: note("end") });
    reader.push(Buffer.from(field("a", "1") + file("b", "2") + END));
    expect(events).toEqual(["begin a", "end a", "begin b", "end b"]);
  });

  test("garbage ends in an error of its own or in a form, and takes no memory", () => {
    const garbage = fc.array(
      fc.oneof(
        fc.constantFrom(
          `--${B}\r\n`,
          `\r\n--${B}`,
          "\r\n\r\n",
          'Content-Disposition: form-data; name="model"',
          "--",
          "\r",
          "\n",
          ";",
        ),
        fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
      ),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(garbage, (pieces) => {
        const reader = createFormReader(TYPE);
        try {
          for (const piece of pieces) reader.push(Buffer.from(piece, "latin1"));
          readForm(reader);
        } catch (error) {
          expect(error).toBeInstanceOf(MultipartError);
        }
        expect((reader as unknown as { carry: Buffer }).carry.length).toBeLessThan(10_000);
      }),
      { numRuns: 500 },
    );
  });

  test("a long file keeps nothing", () => {
    const reader = createFormReader(TYPE);
    reader.push(Buffer.from(file("file", "").slice(0, -2)));
    const chunk = Buffer.alloc(64 * 1024, "\r\n--xY");
    for (let i = 0; i < 100; i++) reader.push(chunk);
    expect((reader as unknown as { carry: Buffer }).carry.length).toBeLessThan(100);
    reader.push(Buffer.from(`\r\n${field("model", "m")}${END}`));
    const [part] = reader.parts;
    expect(part!.end - part!.start).toBe(100 * 64 * 1024);
  });
});
