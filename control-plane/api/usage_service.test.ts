import { create, fromJsonString, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { formatCredits, parseCredits } from "../../core/credits.ts";
import type { Price } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { RequestRecordSchema } from "../../proto/gen/tokenbill/v1/usage_pb.ts";
import {
  ExportFormat,
  ExportUsageRequestSchema,
  GetRequestRequestSchema,
  type GetRequestResponseSchema,
  ListRequestsRequestSchema,
  type ListRequestsResponseSchema,
  ListTransfersRequestSchema,
  type ListTransfersResponseSchema,
  SummarizeUsageRequestSchema,
  type SummarizeUsageResponseSchema,
  UsageDimension,
} from "../../proto/gen/tokenbill/v1/usage_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import {
  addBasics,
  addMerchant,
  addPm,
  addVe,
  callContext,
  encode,
  OF_MERCHANT,
  PLAIN_PRICE,
  record,
  reporter,
  T0,
  TestNode,
  testWorld,
} from "../report/testing.ts";
import { makePartitions } from "../maintenance.ts";
import { usageService } from "./usage_service.ts";

type SummaryInit = MessageInitShape<typeof SummarizeUsageRequestSchema>;
type ListInit = MessageInitShape<typeof ListRequestsRequestSchema>;
type ExportInit = MessageInitShape<typeof ExportUsageRequestSchema>;
type Summary = NonNullable<MessageInitShape<typeof SummarizeUsageResponseSchema>["rows"]>[number];
type Listed = NonNullable<MessageInitShape<typeof ListRequestsResponseSchema>["requests"]>[number];

const EVENTS = 60;
const NASTY = 'say "hi",\r\nthen =1+1';
const S0 = BigInt(T0) / 1000n;

