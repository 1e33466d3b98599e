/** Files in messages: only the VE whose they are can name them, and only their own account is asked. */

import { afterEach, beforeEach, expect, test } from "vitest";
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
