/** PURE: lines of CSV as in RFC 4180. */

const NEEDS_QUOTES = /[",\r\n]/;

function cell(value: string): string {
  return NEEDS_QUOTES.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

const FORMULA_START = /^[=+\-@\t\r]/;

/** Text from elsewhere: a spreadsheet would run it if it began like a formula, so it then gets a `'` before it. */
export function csvText(value: string): string {
  return FORMULA_START.test(value) ? `'${value}` : value;
}

/** One line, with its CRLF. */
export function csvLine(values: readonly string[]): string {
  return `${values.map(cell).join(",")}\r\n`;
}
