/** A frozen VE is closed like a disabled one, until a dispute is won or the merchant says so; `disabled` stays what it was. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { VirtualEndpoint } from "../../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import {
  CreateVirtualEndpointRequestSchema,
  UpdateVirtualEndpointRequestSchema,
} from "../../proto/gen/tokenbill/v1/virtual_endpoint_service_pb.ts";
import type { Database } from "../db/database.ts";
import { openTestDatabases } from "../db/testing.ts";
import { Feed } from "../feed/feed.ts";
import { FeedTable } from "../feed/testing.ts";
import {
  addBasics,
  callContext,
  NO_HINTS,
  OF_MERCHANT,
  reporter,
  TestNode,
  testWorld,
  type TestWorld,
} from "../report/testing.ts";
import { nextRevision } from "../store/feed_state.ts";
import { setFrozen } from "../store/virtual_endpoint.ts";
import { virtualEndpointService } from "./virtual_endpoint_service.ts";

/** How soon nodes know. Generous: it is a moment when the machine has nothing else to do. */
const HEARD_MS = 2000;

describe.each(openTestDatabases())("a frozen VE on $name", ({ open }) => {
  let db: Database;
  let world: TestWorld;
  let feed: Feed;
  let boots = 0;
  beforeAll(async () => {
    db = await open();
    world = testWorld(db);
    await addBasics(db);
    feed = await Feed.start(world.deps);
  });
  afterAll(async () => {
    await feed.close();
    await db.close();
  });

  const ctx = callContext(OF_MERCHANT);
  const calls = () => virtualEndpointService(world.deps, NO_HINTS);
  const shown = (answer: unknown) => (answer as { virtualEndpoint: VirtualEndpoint }).virtualEndpoint;
  const make = async (init: MessageInitShape<typeof CreateVirtualEndpointRequestSchema>) =>
    shown(await calls().createVirtualEndpoint(create(CreateVirtualEndpointRequestSchema, init), ctx));
  const update = async (init: MessageInitShape<typeof UpdateVirtualEndpointRequestSchema>) =>
    shown(await calls().updateVirtualEndpoint(create(UpdateVirtualEndpointRequestSchema, init), ctx));
  const read = async (id: string) =>
    shown(await calls().getVirtualEndpoint({ $typeName: "tokenbill.v1.GetVirtualEndpointRequest", id }, ctx));
  /** As the engine does. */
  const freeze = (id: string, frozen: boolean) =>
    db.tx(async (tx) => setFrozen(tx, id, frozen, await nextRevision(tx), new Date(world.deps.now())));
  const granted = async (veId: string) => {
    const node = new TestNode(reporter(world.deps), `boot_${(boots += 1)}`);
    const { leases } = await node.send([], [{ veId, want: "1", need: "0.1" }]);
    return leases.find((lease) => lease.veId === veId)!.granted;
  };

  it("is refused on nodes at once, gets no grants, and both end with it", async () => {
    const ve = await make({ name: "a", creditBudget: "10" });
    expect(ve.frozen).toBe(false);
    const table = new FeedTable();
    const end = new AbortController();
    const stream = feed.watch("boot_watch", null, end.signal);
    const disabled = (): boolean | undefined => {
      const json = table.resources.get(ve.id);
      return json === undefined ? undefined : (JSON.parse(json) as { value: { disabled: boolean } }).value.disabled;
    };
    const until = async (wanted: boolean): Promise<number> => {
      const from = performance.now();
      for (;;) {
        table.apply((await stream.next()).value!);
        if (disabled() === wanted) return performance.now() - from;
      }
    };
    await until(false);
    expect(await granted(ve.id)).not.toBe("0");
    expect(await freeze(ve.id, true)).toBe(true);
    expect(await until(true)).toBeLessThan(HEARD_MS);
    expect(await granted(ve.id)).toBe("0");
    expect(await read(ve.id)).toMatchObject({ frozen: true, disabled: false, etag: "2" });
    expect(await freeze(ve.id, false)).toBe(true);
    expect(await until(false)).toBeLessThan(HEARD_MS);
    expect(await granted(ve.id)).not.toBe("0");
    expect(await read(ve.id)).toMatchObject({ frozen: false, etag: "3" });
    end.abort();
  });

  it("is frozen once, however often it is said", async () => {
    const ve = await make({ name: "b" });
    expect([await freeze(ve.id, true), await freeze(ve.id, true)]).toEqual([true, false]);
    expect((await read(ve.id)).etag).toBe("2");
    expect(await freeze("ve_nobody", true)).toBe(false);
  });

  it("can be frozen and opened by the merchant, who changes nothing else with that", async () => {
    const ve = await make({ name: "c", labels: { a: "b" } });
    expect(await update({ id: ve.id, frozen: true })).toMatchObject({
      frozen: true,
      disabled: false,
      labels: { a: "b" },
    });
    // Other changes leave it as it is.
    expect(await update({ id: ve.id, disabled: true })).toMatchObject({ frozen: true, disabled: true });
    expect(await update({ id: ve.id, frozen: false })).toMatchObject({ frozen: false, disabled: true, etag: "4" });
    await expect(update({ id: ve.id, frozen: true, etag: "3" })).rejects.toMatchObject({ code: "etag_mismatch" });
  });

  it("is no template, and its copies are not frozen", async () => {
    const template = await make({ name: "t", template: true });
    await expect(update({ id: template.id, frozen: true })).rejects.toMatchObject({
      code: "invalid_field",
      metadata: { field: "frozen", rule: "template" },
    });
    expect(await freeze(template.id, true)).toBe(false);
    const ve = await make({ name: "d" });
    await freeze(ve.id, true);
    expect((await make({ name: "copy", veTemplateId: ve.id })).frozen).toBe(false);
  });
});
