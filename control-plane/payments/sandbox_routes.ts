/** The sandbox's page over HTTP: shows a payment, and takes what is decided about it. */

import { timingSafeEqual } from "node:crypto";
import type { Tx } from "../db/database.ts";
import { acceptedLanguage } from "../http/accept.ts";
import { addressGroup } from "../domain/client_address.ts";
import { HttpError, type HttpAnswer, type HttpExchange, type HttpRoute } from "../http/route.ts";
import { Throttle, type ThrottleLimits } from "../http/throttle.ts";
import { base32 } from "../ids.ts";
import { lockSandboxPayment, type SandboxPaymentRow } from "../store/sandbox.ts";
import { isSandboxAvailable, type SandboxDeps } from "./sandbox.ts";
import { decide } from "./sandbox_choices.ts";
import { paymentPage, refusalPage } from "./sandbox_page.ts";
import { isPayingChoice, parseChoice, type SandboxChoice } from "./sandbox_state.ts";
import { SANDBOX_STYLE } from "./sandbox_style.ts";
import { SANDBOX_TEXTS, type SandboxTexts } from "./sandbox_texts.ts";

const PAGE_PATH = /^\/sandbox\/pay\/(sbp_[a-z2-7]{26})$/;
const STYLE_PATH = "/sandbox/style.css";
const FORM_BYTES_MAX = 4096;
const FORM_TYPE = /^application\/x-www-form-urlencoded(?:;|$)/i;
const TOKEN_PURPOSE = "tokenbill sandbox page";

const LIMITS: ThrottleLimits = { perMinuteMax: 300, atOncePerAddressMax: 16, atOnceMax: 64, addressesMax: 10_000 };

function textsOf(exchange: HttpExchange): SandboxTexts {
  return SANDBOX_TEXTS[acceptedLanguage(exchange.headers["accept-language"] ?? "")];
}

function page(status: number, body: string): HttpAnswer {
  const headers = { "content-type": "text/html; charset=utf-8", "cache-control": "no-store", vary: "accept-language" };
  return { status, headers, body };
}

function redirect(location: string): HttpAnswer {
  return { status: 303, headers: { location, "cache-control": "no-store" }, body: "" };
}

/** Only this payment's own page knows it. */
function tokenOf(deps: SandboxDeps, id: string): string {
  return base32(deps.secrets.derive(TOKEN_PURPOSE, id));
}

/**
 * Whether another site's page sent it. The page's policy of no referrer makes browsers say `null` for its own origin, so
 * the token decides where a browser says nothing better.
 */
function isCrossSite(headers: HttpExchange["headers"], publicUrl: string): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  const origin = headers["origin"];
  if (origin === undefined || origin === "null") return false;
  return origin !== URL.parse(publicUrl)?.origin;
}

function sameText(given: string, wanted: string): boolean {
  const [a, b] = [Buffer.from(given, "utf8"), Buffer.from(wanted, "utf8")];
  return a.length === b.length && timingSafeEqual(a, b);
}

interface Form {
  readonly token: string;
  readonly choice: SandboxChoice | null;
  readonly savedDeclines: boolean;
  readonly version: string;
}

async function readForm(exchange: HttpExchange): Promise<Form> {
  if (!FORM_TYPE.test(exchange.headers["content-type"] ?? "")) throw new HttpError(415, "send a form");
  const fields = new URLSearchParams(Buffer.from(await exchange.body(FORM_BYTES_MAX)).toString("utf8"));
  return {
    token: fields.get("token") ?? "",
    choice: parseChoice(fields.get("choice") ?? ""),
    savedDeclines: fields.get("card") === "declines",
    version: fields.get("version") ?? "",
  };
}

/** The payment, if there is one and the sandbox may be used at all. */
async function findOpen(deps: SandboxDeps, tx: Tx, id: string): Promise<SandboxPaymentRow | null> {
  if (!(await isSandboxAvailable(deps, tx))) return null;
  return lockSandboxPayment(tx, id, new Date(deps.now()));
}

async function show(deps: SandboxDeps, exchange: HttpExchange, id: string): Promise<HttpAnswer> {
  const texts = textsOf(exchange);
  const payment = await deps.db.tx((tx) => findOpen(deps, tx, id));
  if (payment === null) return page(404, refusalPage(texts, texts.missing));
  return page(200, paymentPage(payment, texts, tokenOf(deps, id), new Date(deps.now())));
}

async function take(deps: SandboxDeps, exchange: HttpExchange, id: string): Promise<HttpAnswer> {
  const texts = textsOf(exchange);
  const { token, choice, ...rest } = await readForm(exchange);
  if (isCrossSite(exchange.headers, deps.settings.publicUrl) || !sameText(token, tokenOf(deps, id))) {
    deps.log.warn({ origin: exchange.headers["origin"] ?? "" }, "a form of the sandbox came from elsewhere");
    return page(403, refusalPage(texts, texts.refused));
  }
  if (choice === null) throw new HttpError(400, "there is no such choice");
  return deps.db.tx(async (tx) => {
    const payment = await findOpen(deps, tx, id);
    if (payment === null) return page(404, refusalPage(texts, texts.missing));
    await decide(deps, tx, id, { choice, ...rest });
    // Relative, so that a proxy's path before it stays.
    return redirect(isPayingChoice(choice) ? payment.return_url : id);
  });
}

/** While the sandbox is not available there is no payment to be seen, and nothing can be decided. */
export function sandboxRoutes(deps: SandboxDeps): readonly HttpRoute[] {
  const throttle = new Throttle(LIMITS, () => deps.now());
  const style: HttpRoute = {
    matches: (path) => path === STYLE_PATH,
    methods: () => ["GET"],
    handle: async () => ({
      status: 200,
      headers: { "content-type": "text/css; charset=utf-8", "cache-control": "public, max-age=300" },
      body: SANDBOX_STYLE,
    }),
  };
  const payments: HttpRoute = {
    matches: (path) => PAGE_PATH.test(path),
    methods: () => ["GET", "POST"],
    async handle(exchange) {
      const entered = throttle.enter(addressGroup(exchange.clientAddress));
      if (typeof entered !== "function")
        throw new HttpError(entered.status, "too many: try again later", {
          "retry-after": String(entered.retryAfterS),
        });
      try {
        const id = PAGE_PATH.exec(exchange.path)![1]!;
        return await (exchange.method === "GET" ? show(deps, exchange, id) : take(deps, exchange, id));
      } finally {
        entered();
      }
    },
  };
  return [style, payments];
}
