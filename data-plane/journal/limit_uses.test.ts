import fc from "fast-check";
import { expect, test } from "vitest";
import { LimitUses } from "./limit_uses.ts";

const sum = (uses: LimitUses, recordNo: number): Record<string, bigint> => {
  const spent = new Map<string, bigint>();
  uses.addTo(spent, recordNo);
  return Object.fromEntries(spent);
};

test("what records used, up to the last of a report, until they are confirmed", () => {
  const uses = new LimitUses();
  uses.push(1, [{ account: "a", amount: 5n }]);
  uses.push(4, [
    { account: "a", amount: 2n },
    { account: "b", amount: 0n },
    { account: "c", amount: 1n },
  ]);
  uses.push(5, [{ account: "a", amount: 9n }]);
  expect(sum(uses, 0)).toEqual({});
  expect(sum(uses, 4)).toEqual({ a: 7n, c: 1n });
  // Cut anew from an earlier place: the same again.
  expect(sum(uses, 4)).toEqual({ a: 7n, c: 1n });
  uses.dropUpTo(1);
  expect(sum(uses, 4)).toEqual({ a: 2n, c: 1n });
  uses.dropUpTo(4);
  expect([sum(uses, 9), uses.size]).toEqual([{ a: 9n }, 1]);
});

test("property: memory is bounded; nothing is confirmed early or twice, and all of it in the end", () => {
  const step = fc.record({ account: fc.constantFrom("a", "b"), amount: fc.bigInt(0n, 9n), report: fc.nat(9) });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 400 }), (steps) => {
      const max = 8;
      const uses = new LimitUses(max);
      const used: bigint[] = [0n];
      let confirmed = 0n;
      let confirmedNo = 0;
      steps.forEach(({ account, amount, report }, i) => {
        const recordNo = i + 1;
        uses.push(recordNo, [{ account, amount }]);
        used.push(used.at(-1)! + amount);
        expect(uses.size).toBeLessThanOrEqual(2 * max);
        if (report > 0) return;
        // One report is under way while more records come.
        const upTo = confirmedNo + Math.ceil((recordNo - confirmedNo) / 2);
        confirmed += Object.values(sum(uses, upTo)).reduce((a, b) => a + b, 0n);
        uses.dropUpTo(upTo);
        confirmedNo = upTo;
        expect(confirmed <= used[upTo]!).toBe(true);
      });
      confirmed += Object.values(sum(uses, steps.length)).reduce((a, b) => a + b, 0n);
      expect(confirmed).toBe(used.at(-1));
    }),
  );
});

test("entries of a report under way stay as they are, whatever is put together meanwhile", () => {
  const uses = new LimitUses(2);
  uses.push(1, [{ account: "a", amount: 1n }]);
  uses.push(2, [{ account: "a", amount: 2n }]);
  expect(sum(uses, 1)).toEqual({ a: 1n });
  for (let recordNo = 3; recordNo < 50; recordNo++) uses.push(recordNo, [{ account: "a", amount: 1n }]);
  uses.dropUpTo(1);
  expect(sum(uses, 1)).toEqual({});
  expect(sum(uses, 49)).toEqual({ a: 49n });
});

test("a list that is not over its limit stays exact", () => {
  const uses = new LimitUses();
  for (let recordNo = 1; recordNo <= 5_000; recordNo++) uses.push(recordNo, [{ account: "a", amount: 1n }]);
  for (let recordNo = 1; recordNo <= 5_000; recordNo += 999)
    expect(sum(uses, recordNo)).toEqual({ a: BigInt(recordNo) });
});
