import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import type { Resource } from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import { choose } from "./router.ts";
import { RouteTable } from "./route_table.ts";
import { checkoutUrl } from "./checkout_link.ts";
import { routable } from "./route_types.ts";
import { delta, gatewayResources, KEY, keyResource, PRICE, resource, snapshot, VE } from "./testing.ts";

const RESOURCES = gatewayResources(["https://a.example", "https://b.example"], {});

function event(fields: Record<string, unknown>) {
  return create(WatchConfigResponseSchema, { event: fields as never });
}

function loaded(resources: readonly Resource[] = RESOURCES): RouteTable {
  const table = new RouteTable();
  snapshot(table, resources);
  return table;
}

const digest = (secret: string): string => createHash("sha256").update(secret).digest("base64");
const target = (id: string, tier = 0, weight = 1) => ({ physicalModelId: id, tier, weight });
const lm = (id: string, veId: string, name: string, targets: unknown[]) =>
  resource("logicalModel", { id, veId, name, targets });

function choiceOf(table: RouteTable, name = "gpt") {
  const found = table.logicalModel(table.ve(VE)!, name)!;
  return choose(found.spec.group, null, () => 0, 0);
}

describe("a snapshot", () => {
  test("answers look-ups by digest, id and name", () => {
    const table = loaded();
    expect(table.cursor).toEqual({ epoch: "e1", revision: 1n });
    const key = table.key(digest(KEY))!;
    expect(key).toMatchObject({ id: "key_1" });
    expect(key.ve).toBe(table.ve(VE));
    expect(table.logicalModel(key.ve, "gpt")).toMatchObject({ id: "lm_1", createUnixS: 1_700_000_000 });
    expect(table.logicalModel(key.ve, "other")).toBeUndefined();
    expect(table.key(digest("something else"))).toBeUndefined();
    expect(checkoutUrl(key.ve, 0)).toBe(`https://pay.example/checkout?ve_id=${VE}`);
    expect(choiceOf(table)).toMatchObject({
      id: "pm_0",
      upstreamName: "up-0",
      provider: { origin: "https://a.example", basePath: "/v1" },
    });
  });

  test("is put in place only when it is whole, and a new one begins afresh", () => {
    const table = loaded();
    table.apply(event({ case: "snapshotBegin", value: { epoch: "e2", revision: 9n } }));
    table.apply(
      event({ case: "snapshotChunk", value: { resources: [resource("virtualEndpoint", { id: "ve_half" })] } }),
    );
    expect(table.ve("ve_half")).toBeUndefined();
    expect(table.ve(VE)).toBeDefined();
    table.apply(event({ case: "snapshotBegin", value: { epoch: "e2", revision: 10n } }));
    table.apply(
      event({ case: "snapshotChunk", value: { resources: [resource("virtualEndpoint", { id: "ve_new" })] } }),
    );
    table.apply(event({ case: "snapshotEnd", value: { revision: 10n } }));
    expect(table.cursor).toEqual({ epoch: "e2", revision: 10n });
    expect([table.ve(VE), table.ve("ve_half"), table.ve("ve_new")?.id]).toEqual([undefined, undefined, "ve_new"]);
  });

  test("may bring its resources in any order", () => {
    const table = new RouteTable();
    const events = [
      { case: "snapshotBegin", value: { epoch: "e1", revision: 1n } },
      ...RESOURCES.toReversed().map((each) => ({ case: "snapshotChunk", value: { resources: [each] } })),
      { case: "snapshotEnd", value: { revision: 1n } },
    ];
    for (const each of events) expect(table.apply(event(each))).toEqual({ applied: true, rejected: [] });
    expect(choiceOf(table)?.id).toBe("pm_0");
    expect(table.key(digest(KEY))?.ve.name).toBe("Test VE");
  });

  test("keeps the health of Physical Models", () => {
    const table = loaded();
    const { health } = choiceOf(table)!;
    snapshot(table, RESOURCES, 2n);
    expect(choiceOf(table)!.health).toBe(health);
  });
});

