import { describe, expect, test } from "vitest";
import { MESSAGES } from "../../checkout/messages.ts";
import { asLanguage, chooseLanguage, HTML_LANGS, LANGUAGE_NAMES, LANGUAGES, LOCALES } from "./language.ts";

describe("the language", () => {
  test.each([
    ["zh", null, ["en"], "zh"],
    ["zh-TW", "en", [], "zh"],
    ["fr", "zh", ["en"], "zh"],
    [null, null, ["fr-FR", "zh-CN", "en"], "zh"],
    [null, "xx", ["de"], "en"],
    [null, null, [], "en"],
  ] as const)("of %s, %s and %j is %s", (query, stored, browser, language) => {
    expect(chooseLanguage({ query, stored, browser })).toBe(language);
  });

  test("tags are known by their first part", () => {
    expect(["en_GB", "ZH-Hant", "zhx", "", null].map(asLanguage)).toEqual(["en", "zh", null, null, null]);
  });
});

/** Every text of a table; functions are called with names that can be found again. */
function textsOf(value: unknown): string[] {
  if (typeof value === "function") {
    const names = Array.from({ length: value.length }, (_, i) => `‹${i}›`);
    return [String((value as (...args: string[]) => string)(...names))];
  }
  return Array.isArray(value) ? value.map(String) : [String(value)];
}

/** A function may choose its words by a number: those are not looked for. */
const CHOOSES = ["amountTooFine"];

describe.each(LANGUAGES)("messages in %s", (language) => {
  const table = MESSAGES[language];
  const english = MESSAGES.en as Readonly<Record<string, unknown>>;

  test("none is missing, none is left over, none is empty", () => {
    expect(Object.keys(table).sort()).toEqual(Object.keys(english).sort());
    for (const value of Object.values(table)) for (const text of textsOf(value)) expect(text.trim()).not.toBe("");
    expect([HTML_LANGS, LOCALES, LANGUAGE_NAMES].map((names) => names[language]).every((name) => name !== "")).toBe(
      true,
    );
  });

  test("each says all that it is given", () => {
    for (const [key, value] of Object.entries(table)) {
      const [text] = textsOf(value);
      const count = typeof value === "function" ? value.length : 0;
      expect(count, key).toBe(typeof english[key] === "function" ? english[key].length : 0);
      if (CHOOSES.includes(key)) continue;
      for (let i = 0; i < count; i++) expect(text, key).toContain(`‹${i}›`);
    }
  });
});

test("Chinese is Chinese, with its own punctuation", () => {
  const same = ["creditsWord", "credits", "successAmount"];
  for (const [key, value] of Object.entries(MESSAGES.zh)) {
    if (same.includes(key)) continue;
    for (const text of textsOf(value)) {
      expect(text, key).toMatch(/\p{Script=Han}/u);
      expect(text, key).not.toMatch(/\p{Script=Han}[,;?!:()]/u);
    }
  }
});
