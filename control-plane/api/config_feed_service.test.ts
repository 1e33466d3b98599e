import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  GetConfigRequestSchema,
  type GetConfigResponseSchema,
  ReportConfigStatusRequestSchema,
  WatchConfigRequestSchema,
} from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { ProviderCredentialsSchema } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { Feed } from "../feed/feed.ts";
import { addBasics, addLm, addProvider, addVe, callContext, NODE, OF_MERCHANT, testWorld } from "../report/testing.ts";
import { configFeedService } from "./config_feed_service.ts";

type Page = MessageInitShape<typeof GetConfigResponseSchema>;

describe.each(openTestDatabases())("ConfigFeedService on $name", ({ open }) => {
  let db: Database;
  let feed: Feed;
  let service: ReturnType<typeof configFeedService>;

  beforeAll(async () => {
    db = await open();
    const world = testWorld(db);
    await addBasics(db);
    const secret = toBinary(ProviderCredentialsSchema, create(ProviderCredentialsSchema, { apiKey: "sk-very-secret" }));
    await addProvider(db, "prov_k", "mer_a", world.deps.secrets.seal(secret, "prov_k"));
    for (const id of ["ve_1", "ve_2", "ve_3"]) {
      await addVe(world, id);
      await addLm(db, `lm_${id}`, id, "pm_a");
    }
    feed = await Feed.start(world.deps);
    service = configFeedService(world.deps, feed);
  });
  afterAll(async () => {
    await feed.close();
    await db.close();
  });

  const page = async (pageSize: number, pageToken = ""): Promise<Page> =>
    service.getConfig(create(GetConfigRequestSchema, { pageSize, pageToken }), callContext(NODE)) as Promise<Page>;

  it.each([1, 2, 3, 4, 7, 100])("pages through everything %i at a time, without credentials", async (size) => {
    const ids: string[] = [];
    let token = "";
    do {
      const { resources, nextPageToken } = await page(size, token);
      expect(resources!.length).toBeLessThanOrEqual(size);
      for (const { kind } of resources!) ids.push((kind as { value: { id: string } }).value.id);
      expect(
        JSON.stringify(resources, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value)),
      ).not.toContain("sk-very-secret");
      for (const { kind } of resources!) {
        const { pinSecret } = kind!.value as { pinSecret?: Uint8Array };
        expect(pinSecret ?? []).toHaveLength(0);
      }
      token = nextPageToken!;
    } while (token !== "");
    const kinds = ["prov_a", "prov_k", "pm_a", "ve_1", "ve_2", "ve_3", "key_ve_1", "key_ve_2", "key_ve_3"];
    expect(ids).toEqual([...kinds, "lm_ve_1", "lm_ve_2", "lm_ve_3"]);
  });

  it("refuses a token that it did not make", async () => {
    await expect(page(1, "AAAA")).rejects.toMatchObject({ code: "bad_page_token" });
  });

  it("streams to nodes, and to nobody else", async () => {
    const request = create(WatchConfigRequestSchema, { nodeId: "node_a", bootId: "boot_a" });
    const stop = new AbortController();
    const seen: string[] = [];
    for await (const { event } of service.watchConfig(request, callContext(NODE, stop.signal))) {
      seen.push(event!.case!);
      if (event!.case === "snapshotEnd") stop.abort();
    }
    expect(seen).toEqual(["snapshotBegin", "snapshotChunk", "snapshotEnd"]);
    const stream = service.watchConfig(request, callContext(OF_MERCHANT))[Symbol.asyncIterator]();
    await expect(stream.next()).rejects.toMatchObject({ code: "wrong_scope" });
    await expect(service.getConfig(create(GetConfigRequestSchema), callContext(OF_MERCHANT))).rejects.toMatchObject({
      code: "wrong_scope",
    });
  });

  it("keeps what a node last said", async () => {
    const say = (revision: bigint, rejected: { id: string; reason: string }[]) =>
      service.reportConfigStatus(
        create(ReportConfigStatusRequestSchema, {
          nodeId: "node_a",
          bootId: "boot_a",
          applied: { epoch: "ep", revision },
          rejected,
        }),
        callContext(NODE),
      );
    await say(4n, [{ id: "pm_x", reason: "its Provider is missing" }]);
    await say(5n, []);
    await say(6n, [{ id: "lm_x", reason: "no targets" }]);
    const rows = await db.query("select node_id, boot_id, epoch, revision, rejected from node_status");
    expect(rows).toEqual([
      {
        node_id: "node_a",
        boot_id: "boot_a",
        epoch: "ep",
        revision: 6n,
        rejected: [{ id: "lm_x", reason: "no targets" }],
      },
    ]);
  });
});
