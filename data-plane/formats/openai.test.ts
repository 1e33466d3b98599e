import { describe, expect, test } from "vitest";
import { scanBody } from "../body.ts";
import { UnitKind } from "../../core/meters.ts";
import { CHAT, COMPLETIONS, EMBEDDINGS, kindBits, MESSAGES } from "../endpoints.ts";
import { RouteTable } from "../route_table.ts";
import type { RoutePm } from "../route_types.ts";
import type { SseEvent } from "../sse.ts";
import { gatewayResources, snapshot, VE } from "../testing.ts";
import { type Asked, type EndpointSpec, FrameKind } from "./format.ts";
import { bridgeOf, serves } from "./index.ts";
import { dialectOf } from "./dialects.ts";
import { bodyChanges, openAiBridge, openAiError } from "./openai.ts";
import { refusalOf, scrub } from "./refusal.ts";
import { OUTPUT_SAMPLE_BYTES_MAX, Sampler } from "../tokenizer/tokens.ts";
import { measureObject, measureValue } from "./openai_text.ts";

function pmOf(baseUrl: string, provider: Record<string, unknown> = {}): RoutePm {
  const table = new RouteTable();
  snapshot(table, gatewayResources(["https://x.example"], { provider: { baseUrl, ...provider } }));
  return table.logicalModel(table.ve(VE)!, "gpt")!.spec.group.pms[0]!;
}

const body = (fields: Record<string, unknown> = {}) =>
  scanBody(Buffer.from(JSON.stringify({ model: "gpt", messages: [], ...fields })));
const asked = (endpoint: EndpointSpec, fields: Record<string, unknown> = {}, stream = false): Asked => ({
  id: "usg_1",
  arriveMs: 0,
  endpoint,
  body: body({ ...fields, ...(stream ? { stream } : {}) }),
  stream,
  clampTo: null,
  pinSecret: "",
  previousId: null,
  form: null,
  mediaSeconds: null,
});
const anyPm = pmOf("https://x.example/v1");
const openai = openAiBridge(dialectOf(0, "https://x.example"), openAiError);
const changes = (baseUrl: string, endpoint: EndpointSpec) =>
  bodyChanges(dialectOf(0, new URL(baseUrl).origin), pmOf(baseUrl), asked(endpoint));

describe("requests", () => {
  test.each([
    ["https://api.openai.com/v1", "https://api.openai.com", "/v1/chat/completions"],
    ["https://api.openai.com/v1/", "https://api.openai.com", "/v1/chat/completions"],
    ["http://127.0.0.1:9000", "http://127.0.0.1:9000", "/chat/completions"],
    ["https://x.example:8443/a/b/v1?key=1", "https://x.example:8443", "/a/b/v1/chat/completions?key=1"],
  ])("%s", (baseUrl, origin, path) => {
    expect(openai.request(pmOf(baseUrl), asked(CHAT), [])).toMatchObject({ origin, path, method: "POST" });
  });

  test("carry the Provider's own headers, but not in place of ours", () => {
    const headers = { "OpenAI-Project": "p1", Authorization: "Bearer other", Host: "evil", "Content-Length": "1" };
    const sent = openai.request(pmOf("https://x.example/v1", { headers }), asked(CHAT, {}, true), [
      "openai-beta",
      "b",
    ]).headers;
    const map = Object.fromEntries(sent.flatMap((name, i) => (i % 2 === 0 ? [[name, sent[i + 1]]] : [])));
    expect(map).toEqual({
      accept: "text/event-stream",
      "accept-encoding": "identity",
      authorization: "Bearer sk-upstream-secret-0",
      "content-type": "application/json",
      "openai-beta": "b",
      "openai-project": "p1",
      "user-agent": "tokenbill",
    });
  });

  test("without credentials carry no Authorization, and a new key counts at once", () => {
    const pm = pmOf("https://x.example/v1", { credentials: {} });
    expect(openai.request(pm, asked(CHAT), []).headers).not.toContain("authorization");
    pm.provider.apiKey = "sk-new";
    expect(openai.request(pm, asked(CHAT), []).headers).toContain("Bearer sk-new");
  });

  test("a limit that the wallet sets is said in both fields where nothing is known of the server", () => {
    const sent = (baseUrl: string, clampTo: number | null) => {
      const call = openAiBridge(dialectOf(0, new URL(baseUrl).origin), openAiError);
      const { body: bytes } = call.request(
        pmOf(baseUrl),
        { ...asked(CHAT, { max_completion_tokens: 90 }), clampTo },
        [],
      );
      const { max_tokens, max_completion_tokens } = JSON.parse(String(bytes)) as Record<string, unknown>;
      return [max_tokens, max_completion_tokens];
    };
    expect(sent("https://own.example/v1", 50)).toEqual([50, 50]);
    expect(sent("https://own.example/v1", null)).toEqual([undefined, 90]);
    expect(sent("https://api.openai.com/v1", 50)).toEqual([undefined, 50]);
  });

  test("limit answers with the field that the server takes", () => {
    expect(changes("https://api.openai.com/v1", CHAT).outputTokensField).toBe("max_completion_tokens");
    expect(changes("https://api.openai.com/v1", COMPLETIONS).outputTokensField).toBe("max_tokens");
    expect(changes("https://vllm.example/v1", CHAT).outputTokensField).toBe("max_tokens");
  });

  test("a target serves what its format has and its price covers", () => {
    expect(bridgeOf(CHAT, anyPm)).toMatchObject({ translated: false });
    expect(bridgeOf(MESSAGES, anyPm)).toMatchObject({ translated: true });
    expect(serves(CHAT, anyPm)).toBe(true);
    expect(serves(CHAT, { ...anyPm, kinds: kindBits(UnitKind.SECONDS) })).toBe(false);
    expect(serves(CHAT, { ...anyPm, provider: { ...anyPm.provider, bridges: {} } })).toBe(false);
  });
});

