/** The checkout page, as Vite built it from clients/console, and its files. */

import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { acceptedEncoding } from "./accept.ts";
import { ConsoleFile, readConsoleFiles } from "./console_files.ts";
import { HttpError, type HttpAnswer, type HttpExchange, type HttpRoute } from "./route.ts";

export const CONSOLE_DIST = fileURLToPath(new URL("../../clients/console/dist", import.meta.url));

const CHECKOUT_PATH = /^\/checkout(?:\/|\/cs_[a-z2-7]{26})?$/;
const FILES_PATH = "/console/";
/** Vite puts a hash of the content into these names. */
const HASHED = /^assets\/[^/]+-[\w-]{8,}\.\w+$/;
const FOREVER = "public, max-age=31536000, immutable";
const FOR_AN_HOUR = "public, max-age=3600";

const NOT_BUILT = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>The checkout page is not built</title>
</head>
<body>
<main>
<h1>The checkout page is not built</h1>
<p>Whoever runs this gateway makes it with <code>npm run build</code>, and starts the control plane again.</p>
<p lang="zh-Hans">支付页面尚未构建。请网关的运营者执行 <code>npm run build</code>，然后重新启动控制面。</p>
</main>
</body>
</html>
`;

async function send(file: ConsoleFile, cache: string, exchange: HttpExchange): Promise<HttpAnswer> {
  const headers = { "content-type": file.type, "cache-control": cache };
  if (!file.compressible) return { status: 200, headers, body: file.bytes };
  const encoding = acceptedEncoding(exchange.headers["accept-encoding"] ?? "");
  if (encoding === null) return { status: 200, headers: { ...headers, vary: "accept-encoding" }, body: file.bytes };
  return {
    status: 200,
    headers: { ...headers, vary: "accept-encoding", "content-encoding": encoding },
    body: await file.in(encoding),
  };
}

export interface CheckoutPage {
  readonly routes: readonly HttpRoute[];
}

/** The page with its files where a proxy has put them, when PUBLIC_URL has a path. */
function below(publicUrl: string, page: ConsoleFile): ConsoleFile {
  const path = (URL.parse(publicUrl)?.pathname ?? "").replace(/\/+$/, "");
  if (path === "") return page;
  const text = Buffer.from(page.bytes).toString("utf8");
  return new ConsoleFile(page.type, Buffer.from(text.replaceAll(`"${FILES_PATH}`, () => `"${path}${FILES_PATH}`)));
}

/** Reads the build; without one the page says how to make it, and so does the log. */
export function openCheckoutPage(log: Logger, publicUrl: string, dist: string = CONSOLE_DIST): CheckoutPage {
  const files = readConsoleFiles(dist);
  if (files === null)
    log.warn({ dist }, "the checkout page is not built: make it with `npm run build`, and start again");
  const built = files?.get("checkout.html");
  const html = built === undefined ? undefined : below(publicUrl, built);
  const page: HttpRoute = {
    matches: (path) => CHECKOUT_PATH.test(path),
    methods: () => ["GET"],
    // The same for every VE and session, known or not, so that ids cannot be tried out here.
    async handle(exchange) {
      if (html !== undefined) return send(html, "no-store", exchange);
      const headers = { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" };
      return { status: 200, headers, body: NOT_BUILT };
    },
  };
  const parts: HttpRoute = {
    matches: (path) => path.startsWith(FILES_PATH),
    methods: () => ["GET"],
    async handle(exchange) {
      const name = exchange.path.slice(FILES_PATH.length);
      const file = name.endsWith(".html") ? undefined : files?.get(name);
      if (file === undefined) throw new HttpError(404, "there is no such file");
      return send(file, HASHED.test(name) ? FOREVER : FOR_AN_HOUR, exchange);
    },
  };
  return { routes: [page, parts] };
}
