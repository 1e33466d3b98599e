/**
 * Many rows in one statement, a column for each parameter: its values as lines of one text. PostgreSQL splits lines much
 * faster than it reads JSON or array literals. In SQL, `from unnest(${lines(1)}, ${lines(2, "bigint")}) as d (id, amount)
 * where amount is not null`: a column of texts ends with a line break, for a single empty value to count, so that it seems
 * to have one value more, which the condition on a column of numbers leaves out.
 */

/** The values of a column of ids or other texts that have no line break. */
export function textLines<Row>(rows: readonly Row[], pick: (row: Row) => string): string {
  let out = "";
  for (const row of rows) out += `${pick(row)}\n`;
  return out;
}

/** The values of a column of numbers, in decimal. There must be one at least. */
export function numberLines<Row>(rows: readonly Row[], pick: (row: Row) => string | number | bigint): string {
  let out = "";
  for (const row of rows) out += out === "" ? pick(row) : `\n${pick(row)}`;
  return out;
}

/** The column of parameter `$<param>` as an array of SQL. */
export function lines(param: number, type: "text" | "int" | "bigint" | "numeric" = "text"): string {
  const split = `string_to_array($${param}::text, chr(10))`;
  return type === "text" ? split : `${split}::${type}[]`;
}

/** Free texts, each once, with the place of every row's in them (from 1, as in SQL). */
export function dictionary<Row>(
  rows: readonly Row[],
  pick: (row: Row) => string,
): { texts: string[]; placeOf: (row: Row) => number } {
  const places = new Map<string, number>();
  for (const row of rows) {
    const text = pick(row);
    if (!places.has(text)) places.set(text, places.size + 1);
  }
  return { texts: [...places.keys()], placeOf: (row) => places.get(pick(row))! };
}