describe("statuses", () => {
  const error = (fields: Record<string, unknown>) => Buffer.from(JSON.stringify({ error: fields }));
  test.each([
    [400, {}, true, "ignore"],
    [400, { code: "context_length_exceeded" }, true, "ignore"],
    [400, { code: "content_policy_violation" }, true, "ignore"],
    [400, { code: "model_not_found" }, false, "model"],
    [400, { code: "billing_not_active" }, false, "account"],
    [413, {}, true, "ignore"],
    [422, {}, true, "ignore"],
    [401, {}, false, "account"],
    [402, {}, false, "account"],
    [403, {}, false, "model"],
    [403, { code: "model_not_found" }, false, "model"],
    [403, { code: "unsupported_country_region_territory" }, false, "account"],
    [404, {}, false, "model"],
    [404, { code: "account_deactivated" }, false, "account"],
    [408, {}, false, "failure"],
    [409, {}, false, "failure"],
    [424, {}, false, "failure"],
    [429, {}, false, "rate_limit"],
    [429, { type: "insufficient_quota", code: "credit_balance_exhausted" }, false, "account"],
    [500, {}, false, "failure"],
    [529, {}, false, "failure"],
    [302, {}, false, "failure"],
  ])("%i %j", (status, fields, clientFault, health) => {
    expect(openai.error(status, {}, error(fields))).toMatchObject({ clientFault, health });
  });

  test("bodies of any shape are no trouble", () => {
    for (const text of ["", "null", "[]", "<html>", '{"error":null}', '{"error":5}']) {
      expect(openai.error(400, {}, Buffer.from(text)).clientFault).toBe(true);
    }
  });

  test("words of an upstream lose what belongs to its account", () => {
    const { provider } = pmOf("https://internal.example:8443/v1");
    const text =
      "key sk-upstream-secret-0 Bearer abc.def of org-Abcdef12 at https://internal.example:8443/v1/x?y=1 (internal.example) by a.b@c.example";
    const clean = scrub(text, provider);
    for (const secret of ["sk-up", "abc.def", "org-A", "internal", "8443", "a.b@"]) expect(clean).not.toContain(secret);
    expect(scrub("max_tokens is too large: 9999. Use user_id or sk-", provider)).toContain(
      "max_tokens is too large: 9999",
    );
    expect(scrub("x".repeat(10_000), provider).length).toBe(2000);
    // A secret that the cut falls into.
    expect(scrub(`${"x".repeat(1990)}${provider.apiKey}`, provider)).not.toContain(provider.apiKey.slice(0, 5));
    const tenant = { ...provider, headers: ["x-tenant", "Zq9.team.private"] };
    expect(scrub("bad tenant Zq9.team.private", tenant)).toBe("bad tenant ***");
  });

  test("words of an upstream lose ids of accounts, requests and resources", () => {
    const { provider } = pmOf("https://contoso-res.openai.azure.com");
    const clean = (text: string) => scrub(text, provider);
    expect(clean("tenant 72f988bf-86f1-41af-91ab-2d7cd011db47")).toBe("tenant ***");
    expect(clean("Account 123456789012, request req_011CQabcDEF123")).toBe("Account ***, request ***");
    expect(clean("at Contoso-Res or contoso-res.openai.azure.com, not contoso-resource")).toBe(
      "at *** or ***, not contoso-resource",
    );
    expect(clean("1234567890123 is more than 12345678901")).toBe("1234567890123 is more than 12345678901");
  });

  test("a client hears its own name of a model, not that of a deployment", () => {
    const { provider } = pmOf("https://x.example/v1");
    const names = { upstream: "prod-eu.4o", client: "gpt" };
    const message = "prod-eu.4o takes no `n`, other than prod-eu-4o";
    const error = { ...openAiError(400, {}, Buffer.from("{}")), message };
    expect(refusalOf(400, error, provider, names).fields.message).toBe("gpt takes no `n`, other than prod-eu-4o");
  });
});

