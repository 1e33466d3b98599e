import { expect, test } from "vitest";
import { DomainError } from "./errors.ts";
import { checkSticky, checkTargetDeadlines, StickySource } from "./routing.ts";

const { USER, PROMPT_CACHE_KEY, HEADER } = StickySource;

/** The field and the rule that were broken, or null. */
function fault(check: () => void): [string, string] | null {
  try {
    check();
    return null;
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    expect(error.code).toBe("invalid_field");
    return [error.field!, error.metadata["rule"]!];
  }
}

test.each([
  ["one source", [USER], "", null],
  ["every source", [PROMPT_CACHE_KEY, HEADER, USER], "x-session", null],
  ["a header that is not named", [HEADER], "", ["sticky.header", "required"]],
  ["a header that nobody looks at", [USER, PROMPT_CACHE_KEY], "x-session", ["sticky.header", "exclusive"]],
])("sticky routing by %s", (_what, sources, header, expected) => {
  expect(fault(() => checkSticky({ sources, header }, "sticky"))).toEqual(expected);
});

test("a target has no total of its own", () => {
  expect(fault(() => checkTargetDeadlines({ totalMs: 0 }, "targets[0].deadlines"))).toBe(null);
  expect(fault(() => checkTargetDeadlines({ totalMs: 1 }, "targets[0].deadlines"))).toEqual([
    "targets[0].deadlines.total_ms",
    "zero",
  ]);
});
