/** Golden pairs: Messages requests as chat, chat answers as messages, chat streams as streams of Messages. */

import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { ChatDelta, HubContext, Json } from "../hub.ts";
import { messagesClient } from "./client.ts";

const FIXTURES = new URL("../../../test/fixtures/messages/", import.meta.url);
const CONTEXT: HubContext = { id: "1", createdS: 1, model: "lm", request: {} };

const namesIn = (folder: string): string[] =>
  readdirSync(new URL(folder, FIXTURES))
    .filter((name) => name.endsWith(".chat.json"))
    .map((name) => name.replace(".chat.json", ""));
const text = (path: string): string => readFileSync(new URL(path, FIXTURES), "utf8");
const json = (path: string): any => JSON.parse(text(path));

test.each(namesIn("requests/"))("request %s", (name) => {
  expect(messagesClient.request(json(`requests/${name}.json`))).toEqual(json(`requests/${name}.chat.json`));
});

test.each(namesIn("answers/"))("answer %s", (name) => {
  expect(messagesClient.answer(json(`answers/${name}.chat.json`), CONTEXT)).toEqual(json(`answers/${name}.json`));
});

describe("streams", () => {
  test.each(namesIn("streams/"))("%s", (name) => {
    const { deltas, usage, cut } = json(`streams/${name}.chat.json`) as {
      deltas: [Json, string | null][];
      usage: Json | null;
      cut?: boolean;
    };
    const sink = messagesClient.sink(CONTEXT);
    let out = "";
    for (const [delta, finishReason] of deltas) out += sink.push({ index: 0, delta, finishReason } satisfies ChatDelta);
    out += cut === true ? sink.cut(usage) : sink.end(usage);
    expect(out).toBe(text(`streams/${name}.sse`));
  });
});