describe("whole answers", () => {
  const read = (text: string, endpoint: EndpointSpec = CHAT) =>
    openai.readAnswer(Buffer.from(text), asked(endpoint), anyPm, {});
  test("usage is found wherever it stands", () => {
    expect(
      read('{"usage":{"prompt_tokens":1},"choices":[{"message":{"content":"say \\"usage\\":{}"}}]}').usage,
    ).toEqual({ prompt_tokens: 1 });
    expect(read('{"choices":[],"usage" : { "a" : {"b":1} } , "x":"usage"}').usage).toEqual({ a: { b: 1 } });
    expect(read('{"choices":[],"usage":null}').usage).toBeNull();
    expect(read('{"choices":[]}').usage).toBeNull();
    expect(read('\n\n {"data":[],"usage":{"prompt_tokens":2}}\n', EMBEDDINGS)).toMatchObject({
      valid: true,
      usage: { prompt_tokens: 2 },
    });
  });

  test.each([
    "",
    "{",
    "[]",
    '{"choices":[}',
    '{"choices":5}',
    "{}",
    '{"error":{"message":"x"},"choices":[]}',
    '{"choices":[]} x',
    "null",
    '"choices"',
  ])("%j is no answer", (text) => expect(read(text).valid).toBe(false));

  test.each([
    '{"usage":{"prompt_tokens":1},"choices":[{"message":{"content":"say \\"usage\\":{}"}}]}',
    '{"choices":[],"usage":null}',
    '{"choices":[{"usage":{"prompt_tokens":3}}]}',
    '{"choices":[{"message":{"content":"a \\q"}}],"usage":{"prompt_tokens":4}}',
    '{"choices":[],"usage":[]}',
    '{"choices":5,"usage":{}}',
    '{"choices":[],"error":null,"usage":{"prompt_tokens":5}}',
    '{"choices":[],"error":{},"usage":{"prompt_tokens":5}}',
    '{"choices":[],"usage":{"prompt_tokens":5}} x',
    '{"choices":[],"usage":{"prompt_tokens":5}',
  ])("%j is read alike whether it is parsed or scanned", (text) => {
    const [short, long] = [read(text), read(text + " ".repeat(8192))];
    expect([short.valid, short.usage]).toEqual([long.valid, long.usage]);
  });

  test("the word error alone is no error", () => {
    expect(read('{"choices":[{"message":{"content":"an \\"error\\""}}],"error":null}').valid).toBe(true);
    expect(read('{"choices":[{"finish_reason":"error"}]}').valid).toBe(true);
  });

  test("text is measured: content, reasoning, refusals and tool arguments", () => {
    const message = {
      role: "assistant",
      content: "äbc",
      reasoning_content: "12",
      refusal: null,
      tool_calls: [{ id: "call_1", type: "function", function: { name: "fn", arguments: "{}" } }],
    };
    const answer = read(JSON.stringify({ choices: [{ message }, { message: { content: "z" } }] }));
    expect([answer.textBytes(), answer.hasContent()]).toEqual([4 + 2 + 2 + 2 + 1, true]);
    const empty = read(JSON.stringify({ choices: [{ message: { role: "assistant", content: "" } }] }));
    expect([empty.textBytes(), empty.hasContent()]).toEqual([0, false]);
  });
});

