/** PURE. The query of a request target. */

export function queryOf(target: string): URLSearchParams {
  const at = target.indexOf("?");
  return new URLSearchParams(at === -1 ? "" : target.slice(at + 1));
}

/** The parameters with these names, with a `?` before them; "" if there are none. */
export function keptQuery(given: URLSearchParams, names: readonly string[]): string {
  const kept = new URLSearchParams();
  for (const name of names) for (const value of given.getAll(name)) kept.append(name, value);
  const text = kept.toString();
  return text === "" ? "" : `?${text}`;
}
