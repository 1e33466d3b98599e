/** PURE: which languages there are, and which one is spoken. */

export const LANGUAGES = ["en", "zh"] as const;
export type Language = (typeof LANGUAGES)[number];

/** One table of messages for each language. The type of the table makes a missing message an error of the compiler. */
export type Tables<T> = Readonly<Record<Language, T>>;

/** For `lang` attributes. */
export const HTML_LANGS: Tables<string> = { en: "en", zh: "zh-Hans" };

/** For Intl. */
export const LOCALES: Tables<string> = { en: "en", zh: "zh-CN" };

/** Languages by their own names. */
export const LANGUAGE_NAMES: Tables<string> = { en: "English", zh: "中文" };

export interface LanguageHints {
  /** `lang` of the address. */
  readonly query: string | null;
  /** What was chosen before. */
  readonly stored: string | null;
  /** `navigator.languages`. */
  readonly browser: readonly string[];
}

/** `zh-Hant-TW` is Chinese, `en_GB` English; null: neither. */
export function asLanguage(tag: string | null): Language | null {
  const primary = (tag ?? "").toLowerCase().split(/[-_]/)[0];
  return LANGUAGES.find((language) => language === primary) ?? null;
}

/** The address before the choice before the browser's list; English if none is known. */
export function chooseLanguage({ query, stored, browser }: LanguageHints): Language {
  for (const tag of [query, stored, ...browser]) {
    const language = asLanguage(tag);
    if (language !== null) return language;
  }
  return "en";
}
