import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WatchConfigResponseSchema } from "../../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { type Resource, ResourceSchema } from "../../proto/gen/tokenbill/node/v1/config_pb.ts";
import { cutDelta, deltaMessages } from "./chunks.ts";

const resource = (no: number, nameLength: number): Resource =>
  create(ResourceSchema, {
    kind: { case: "virtualEndpoint", value: { id: `ve_${no}`, name: "x".repeat(nameLength) } },
  });

describe("cutDelta", () => {
  it("keeps order, loses nothing, stays within the limit, and removes before it adds", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(400), { maxLength: 60 }),
        fc.array(fc.string({ maxLength: 20 }), { maxLength: 30 }),
        (lengths, removed) => {
          const upserts = lengths.map((length, no) => resource(no, length));
          const parts = cutDelta(upserts, removed, 1000);
          expect(parts.flatMap((part) => part.upserts)).toEqual(upserts);
          expect(parts.flatMap((part) => part.removedIds)).toEqual(removed);
          const lastRemoval = parts.findLastIndex((part) => part.removedIds.length > 0);
          const firstUpsert = parts.findIndex((part) => part.upserts.length > 0);
          if (lastRemoval >= 0 && firstUpsert >= 0) expect(lastRemoval).toBeLessThanOrEqual(firstUpsert);
          for (const message of deltaMessages(
            parts.map((part) => ({ ...part, removedIds: [] })),
            1n,
            2n,
          )) {
            expect(
              toBinary(WatchConfigResponseSchema, create(WatchConfigResponseSchema, message)).byteLength,
            ).toBeLessThanOrEqual(1000);
          }
        },
      ),
    );
  });

  it("puts the usual change into one message", () => {
    expect(cutDelta([resource(1, 5)], ["lm_a"])).toHaveLength(1);
    expect(cutDelta([], [])).toEqual([{ upserts: [], removedIds: [] }]);
  });
});

describe("deltaMessages", () => {
  it("advances the table with the last part alone", () => {
    const parts = cutDelta([resource(1, 500), resource(2, 500), resource(3, 500)], ["lm_a"], 700);
    const steps = deltaMessages(parts, 4n, 9n).map(
      ({ event }) => event!.value as { fromRevision: bigint; revision: bigint },
    );
    expect(steps).toMatchObject([
      { fromRevision: 4n, revision: 4n },
      { fromRevision: 4n, revision: 4n },
      { fromRevision: 4n, revision: 9n },
    ]);
  });
});
