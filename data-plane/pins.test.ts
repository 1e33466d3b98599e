import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PIN_PMS_MAX, pinId, renameInAnswer, renameInEvent, renamePrevious, unpinId } from "./pins.ts";

const SECRET = Buffer.alloc(32, 0xa7).toString("latin1");
const OTHER = Buffer.alloc(32, 0xa8).toString("latin1");

const idText = fc.stringMatching(/^[A-Za-z0-9_-]{1,60}$/);

describe("ids of stored responses", () => {
  test("are the upstream's with a tag behind", () => {
    const id = pinId(SECRET, "resp_68af", "pm-1");
    expect(id).toMatch(/^resp_68af_[a-z2-7]{20}$/);
    expect(pinId(SECRET, "resp_68af", "pm-1")).toBe(id);
    expect(pinId(SECRET, "resp_68af", "pm-2")).not.toBe(id);
    expect(unpinId(SECRET, id, ["pm-0", "pm-1"])).toEqual({ upstreamId: "resp_68af", pmId: "pm-1" });
  });

  test("the tag is the HMAC in base32, known from elsewhere", () => {
    // Made with: printf 'resp_1\npm' | openssl dgst -sha256 -hmac key -binary | base32 | head -c 20 | tr A-Z a-z
    expect(pinId("key", "resp_1", "pm")).toBe("resp_1_yzbjpq5wr6sfkwbq3o5k");
  });

  test("lead back to the Physical Model that made them, whatever they are", () => {
    fc.assert(
      fc.property(idText, idText, fc.array(idText, { maxLength: 5 }), (id, pm, others) => {
        expect(unpinId(SECRET, pinId(SECRET, id, pm), [...others.filter((each) => each !== pm), pm])).toEqual({
          upstreamId: id,
          pmId: pm,
        });
      }),
    );
  });

  test("mean nothing to another VE, with another Physical Model, or changed", () => {
    fc.assert(
      fc.property(idText, idText, idText, fc.nat(), (id, pm, other, at) => {
        fc.pre(pm !== other);
        const pinned = pinId(SECRET, id, pm);
        expect(unpinId(OTHER, pinned, [pm])).toBeNull();
        expect(unpinId(SECRET, pinned, [other])).toBeNull();
        expect(unpinId(SECRET, pinned, [])).toBeNull();
        const place = at % pinned.length;
        const changed = pinned.slice(0, place) + (pinned[place] === "b" ? "c" : "b") + pinned.slice(place + 1);
        expect(unpinId(SECRET, changed, [pm])).toBeNull();
        expect(unpinId(SECRET, pinned.slice(1), [pm])).toBeNull();
      }),
    );
  });

  test("without a secret stay as they are and cannot be used", () => {
    expect(pinId("", "resp_1", "pm")).toBe("resp_1");
    expect(unpinId("", "resp_1", ["pm"])).toBeNull();
    expect(unpinId("", pinId(SECRET, "resp_1", "pm"), ["pm"])).toBeNull();
  });

  test.each([
    "",
    "_",
    "resp_1",
    `_${"a".repeat(20)}`,
    `resp_1-${"a".repeat(20)}`,
    `resp_1_${"é".repeat(20)}`,
    "x".repeat(600),
  ])("%s is none", (id) => {
    expect(unpinId(SECRET, id, ["pm"])).toBeNull();
  });

  test("are tried with a bounded number of Physical Models", () => {
    const pms = Array.from({ length: PIN_PMS_MAX }, (_, index) => `pm-${index}`);
    const pinned = pinId(SECRET, "resp_1", "last");
    expect(unpinId(SECRET, pinned, [...pms.slice(1), "last"])?.pmId).toBe("last");
    expect(unpinId(SECRET, pinned, [...pms, "last"])).toBeNull();
  });
});

/** JSON of a value, with white space that a re-serialisation would lose. */
const spaced = (value: unknown): string => JSON.stringify(value, null, 1);
const rename = (id: string): string => `${id}_tag"`;

const inner = fc.dictionary(
  fc.string().filter((key) => key !== "id" && key !== "previous_response_id" && key !== "__proto__"),
  fc.jsonValue(),
  { maxKeys: 5 },
);

describe("splicing", () => {
  test("changes the two ids of an answer, and no other byte", () => {
    fc.assert(
      fc.property(inner, fc.string(), fc.option(fc.string()), (rest, id, previous) => {
        const answer = (own: string, before: string | null): string =>
          spaced({
            a: { id: "x", previous_response_id: "y" },
            id: own,
            ...rest,
            previous_response_id: before,
            z: [{ id: "q" }],
          });
        const changed = renameInAnswer(Buffer.from(answer(id, previous)), rename).toString();
        expect(changed).toBe(answer(rename(id), previous === null ? null : rename(previous)));
      }),
    );
  });

  test("changes those of the response in an event, and no other byte", () => {
    fc.assert(
      fc.property(inner, fc.string(), fc.option(fc.string()), (rest, id, previous) => {
        const event = (own: string, before: string | null): string =>
          spaced({
            type: "response.created",
            id: "e",
            response: { tools: [{ id: "t" }], id: own, ...rest, previous_response_id: before },
            sequence_number: 0,
          });
        const changed = renameInEvent(Buffer.from(event(id, previous)), rename).toString();
        expect(changed).toBe(event(rename(id), previous === null ? null : rename(previous)));
      }),
    );
  });

  test("changes a request's previous_response_id only", () => {
    fc.assert(
      fc.property(inner, fc.string(), (rest, id) => {
        const body = (previous: string): string =>
          spaced({
            model: "m",
            input: [{ type: "item_reference", id: "i", previous_response_id: "n" }],
            ...rest,
            previous_response_id: previous,
          });
        expect(renamePrevious(Buffer.from(body(id)), rename).toString()).toBe(body(rename(id)));
      }),
    );
  });

  test("finds the id in the head of a long answer", () => {
    const body = Buffer.from('{"id":"resp_1","object":"response","output":[{"text":"begi');
    expect(renameInAnswer(body, () => "n").toString()).toBe('{"id":"n","object":"response","output":[{"text":"begi');
  });

  test.each(["", "null", "[1]", "{", '{"id":7}', '{"response":"id"}', '{"type":"x"}'])("leaves %s as it is", (text) => {
    const body = Buffer.from(text);
    expect(renameInAnswer(body, rename)).toBe(body);
    expect(renameInEvent(body, rename)).toBe(body);
    expect(renamePrevious(body, rename)).toBe(body);
  });

  test("keeps the buffer where no id changes", () => {
    const body = Buffer.from('{"id":"resp_1"}');
    expect(renameInAnswer(body, (id) => id)).toBe(body);
  });
});