describe.each(openTestDatabases())("UsageService on $name", ({ open }) => {
  let db: Database;
  let service: ReturnType<typeof usageService>;
  const sent: { id: string; ve: string; model: string; pm: string; day: string; tokens: number; us: bigint }[] = [];

  beforeAll(async () => {
    db = await open();
    const world = testWorld(db);
    await makePartitions(world.deps);
    const prices: Price[] = [await addBasics(db), await addPm(db, "pm_b", "prov_a", PLAIN_PRICE)];
    for (const id of ["ve_1", "ve_2"]) await addVe(world, id, { credits: "1000" });
    await addMerchant(db, "mer_b");
    await addVe(world, "ve_b", { merchantId: "mer_b", credits: "5" });
    const node = new TestNode(reporter(world.deps), "boot_1");
    const bodies: Uint8Array[] = [];
    for (let no = 1; no <= EVENTS; no += 1) {
      const ve = `ve_${1 + (no % 2)}`;
      const price = prices[no % 3 === 0 ? 1 : 0]!;
      const day = no % 4;
      // Several share a microsecond, so that paging depends on more than the time.
      const us = BigInt(T0) * 1000n + BigInt(day) * 86_400_000_000n + BigInt(Math.floor(no / 5));
      const model = no % 5 === 0 ? NASTY : "gpt";
      const source = no % 7 === 0 ? 2 : 1;
      const units = [{ meter: 4 as const, quantity: BigInt(no), source: source as 1 | 2 }];
      bodies.push(encode(record(BigInt(no), ve, no, price, { arriveUnixUs: us, logicalModel: model, units })));
      const date = new Date(T0 + day * 86_400_000).toISOString().slice(0, 10);
      sent.push({ id: `usg_${ve}_${no}`, ve, model, pm: price.physicalModelId, day: date, tokens: no, us });
    }
    await node.send(bodies.slice(0, 25));
    await node.send(bodies.slice(25));
    service = usageService(world.deps);
  });
  afterAll(() => db.close());

  const ctx = callContext(OF_MERCHANT);
  const stranger = callContext({ kind: "merchant", merchantId: "mer_b", tokenId: "tok_b" });

  async function summarize(init: SummaryInit, context = ctx): Promise<Summary[]> {
    const rows: Summary[] = [];
    let pageToken = "";
    do {
      const page = await service.summarizeUsage(create(SummarizeUsageRequestSchema, { ...init, pageToken }), context);
      rows.push(...(page.rows ?? []));
      pageToken = page.nextPageToken ?? "";
    } while (pageToken !== "");
    return rows;
  }

  async function list(init: ListInit, context = ctx): Promise<Listed[]> {
    const rows: Listed[] = [];
    let pageToken = "";
    do {
      const page = await service.listRequests(create(ListRequestsRequestSchema, { ...init, pageToken }), context);
      rows.push(...(page.requests ?? []));
      pageToken = page.nextPageToken ?? "";
    } while (pageToken !== "");
    return rows;
  }

  async function exported(init: ExportInit, context = ctx): Promise<string> {
    const parts: Uint8Array[] = [];
    for await (const { data } of service.exportUsage(create(ExportUsageRequestSchema, init), context))
      parts.push(data!);
    return Buffer.concat(parts).toString("utf8");
  }

  const dimensions: [UsageDimension, (event: (typeof sent)[number]) => string, (row: Summary) => string][] = [
    [UsageDimension.VIRTUAL_ENDPOINT, (event) => event.ve, (row) => row.veId!],
    [UsageDimension.LOGICAL_MODEL, (event) => event.model, (row) => row.logicalModel!],
    [UsageDimension.PHYSICAL_MODEL, (event) => event.pm, (row) => row.physicalModelId!],
    [UsageDimension.ACCESS_KEY, (event) => `key_${event.ve}`, (row) => row.accessKeyId!],
    [UsageDimension.DAY, (event) => event.day, (row) => row.day!],
  ];
  const subsets = Array.from({ length: 32 }, (_, bits) => dimensions.filter((_, index) => (bits >> index) % 2 === 1));

  it.each(subsets.map((chosen) => ({ chosen, names: chosen.map(([dimension]) => dimension).join("+") || "nothing" })))(
    "sums by $names equal the sums of the events, in pages of 3",
    async ({ chosen }) => {
      const expected = new Map<string, { requests: number; tokens: number }>();
      for (const event of sent) {
        const key = JSON.stringify(chosen.map(([, of]) => of(event)));
        const sum = expected.get(key) ?? { requests: 0, tokens: 0 };
        expected.set(key, { requests: sum.requests + 1, tokens: sum.tokens + event.tokens });
      }
      const rows = await summarize({ groupBy: chosen.map(([dimension]) => dimension).toReversed(), pageSize: 3 });
      const found = new Map(rows.map((row) => [JSON.stringify(chosen.map(([, , of]) => of(row))), row]));
      expect(rows).toHaveLength(expected.size);
      for (const [key, { requests, tokens }] of expected) {
        const credits = formatCredits(parseCredits("0.001") * BigInt(tokens));
        expect(found.get(key)).toMatchObject({
          requests: BigInt(requests),
          credits,
          units: [{ meter: 4, quantity: BigInt(tokens) }],
        });
      }
    },
  );

  it("filters sums, and counts what was estimated", async () => {
    const day = (no: number) => ({ seconds: S0 + BigInt(no) * 86_400n, nanos: 0 });
    const [all] = await summarize({});
    expect(all).toMatchObject({ requests: 60n, estimatedRequests: 8n });
    const ofDay = sent.filter((event) => event.day === "2026-11-24" && event.ve === "ve_2" && event.model === "gpt");
    const [row] = await summarize({
      filter: { veId: "ve_2", logicalModel: "gpt", accessKeyId: "key_ve_2", startTime: day(1), endTime: day(1) },
    });
    expect(row!.requests).toBe(BigInt(ofDay.length));
    expect(ofDay.length).toBeGreaterThan(0);
    const [none] = await summarize({ filter: { physicalModelId: "pm_none" } });
    expect(none).toMatchObject({ requests: 0n, credits: "0", units: [] });
  });

  const newestFirst = () =>
    sent
      .map((event, no) => ({ ...event, no }))
      .toSorted((a, b) => (a.us === b.us ? b.no - a.no : a.us < b.us ? 1 : -1))
      .map(({ id }) => id);

  it.each([1, 7, 60, 100])("lists requests newest first, %i at a time", async (pageSize) => {
    expect((await list({ pageSize })).map((row) => row.id)).toEqual(newestFirst());
  });

  it.each([
    { filter: { veId: "ve_1" }, keep: (event: (typeof sent)[number]) => event.ve === "ve_1" },
    { filter: { accessKeyId: "key_ve_2" }, keep: (event: (typeof sent)[number]) => event.ve === "ve_2" },
    {
      filter: { physicalModelId: "pm_b", logicalModel: "gpt" },
      keep: (event: (typeof sent)[number]) => event.pm === "pm_b" && event.model === "gpt",
    },
    {
      filter: { startTime: { seconds: S0, nanos: 4_000 }, endTime: { seconds: S0, nanos: 9_000 } },
      keep: (event: (typeof sent)[number]) => event.us >= BigInt(T0) * 1000n + 4n && event.us < BigInt(T0) * 1000n + 9n,
    },
  ])("lists by $filter", async ({ filter, keep }) => {
    const kept = new Set(sent.filter(keep).map(({ id }) => id));
    expect(kept.size).toBeGreaterThan(0);
    expect((await list({ filter, pageSize: 4 })).map((row) => row.id)).toEqual(
      newestFirst().filter((id) => kept.has(id)),
    );
  });

  it("refuses a token of another list or filter, and times the wrong way round", async () => {
    const { nextPageToken } = await service.listRequests(create(ListRequestsRequestSchema, { pageSize: 1 }), ctx);
    const again = (init: ListInit) => service.listRequests(create(ListRequestsRequestSchema, init), ctx);
    await expect(again({ pageToken: nextPageToken!, filter: { veId: "ve_1" } })).rejects.toMatchObject({
      code: "bad_page_token",
    });
    const backwards = { startTime: { seconds: 10n }, endTime: { seconds: 9n } };
    await expect(again({ filter: backwards })).rejects.toMatchObject({
      code: "invalid_field",
      field: "filter.end_time",
    });
  });

  it("explains a request, to its merchant alone", async () => {
    const get = (context: typeof ctx) =>
      service.getRequest(create(GetRequestRequestSchema, { id: "usg_ve_1_2" }), context);
    const { request } = (await get(ctx)) as MessageInitShape<typeof GetRequestResponseSchema>;
    expect(request).toMatchObject({
      id: "usg_ve_1_2",
      veId: "ve_1",
      accessKeyId: "key_ve_1",
      logicalModelId: "lm_a",
      logicalModel: "gpt",
      endpoint: 1,
      physicalModelId: "pm_a",
      priceId: "price_pm_a",
      units: [{ meter: 4, quantity: 2n, source: 1 }],
      credits: "0.002",
      outcome: 1,
      httpStatus: 200,
      attempts: [{ physicalModelId: "pm_a", result: 1, httpStatus: 200, startUs: 5n, durationUs: 900n }],
      arriveTime: { seconds: S0 + 2n * 86_400n, nanos: 0 },
      firstByteUs: 10n,
      firstContentUs: 11n,
      durationUs: 1000n,
      upstreamRequestId: "up_1",
      nodeId: "node_boot_1",
    });
    const transfers = await db.query<{ id: string }>("select id from transfer where reference = 'use:boot_1:1:ve_1'");
    expect(request!.transferId).toBe(transfers[0]!.id);
    await expect(get(stranger)).rejects.toMatchObject({ code: "not_found" });
  });

  it("exports every request as NDJSON, oldest first", async () => {
    const lines = (await exported({})).trimEnd().split("\n");
    expect(lines.map((line) => fromJsonString(RequestRecordSchema, line).id)).toEqual(newestFirst().toReversed());
    expect(JSON.parse(lines[0]!)).toMatchObject({
      credits: expect.stringMatching(/^0\.0/),
      endpoint: "ENDPOINT_CHAT_COMPLETIONS",
      errorCode: "",
    });
  });

  it("exports CSV that a parser reads back exactly", async () => {
    const rows = parseCsv(await exported({ format: ExportFormat.CSV }));
    const [header, ...body] = rows;
    expect(new Set(rows.map((row) => row.length))).toEqual(new Set([header!.length]));
    const column = (name: string) => body.map((row) => row[header!.indexOf(name)]);
    expect(column("id")).toEqual(newestFirst().toReversed());
    const byId = new Map(sent.map((event) => [event.id, event]));
    expect(column("logical_model")).toEqual(column("id").map((id) => byId.get(id!)!.model));
    expect(column("output_tokens")).toEqual(column("id").map((id) => String(byId.get(id!)!.tokens)));
    expect(column("attempts")[0]).toMatch(/^pm_[ab]:SERVED:200$/);
    expect(column("arrive_time")[0]).toBe("2026-11-23T12:00:00.000000Z");
  });

  it("exports by filter, nothing of others, and stops when the client goes away", async () => {
    expect((await exported({ filter: { veId: "ve_1" } })).trimEnd().split("\n")).toHaveLength(30);
    expect(await exported({}, stranger)).toBe("");
    const gone = new AbortController();
    gone.abort();
    expect(await exported({}, callContext(OF_MERCHANT, gone.signal))).toBe("");
  });

  it("shows the ledger newest first, to its merchant alone", async () => {
    const read = (pageToken: string, context = ctx) =>
      service.listTransfers(create(ListTransfersRequestSchema, { veId: "ve_1", pageSize: 2, pageToken }), context);
    const first = (await read("")) as MessageInitShape<typeof ListTransfersResponseSchema>;
    const second = (await read(first.nextPageToken!)) as MessageInitShape<typeof ListTransfersResponseSchema>;
    const all = [...first.transfers!, ...second.transfers!];
    expect(second.nextPageToken).toBe("");
    expect(all).toMatchObject([
      { reference: "use:boot_1:2:ve_1", debitAccount: "wallet", creditAccount: "usage" },
      { reference: "use:boot_1:1:ve_1" },
      { debitAccount: "adjustment", creditAccount: "wallet", credits: "1000", reason: "initial credit budget" },
    ]);
    await expect(read("", stranger)).rejects.toMatchObject({ code: "not_found" });
  });

  it("serves merchants alone", async () => {
    const operator = callContext({ kind: "operator" });
    await expect(summarize({}, operator)).rejects.toMatchObject({ code: "wrong_scope" });
    await expect(list({}, operator)).rejects.toMatchObject({ code: "wrong_scope" });
  });
});

/** RFC 4180, written apart from the code under test. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let cell = "";
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at]!;
    if (quoted) {
      if (char !== '"') cell += char;
      else if (text[at + 1] === '"') {
        cell += '"';
        at += 1;
      } else quoted = false;
    } else if (char === '"') quoted = true;
    else if (char === ",") {
      row.push(cell);
      cell = "";
    } else if (char === "\r" && text[at + 1] === "\n") {
      rows.push([...row, cell]);
      row = [];
      cell = "";
      at += 1;
    } else cell += char;
  }
  expect({ row, cell, quoted }).toEqual({ row: [], cell: "", quoted: false });
  return rows;
}