describe("first content", () => {
  const delta = (fields: unknown, finish: string | null = null) =>
    JSON.stringify({ choices: [{ index: 0, delta: fields, finish_reason: finish }] });
  const { CONTENT, EMPTY, COMMENT, ERROR, BROKEN, DONE, USAGE_ONLY } = FrameKind;
  const cases: [string, string | null, FrameKind, string?][] = [
    ["text", delta({ content: "x" }), CONTENT],
    ["text with a space after the colon", '{"choices": [{"delta": {"content": "x"}}]}', CONTENT],
    ["reasoning", delta({ reasoning: "x" }), CONTENT],
    ["a refusal", delta({ refusal: "no" }), CONTENT],
    ["a tool call", delta({ tool_calls: [{ index: 0, id: "c", function: { name: "", arguments: "" } }] }), CONTENT],
    ["audio", delta({ audio: { id: "a", data: "AAAA" } }), CONTENT],
    ["content parts", delta({ content: [{ type: "text", text: "x" }] }), CONTENT],
    ["the reason of the end", delta({}, "content_filter"), CONTENT],
    ["a role", delta({ role: "assistant", content: "" }), EMPTY],
    ["nulls", delta({ role: "assistant", content: null, refusal: null, tool_calls: [] }), EMPTY],
    ["an empty delta", delta({}), EMPTY],
    ["an empty reason", delta({}, ""), EMPTY],
    ["no choices", '{"choices":[],"prompt_filter_results":[]}', EMPTY],
    ["only usage", '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}', USAGE_ONLY],
    ["an error", '{"error":{"message":"x"}}', ERROR],
    [
      "an error beside choices",
      '{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502}}',
      ERROR,
    ],
    ["an error event", "{}", ERROR, "error"],
    ["the end", " [DONE] ", DONE],
    ["nothing", null, COMMENT],
    ["an empty data line", "", COMMENT],
    ["text that is no JSON", "hello", BROKEN],
    ["an array", "[1]", BROKEN],
  ];
  test.each(cases)("%s", (_, data, kind, event = "") => {
    const frame: SseEvent = { event, data: data === null ? null : Buffer.from(data) };
    for (const exact of [true, false])
      expect(openai.streamReader(asked(CHAT, {}, true), anyPm).read(frame, exact)).toBe(kind);
  });

  test("cut JSON is noticed before the answer begins", () => {
    const frame: SseEvent = { event: "", data: Buffer.from('{"choices":[{"delta":{"content":"x"') };
    expect(openai.streamReader(asked(CHAT, {}, true), anyPm).read(frame, true)).toBe(BROKEN);
  });

  test("both ways of measuring agree", () => {
    const values = [
      { content: "Grüße" },
      {
        role: "assistant",
        content: "a",
        reasoning_content: "bb",
        tool_calls: [{ index: 0, function: { name: "f", arguments: '{"a":"b"}' } }],
      },
      { audio: { transcript: "hi", data: "AAAA" }, annotations: [{ text: "not counted" }] },
      { content: [{ type: "text", text: "part" }, "x", 5, null] },
      {},
      { a: { b: { c: [[[]]] } } },
    ];
    for (const value of values) {
      const [exact, fast] = [
        { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) },
        { bytes: 0, content: false, sampler: new Sampler(OUTPUT_SAMPLE_BYTES_MAX) },
      ];
      measureValue(value, exact);
      const text = Buffer.from(JSON.stringify(value).replaceAll('\\"', "'"));
      const end = measureObject(text, 0, fast);
      expect(end).toBe(text.length);
      expect(fast.content).toBe(exact.content);
      expect(fast.bytes).toBe(exact.bytes);
      expect(Buffer.from(fast.sampler.sample().bytes).toString()).toBe(
        Buffer.from(exact.sampler.sample().bytes).toString().replaceAll('\\"', "'"),
      );
    }
  });
});