describe("rejections", () => {
  const bad: [string, Resource, RegExp][] = [
    ["an unknown format", resource("provider", { id: "x", format: 99, baseUrl: "https://a.example" }), /format 99/],
    ["no format", resource("provider", { id: "x", format: 0, baseUrl: "https://a.example" }), /format 0/],
    ["a base URL that is none", resource("provider", { id: "x", format: 1, baseUrl: "nowhere" }), /base_url/],
    [
      "a base URL of another scheme",
      resource("provider", { id: "x", format: 1, baseUrl: "file:///etc/passwd" }),
      /base_url/,
    ],
    [
      "credentials in the base URL",
      resource("provider", { id: "x", format: 1, baseUrl: "https://u:p@a.example" }),
      /base_url/,
    ],
    [
      "a key with a line break",
      resource("provider", { id: "x", format: 1, baseUrl: "https://a.example", credentials: { apiKey: "a\r\nb" } }),
      /API key/,
    ],
    [
      "a header with a line break",
      resource("provider", { id: "x", format: 1, baseUrl: "https://a.example", headers: { a: "b\r\nc" } }),
      /header "a"/,
    ],
    [
      "a price that is not exact",
      resource("physicalModel", {
        id: "x",
        providerId: "prov_0",
        upstreamName: "u",
        price: {
          id: "p",
          kind: { case: "simple", value: { creditPerUnit: "0.000000000001", unit: 1, perUnits: 1000n } },
        },
      }),
      /price: .*exact/,
    ],
    [
      "a price of an unknown unit",
      resource("physicalModel", {
        id: "x",
        providerId: "prov_0",
        upstreamName: "u",
        price: { id: "p", kind: { case: "simple", value: { creditPerUnit: "1", unit: 77, perUnits: 1n } } },
      }),
      /price: unit 77/,
    ],
    [
      "a price that is no number",
      resource("physicalModel", {
        id: "x",
        providerId: "prov_0",
        upstreamName: "u",
        price: { id: "p", kind: { case: "simple", value: { creditPerUnit: "free", unit: 1, perUnits: 1n } } },
      }),
      /price: /,
    ],
    [
      "a Unit Limit of an unknown kind of Unit",
      resource("physicalModel", { id: "x", providerId: "prov_0", upstreamName: "u", unitLimitUnit: 9 }),
      /unit_limit_unit 9/,
    ],
    ["a target named twice", lm("x", VE, "m", [target("pm_0"), target("pm_0", 1)]), /named twice/],
    ["a negative weight", lm("x", VE, "m", [target("pm_0", 0, -1)]), /weight/],
    ["a taken name", lm("x", VE, "gpt", [target("pm_0")]), /has this name/],
    ["a short digest", resource("accessKey", { id: "x", veId: VE, digest: new Uint8Array(31) }), /digest/],
    ["a taken digest", keyResource("x", VE, KEY), /same digest/],
    ["no kind", create(WatchConfigResponseSchema, {}) as never, /kind/],
  ];
  test.each(bad)("%s is told by id, and the rest applies", (_, bad_, reason) => {
    const table = loaded();
    const odd = "kind" in bad_ ? bad_ : resource("provider", { id: "x" });
    if (!("kind" in bad_)) (odd as { kind: unknown }).kind = { case: undefined };
    const result = delta(table, [odd, resource("virtualEndpoint", { id: "ve_good" })]);
    expect(result.applied).toBe(true);
    expect(result.rejected).toHaveLength(1);
    expect(result.rejected[0]!.reason).toMatch(reason);
    expect(table.ve("ve_good")).toBeDefined();
    expect(choiceOf(table)?.id).toBe("pm_0");
  });

  test("what was known before a bad version stays in use", () => {
    const table = loaded();
    const result = delta(table, [
      resource("provider", { id: "prov_0", format: 1, baseUrl: "nowhere" }),
      lm("lm_1", VE, "gpt", [target("")]),
    ]);
    expect(result.rejected.map(({ id }) => id)).toEqual(["prov_0", "lm_1"]);
    expect(choiceOf(table)).toMatchObject({ id: "pm_0", provider: { origin: "https://a.example" } });
  });

  test("a reference to nothing is told, and heals when it arrives", () => {
    const table = new RouteTable();
    table.apply(event({ case: "snapshotBegin", value: { epoch: "e", revision: 1n } }));
    table.apply(
      event({
        case: "snapshotChunk",
        value: { resources: RESOURCES.filter(({ kind }) => kind.value?.id !== "prov_0" && kind.value?.id !== "pm_1") },
      }),
    );
    const end = table.apply(event({ case: "snapshotEnd", value: { revision: 1n } }));
    expect(end.rejected).toEqual([
      { id: "pm_0", reason: "Provider prov_0 is not known (yet)" },
      { id: "lm_1", reason: "Physical Model pm_1 is not known (yet)" },
    ]);
    expect(choiceOf(table)).toBeNull();
    expect(delta(table, [RESOURCES.find(({ kind }) => kind.value?.id === "prov_0")!]).rejected).toEqual([]);
    expect(choiceOf(table)?.id).toBe("pm_0");
  });
});

