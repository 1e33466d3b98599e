import { expect, test } from "vitest";
import { allowedReturnUrl, checkReturnPrefix } from "./return_url.ts";

const PREFIXES = ["https://app.example.com/shop/", "http://localhost:3000/", "http://[::1]:9/"];

test.each([
  ["https://app.example.com/shop/", "https://app.example.com/shop/"],
  ["https://app.example.com/shop/done?order=1&x=a/../b#top", "https://app.example.com/shop/done?order=1&x=a/../b#top"],
  ["https://APP.example.com:443/shop/a", "https://app.example.com/shop/a"],
  ["https://app.example.com/shop/a/../b", "https://app.example.com/shop/b"],
  ["https://app.example.com/shop//a", "https://app.example.com/shop//a"],
  [
    "https://app.example.com/shop/?next=https://evil.example/@x",
    "https://app.example.com/shop/?next=https://evil.example/@x",
  ],
  ["https://app.example.com/shop/@user", "https://app.example.com/shop/@user"],
  ["http://localhost:3000", "http://localhost:3000/"],
  ["http://localhost:3000/x", "http://localhost:3000/x"],
  ["http://[::1]:9/x", "http://[::1]:9/x"],
])("%s is allowed", (text, href) => {
  expect(allowedReturnUrl(text, PREFIXES)).toBe(href);
});

test.each([
  ["another host", "https://evil.example/shop/"],
  ["a longer host", "https://app.example.com.evil.example/shop/"],
  ["a host that only ends alike", "https://evilapp.example.com/shop/"],
  ["no scheme's slashes", "https:app.example.com/shop/"],
  ["one slash", "https:/app.example.com/shop/"],
  ["three slashes", "https:///app.example.com/shop/"],
  ["another scheme", "http://app.example.com/shop/"],
  ["another port", "https://app.example.com:8443/shop/"],
  ["userinfo that looks like the host", "https://app.example.com@evil.example/shop/"],
  ["userinfo with a colon", "https://app.example.com:443@evil.example/shop/"],
  ["userinfo before the right host", "https://user:pass@app.example.com/shop/"],
  ["empty userinfo", "https://@app.example.com/shop/"],
  ["a backslash for the slash", "https://evil.example\\@app.example.com/shop/"],
  ["a backslash after the host", "https://app.example.com\\.evil.example/shop/"],
  ["backslashes for slashes", "https:\\\\app.example.com\\shop\\"],
  ["dots out of the folder", "https://app.example.com/shop/../admin/"],
  ["encoded dots out of the folder", "https://app.example.com/shop/%2e%2e/admin/"],
  ["half encoded dots", "https://app.example.com/shop/.%2E/admin/"],
  ["an encoded slash after dots", "https://app.example.com/shop/..%2fadmin/"],
  ["an encoded backslash after dots", "https://app.example.com/shop/..%5Cadmin/"],
  ["the folder's name as a beginning", "https://app.example.com/shopping/"],
  ["the folder without its slash", "https://app.example.com/shop"],
  ["another case of the path", "https://app.example.com/SHOP/"],
  ["the root", "https://app.example.com/"],
  ["a script", "javascript:alert(1)//https://app.example.com/shop/"],
  ["data", "data:text/html,https://app.example.com/shop/"],
  ["a blob", "blob:https://app.example.com/shop/x"],
  ["a file", "file:///etc/passwd"],
  ["relative to a scheme", "//app.example.com/shop/"],
  ["relative", "/shop/"],
  ["a tab in the scheme", "java\tscript:alert(1)"],
  ["a line break in the host", "https://app.example.com\n.evil.example/shop/"],
  ["a blank before", " https://app.example.com/shop/"],
  ["a blank after", "https://app.example.com/shop/ "],
  ["a control character", "https://app.example.com/shop/\u0001"],
  ["text that runs the other way", "https://app.example.com/shop/\u202Egpj"],
  ["a zero-width joiner", "https://app.example\u200D.com/shop/"],
  ["a full-width dot elsewhere", "https://app\uFF0Eexample\uFF0Ecom.evil.example/shop/"],
  ["nothing", ""],
  ["words", "app.example.com/shop/"],
])("%s is not", (_name, text) => {
  expect(allowedReturnUrl(text, PREFIXES)).toBeNull();
});

test("without prefixes nothing is allowed", () => {
  expect(allowedReturnUrl("https://app.example.com/", [])).toBeNull();
});

test.each([
  ["https://app.example.com/", "https://app.example.com/"],
  ["https://App.Example.com", "https://app.example.com/"],
  ["https://app.example.com:443/a/b/", "https://app.example.com/a/b/"],
  ["http://localhost:3000/", "http://localhost:3000/"],
  ["http://127.0.0.1/x/", "http://127.0.0.1/x/"],
  ["http://[::1]:9/", "http://[::1]:9/"],
  ["https://bücher.example/", "https://xn--bcher-kva.example/"],
])("%s is a prefix", (text, prefix) => {
  expect(checkReturnPrefix(text)).toEqual({ prefix });
});

test.each([
  "",
  "app.example.com/",
  "ftp://app.example.com/",
  "javascript:alert(1)/",
  "https://",
  "https:///",
  "http://app.example.com/",
  "http://localhost.evil.example/",
  "https://user@app.example.com/",
  "https://app.example.com/?",
  "https://app.example.com/?a=/",
  "https://app.example.com/#/",
  "https://app.example.com/shop",
  "https://app.example.com/a%2fb/",
  "https://app.example.com\\",
  " https://app.example.com/",
  "https://*/",
])("%j is no prefix", (text) => {
  const checked = checkReturnPrefix(text);
  expect(checked, JSON.stringify(checked)).toHaveProperty("problem");
});
