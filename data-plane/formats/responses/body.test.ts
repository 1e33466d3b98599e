import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { dropSealed, idsOfRequest } from "./body.ts";
import { sealBlocks } from "./reasoning.ts";

const NONE = {
  previousResponseId: null,
  conversation: null,
  prompt: null,
  itemReferences: [],
  files: [],
  encrypted: false,
  sealed: false,
  background: false,
  store: true,
};
const ids = (body: unknown) =>
  idsOfRequest(Buffer.from(typeof body === "string" ? body : JSON.stringify(body, null, 1)));
const message = (part: unknown) => ({ input: [{ role: "user", content: [{ type: "input_text", text: "a" }, part] }] });

describe("ids in a request", () => {
  test.each<[unknown, object]>([
    [{ model: "m", input: "file_id item_reference" }, {}],
    [
      {
        input: [
          { role: "user", content: "x" },
          { id: "msg_1", role: "assistant", type: "message", content: [] },
        ],
      },
      {},
    ],
    [
      { previous_response_id: "resp_1", store: false },
      { previousResponseId: "resp_1", store: false },
    ],
    [{ previous_response_id: null, conversation: null, prompt: null, store: null, background: false }, {}],
    [
      { conversation: "conv_1", background: true },
      { conversation: "conv_1", background: true },
    ],
    [{ conversation: { id: "conv_1" } }, { conversation: "conv_1" }],
    [
      { prompt: { id: "pmpt_1", variables: { a: { type: "input_file", file_id: "file-1" } } } },
      { prompt: "pmpt_1", files: ["file-1"] },
    ],
    [{ input: [{ type: "item_reference", id: "rs_1" }, { id: "msg_1" }] }, { itemReferences: ["rs_1", "msg_1"] }],
    [{ input: [{ type: null, id: "msg_1" }] }, { itemReferences: ["msg_1"] }],
    [message({ type: "input_image", file_id: "file-1" }), { files: ["file-1"] }],
    [message({ type: "input_image", file_id: null, image_url: "x" }), {}],
    [message({ type: "input_text", text: '{"file_id":"file-1"}' }), {}],
    [
      {
        tools: [
          { type: "file_search", vector_store_ids: ["vs_1", "vs_2"] },
          { type: "code_interpreter", container: "cntr_1" },
        ],
      },
      { files: ["vs_1", "vs_2", "cntr_1"] },
    ],
    [
      { tools: [{ type: "code_interpreter", container: { type: "auto", file_ids: ["file-1"] } }] },
      { files: ["file-1"] },
    ],
    [{ tools: [{ type: "function", name: "f", parameters: { default: { file_id: "no" } } }] }, {}],
    [{ input: [{ type: "reasoning", id: "rs_1", summary: [], encrypted_content: "gAAA" }] }, { encrypted: true }],
    [{ input: [{ type: "reasoning", id: "rs_1", summary: [], encrypted_content: null }] }, {}],
    [
      { input: [{ type: "reasoning", id: "rs_1", summary: [], encrypted_content: sealBlocks([{}]) }] },
      { sealed: true },
    ],
    ['{"input":[{"content":[{"file\\u005fid":"file-1"}],"role":"user"}]}', { files: ["file-1"] }],
    [
      '{"input":[{"type":"item\\u005freference","id":"a"}],"previous\\u005fresponse_id":"b"}',
      { itemReferences: ["a"], previousResponseId: "b" },
    ],
    ['{"previous_response_id":"a","previous_response_id":"b"}', { previousResponseId: "b" }],
  ])("%j", (body, expected) => {
    expect(ids(body)).toEqual({ ...NONE, ...expected });
  });

  test.each(["", "[]", "null", "{", '{"input":[}', '{"a" 1}'])("%s is no request", (text) => {
    expect(ids(text)).toBeNull();
  });

  test("are found wherever they stand in the input", () => {
    const anything = fc.jsonValue({ maxDepth: 2 }).filter((value) => !JSON.stringify(value).includes("_id"));
    fc.assert(
      fc.property(fc.array(anything), fc.string({ minLength: 1 }), fc.array(anything), (before, id, after) => {
        const input = [
          ...before,
          { role: "user", content: [{ x: before, file_id: id }] },
          { type: "item_reference", id },
          ...after,
        ];
        const found = ids({ a: after, input, b: before })!;
        expect(found.files).toEqual([id]);
        expect(found.itemReferences).toContain(id);
      }),
      { numRuns: 50 },
    );
  });
});

describe("sealed reasoning", () => {
  test("is left out, and nothing else", () => {
    const sealed = { type: "reasoning", id: "rs_1", summary: [], encrypted_content: sealBlocks([{}]) };
    const item = fc.oneof(fc.constant(sealed), fc.record({ role: fc.constant("user"), content: fc.string() }));
    fc.assert(
      fc.property(fc.array(item, { maxLength: 6 }), fc.string(), (input, text) => {
        const body = Buffer.from(JSON.stringify({ a: text, input, b: [sealed] }, null, 1));
        const kept = dropSealed(body);
        expect(JSON.parse(kept.toString("utf8"))).toEqual({
          a: text,
          input: input.filter((each) => each !== sealed),
          b: [sealed],
        });
        if (!input.includes(sealed)) expect(kept).toBe(body);
      }),
      { numRuns: 100 },
    );
  });
});
