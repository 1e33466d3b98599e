/** Files in messages and edits: only the VE whose they are can name them, and only their own account is asked. */

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { delta, type Gateway, resource, startGateway, VE } from "../testing.ts";

let gateway: Gateway;
beforeEach(async () => {
  gateway = await startGateway({ upstreams: 2, ve: { passthroughProviderId: "prov_1" } });
});
afterEach(() => gateway.close());

const file = { type: "file", file: { file_id: "file-1" } };
const ask = (...content: unknown[]) => gateway.chat({ messages: [{ role: "user", content }] });
const seen = () => gateway.upstreams.map(({ seen }) => seen.length);

test("a request that names a file goes where the file is, and others as ever", async () => {
  expect((await ask(file)).status).toBe(200);
  expect(seen()).toEqual([0, 1]);
  const others = [
    [{ type: "text", text: 'my "file_id"' }],
    [
      { type: "file", file: { filename: "a", file_data: "data:text/plain;base64,YQ==" } },
      { type: "text", text: "\u0001 file_id" },
    ],
  ];
  for (const content of others) expect((await ask(...content)).status).toBe(200);
  expect(seen()).toEqual([2, 1]);
  const hidden = JSON.stringify({ model: "gpt", messages: [{ role: "user", content: [file] }] });
  const answer = await gateway.post("/v1/chat/completions", hidden.replace('"file_id"', String.raw`"file\u005fid"`));
  expect([answer.status, seen()]).toEqual([200, [2, 2]]);
});

test.each([
  ["without the setting", ""],
  ["whose files are where the model is not", "prov_elsewhere"],
])("a VE %s cannot name any", async (_, passthroughProviderId) => {
  delta(gateway.table, [resource("virtualEndpoint", { id: VE, name: "v", passthroughProviderId })]);
  const answer = await ask(file);
  expect([answer.status, await answer.json()]).toMatchObject([
    400,
    { error: { code: "file_not_found", param: "messages" } },
  ]);
  expect(seen()).toEqual([0, 0]);
});

describe("edits of images", () => {
  const image = { image_url: "data:image/png;base64,YQ==" };
  const edit = (body: Record<string, unknown>) =>
    gateway.post("/v1/images/edits", JSON.stringify({ model: "gpt", prompt: "file_id", ...body }));
  const stored: [string, Record<string, unknown>][] = [
    ["images", { images: [image, { file_id: "file-1" }] }],
    ["mask", { images: [image], mask: { file_id: "file-1" } }],
  ];

  test.each(stored)("whose %s are stored go where the file is", async (_, body) => {
    await edit(body);
    expect(seen()).toEqual([0, 1]);
    await edit({ images: [image] });
    expect(seen()[0]).toBe(1);
  });

  test.each(stored)("cannot name %s of another VE", async (param, body) => {
    delta(gateway.table, [resource("virtualEndpoint", { id: VE, name: "v", passthroughProviderId: "" })]);
    const answer = await edit(body);
    expect([answer.status, await answer.json()]).toMatchObject([400, { error: { code: "file_not_found", param } }]);
    expect(seen()).toEqual([0, 0]);
  });
});
