/** PURE: lines of CSV as in RFC 4180. Values are exact: nothing is added to or taken from a cell. */

const NEEDS_QUOTES = /[",\r\n]/;

function cell(value: string): string {
  return NEEDS_QUOTES.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

/** One line, with its CRLF. */
export function csvLine(values: readonly string[]): string {
  return `${values.map(cell).join(",")}\r\n`;
}
