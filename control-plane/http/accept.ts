/** PURE: what a client says that it takes (RFC 9110, 12.5). */

export type Encoding = "br" | "gzip";
export type Language = "en" | "zh";

/** Names in lower case with their weights; a weight that is none counts as 0. */
function weights(header: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const part of header.toLowerCase().split(",")) {
    const [name = "", ...parameters] = part.split(";").map((text) => text.trim());
    if (name === "" || found.has(name)) continue;
    const given = parameters.find((text) => text.startsWith("q="));
    const weight = given === undefined ? 1 : Number(given.slice(2));
    found.set(name, weight >= 0 && weight <= 1 ? weight : 0);
  }
  return found;
}

/** The best of what the client takes; null: as it is. */
export function acceptedEncoding(header: string): Encoding | null {
  const accepted = weights(header);
  const weigh = (name: Encoding): number => accepted.get(name) ?? accepted.get("*") ?? 0;
  const [br, gzip] = [weigh("br"), weigh("gzip")];
  if (br === 0 && gzip === 0) return null;
  return br >= gzip ? "br" : "gzip";
}

/** Of two languages; English for whoever wants neither. */
export function acceptedLanguage(header: string): Language {
  let best: { language: Language; weight: number } = { language: "en", weight: 0 };
  for (const [name, weight] of weights(header)) {
    const language = /^(en|zh)(-|$)/.exec(name)?.[1] as Language | undefined;
    if (language !== undefined && weight > best.weight) best = { language, weight };
  }
  return best.language;
}
