import { describe, expect, it } from "vitest";
import { csvLine, csvText } from "./csv.ts";

describe("CSV", () => {
  it("quotes what needs it", () => {
    expect(csvLine(["a", 'b"c', "d,e", "f\r\ng", ""])).toBe('a,"b""c","d,e","f\r\ng",\r\n');
  });

  it.each(["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])("%j is text to a spreadsheet", (text) => {
    expect(csvText(text)).toBe(`'${text}`);
  });

  it.each(["", "a=1", " =1", "'", "gpt-4", "0"])("%j stays as it is", (text) => {
    expect(csvText(text)).toBe(text);
  });
});
