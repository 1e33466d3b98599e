/** The language of the page: chosen once, changed by a switch, kept for the next visit. */

import { createContext, type ReactNode, useContext, useLayoutEffect, useState } from "react";
import { localStore } from "../stores.ts";
import { chooseLanguage, HTML_LANGS, type Language, LANGUAGE_NAMES, LANGUAGES, type Tables } from "./language.ts";

const STORED = "tokenbill.language";

interface Spoken {
  readonly language: Language;
  speak(language: Language): void;
}

const LanguageContext = createContext<Spoken | null>(null);

/** The language to begin with. To be asked before anything changes the address. */
export function firstLanguage(): Language {
  const query = new URLSearchParams(window.location.search).get("lang");
  const language = chooseLanguage({ query, stored: localStore.get(STORED), browser: navigator.languages });
  // The address loses its query soon, and a processor sends the payer back without one.
  if (query !== null) localStore.set(STORED, language);
  return language;
}

interface LanguageProviderProps {
  readonly first: Language;
  readonly children: ReactNode;
}

export function LanguageProvider({ first, children }: LanguageProviderProps): ReactNode {
  const [language, setLanguage] = useState(first);
  useLayoutEffect(() => {
    document.documentElement.lang = HTML_LANGS[language];
  }, [language]);
  const speak = (next: Language): void => {
    localStore.set(STORED, next);
    setLanguage(next);
  };
  return <LanguageContext value={{ language, speak }}>{children}</LanguageContext>;
}

export function useLanguage(): Language {
  return useSpoken().language;
}

function useSpoken(): Spoken {
  const spoken = useContext(LanguageContext);
  if (spoken === null) throw new Error("there is no LanguageProvider above");
  return spoken;
}

/** The table of the language that is spoken. */
export function useMessages<T>(tables: Tables<T>): T {
  return tables[useLanguage()];
}

/** A button for each other language, in its own words. */
export function LanguageSwitch(): ReactNode {
  const { language, speak } = useSpoken();
  return LANGUAGES.filter((other) => other !== language).map((other) => (
    <button key={other} type="button" className="plain" lang={HTML_LANGS[other]} onClick={() => speak(other)}>
      {LANGUAGE_NAMES[other]}
    </button>
  ));
}