describe("deltas", () => {
  test("must follow on the revision of the table", () => {
    const table = loaded();
    const gap = event({ case: "delta", value: { fromRevision: 5n, revision: 6n, removedIds: [VE] } });
    expect(table.apply(gap)).toMatchObject({ applied: false, gap: true });
    expect(table.ve(VE)).toBeDefined();
    expect(new RouteTable().apply(gap)).toMatchObject({ gap: true });
    expect(table.apply(event({ case: "checkpoint", value: { epoch: "e1", revision: 1n } }))).toMatchObject({
      applied: true,
    });
    expect(table.apply(event({ case: "checkpoint", value: { epoch: "e1", revision: 2n } }))).toMatchObject({
      gap: true,
    });
    expect(table.apply(event({ case: "checkpoint", value: { epoch: "e9", revision: 1n } }))).toMatchObject({
      gap: true,
    });
    expect(table.apply(event({ case: "snapshotEnd", value: { revision: 3n } }))).toMatchObject({ gap: true });
    expect(table.cursor).toEqual({ epoch: "e1", revision: 1n });
  });

  test("go on from the cursor after a snapshot that broke off", () => {
    const table = loaded();
    table.apply(event({ case: "snapshotBegin", value: { epoch: "e1", revision: 7n } }));
    table.apply(event({ case: "wallet", value: { veId: VE, recall: true } }));
    expect(delta(table, [resource("virtualEndpoint", { id: "ve_later" })])).toEqual({ applied: true, rejected: [] });
    expect(table.ve("ve_later")).toBeDefined();
    expect(table.apply(event({ case: "snapshotChunk", value: { resources: [] } }))).toMatchObject({ gap: true });
  });

  test("a changed Physical Model or Provider is seen at once by every Logical Model", () => {
    const table = loaded();
    const pm = (fields: Record<string, unknown>) =>
      resource("physicalModel", { id: "pm_0", providerId: "prov_0", upstreamName: "up-0", price: PRICE, ...fields });
    const provider = (fields: Record<string, unknown>) =>
      resource("provider", { id: "prov_0", format: 1, baseUrl: "https://a.example/v1", ...fields });
    const unroutable = [
      [pm({ disabled: true }), pm({})],
      [pm({ price: undefined }), pm({})],
      [provider({ disabled: true }), provider({})],
    ];
    for (const [off, on] of unroutable) {
      delta(table, [off!]);
      expect(choiceOf(table)?.id).toBe("pm_1");
      delta(table, [on!]);
      expect(choiceOf(table)?.id).toBe("pm_0");
    }
    delta(table, [
      pm({ price: { id: "p2", kind: { case: "simple", value: { creditPerUnit: "1", unit: 5, perUnits: 1n } } } }),
    ]);
    expect(choiceOf(table)).toMatchObject({
      id: "pm_0",
      price: { id: "p2" },
      rates: { request: 10n ** 12n, input: 0n },
    });
    delta(table, [
      pm({ price: { id: "p3", kind: { case: "simple", value: { creditPerUnit: "1", unit: 2, perUnits: 1n } } } }),
    ]);
    expect(choiceOf(table)).toMatchObject({ id: "pm_0", rates: { request: 0n, input: 0n, image: 10n ** 12n } });
    delta(table, [], ["pm_0"]);
    expect(choiceOf(table)?.id).toBe("pm_1");
    delta(table, [pm({})]);
    expect(choiceOf(table)?.id).toBe("pm_0");
  });

  test("names can change hands within one delta", () => {
    const table = loaded([...RESOURCES, lm("lm_2", VE, "mini", [target("pm_1")])]);
    const result = delta(table, [lm("lm_1", VE, "mini", [target("pm_0")]), lm("lm_2", VE, "gpt", [target("pm_1")])]);
    expect(result.rejected).toEqual([]);
    expect([choiceOf(table, "mini")?.id, choiceOf(table)?.id]).toEqual(["pm_0", "pm_1"]);
    delta(table, [lm("lm_3", VE, "gpt", [target("pm_0")])], ["lm_2"]);
    expect(choiceOf(table)?.id).toBe("pm_0");
  });

  test("keys are revoked, moved and replaced", () => {
    const table = loaded();
    delta(table, [keyResource("key_2", VE, "second")], ["key_1"]);
    expect(table.key(digest(KEY))).toBeUndefined();
    expect(table.key(digest("second"))?.id).toBe("key_2");
    delta(table, [keyResource("key_2", VE, "third")]);
    expect(table.key(digest("second"))).toBeUndefined();
    expect(table.key(digest("third"))?.id).toBe("key_2");
    delta(table, [], [VE]);
    expect(table.key(digest("third"))).toBeUndefined();
    expect(table.ve(VE)).toBeUndefined();
  });

  test("removing everything leaves nothing behind", () => {
    const table = loaded();
    delta(
      table,
      [],
      RESOURCES.map(({ kind }) => kind.value!.id),
    );
    expect(table.size()).toEqual({ providers: 0, physicalModels: 0, ves: 0, keys: 0, logicalModels: 0, groups: 0 });
  });

  test("a VE with very many Logical Models stays right", () => {
    const table = loaded();
    delta(
      table,
      Array.from({ length: 500 }, (_, i) => lm(`lm_many_${i}`, VE, `m${i}`, [target("pm_1")])),
    );
    expect(table.logicalModel(table.ve(VE)!, "m499")?.id).toBe("lm_many_499");
    expect([...table.logicalModels(table.ve(VE)!)]).toHaveLength(501);
    delta(table, [lm("lm_many_3", VE, "renamed", [target("pm_1")])], ["lm_many_4"]);
    expect([table.logicalModel(table.ve(VE)!, "m3"), table.logicalModel(table.ve(VE)!, "m4")]).toEqual([
      undefined,
      undefined,
    ]);
    expect(table.logicalModel(table.ve(VE)!, "renamed")?.id).toBe("lm_many_3");
  });

  test("equal Logical Models of different VEs share their compiled form", () => {
    const table = loaded();
    delta(table, [
      ...["ve_1", "ve_2"].map((id) =>
        resource("virtualEndpoint", { id, checkoutUrl: `https://pay.example/checkout?ve_id=${id}` }),
      ),
      ...["ve_1", "ve_2"].map((id) => lm(`lm_${id}`, id, "gpt", [target("pm_0")])),
    ]);
    const [a, b] = ["ve_1", "ve_2"].map((id) => table.logicalModel(table.ve(id)!, "gpt")!);
    expect(a!.spec).toBe(b!.spec);
    expect(checkoutUrl(a!.ve, 0)).toBe("https://pay.example/checkout?ve_id=ve_1");
    delta(table, [lm("lm_ve_1", "ve_1", "gpt", [target("pm_1")])]);
    expect(table.logicalModel(table.ve("ve_2")!, "gpt")!.spec.group.pms[0]!.id).toBe("pm_0");
    expect(routable(table.logicalModel(table.ve("ve_1")!, "gpt")!.spec.group.pms[0]!)).toBe(true);
  });
});
