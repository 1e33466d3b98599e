import { expect, test } from "vitest";
import { acceptedEncoding, acceptedLanguage } from "./accept.ts";

test.each([
  ["", null],
  ["identity", null],
  ["gzip, deflate, br", "br"],
  ["gzip, deflate", "gzip"],
  ["br;q=0.1, gzip;q=0.9", "gzip"],
  ["br;q=0, gzip;q=0", null],
  ["*", "br"],
  ["*;q=0.5, br;q=0", "gzip"],
  ["GZIP", "gzip"],
  ["br;q=nonsense", null],
])("%o gets %s", (header, encoding) => expect(acceptedEncoding(header)).toBe(encoding));

test.each([
  ["", "en"],
  ["zh-CN,zh;q=0.9,en;q=0.8", "zh"],
  ["en-US,zh;q=0.9", "en"],
  ["fr-FR, fr;q=0.9", "en"],
  ["fr, zh-TW;q=0.3, en;q=0.2", "zh"],
  ["zhx, en;q=0.1", "en"],
])("%o reads %s", (header, language) => expect(acceptedLanguage(header)).toBe(language));
