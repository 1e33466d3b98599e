/** PURE: where payers may be sent back to. A wrong answer here would let anybody use the checkout page to send people anywhere. */

import { isLoopbackHost } from "../../core/listen_address.ts";

/** Browsers drop some of these, and read backslashes as slashes: what a person sees is not where it leads. */
const DECEIVING = /[\s\\\p{Cc}\p{Cf}]/u;

/** An encoded slash, backslash or dot is one to some servers, and they would leave the folder that was allowed. */
const ENCODED_PATH = /%(2e|2f|5c)/i;

function parse(text: string): URL | null {
  if (DECEIVING.test(text) || !/^https?:\/\/[^/]/i.test(text)) return null;
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) return null;
  return url.hostname === "" || url.username !== "" || url.password !== "" || /^[^/]*\/\/[^/?#]*@/.test(text)
    ? null
    : url;
}

/** The prefix in its one spelling, or what is wrong with it. */
export function checkReturnPrefix(text: string): { readonly prefix: string } | { readonly problem: string } {
  const url = parse(text);
  if (url === null)
    return { problem: "give an http or https URL without credentials, such as https://app.example.com/" };
  if (url.hostname.includes("*")) return { problem: "* stands for nothing: name each host" };
  if (text.includes("?") || text.includes("#")) return { problem: "give it without query and fragment" };
  if (url.protocol === "http:" && !isLoopbackHost(url.hostname.replace(/^\[|\]$/g, "")))
    return { problem: "give https: http is for this machine alone" };
  if (ENCODED_PATH.test(url.pathname)) return { problem: "its path has encoded slashes or dots" };
  if (!url.pathname.endsWith("/")) return { problem: "its path must end with /, so that it ends with a whole folder" };
  return { prefix: url.href };
}

/** The URL in its one spelling if it begins with one of `prefixes` (as `checkReturnPrefix` made them); null: it is not allowed. */
export function allowedReturnUrl(text: string, prefixes: readonly string[]): string | null {
  const url = parse(text);
  if (url === null || ENCODED_PATH.test(url.pathname)) return null;
  const allowed = prefixes.some((prefix) => {
    const { origin, pathname } = new URL(prefix);
    return url.origin === origin && url.pathname.startsWith(pathname);
  });
  return allowed ? url.href : null;
}
