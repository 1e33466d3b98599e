/**
 * Files, uploads, batches and vector stores: passed through to the one Provider that the VE names for them, without a model
 * and so without a price. All that is stored at that account is open to the VE's keys; the control plane sees to it that no
 * other VE names it.
 */

import { checkoutUrl } from "../checkout_link.ts";
import { ClientBody } from "../client_body.ts";
import { shaped } from "../client_errors.ts";
import type { Core, Live } from "../core.ts";
import { Endpoint } from "../endpoints.ts";
import {
  BATCHES_NOT_PRICED,
  badRequest,
  bodyTooLarge,
  BUDGET_UNAVAILABLE,
  type ErrorAnswer,
  exhausted,
  INTERNAL,
  PASSTHROUGH_NOT_SET,
  PASSTHROUGH_NOT_SUPPORTED,
  PASSTHROUGH_UNAVAILABLE,
  rateLimitReached,
  UNSUPPORTED_ENCODING,
} from "../errors.ts";
import { azureError } from "../formats/azure.ts";
import { accountPathOf, CALL_HEADERS, openAiKey } from "../formats/call.ts";
import type { ClientShape } from "../formats/format.ts";
import { openAiError } from "../formats/openai.ts";
import { PLAIN_HEAD_MS, PlainCall, type PlainPlan } from "../plain_call.ts";
import { keptQuery, queryOf } from "../query.ts";
import type { RateHold } from "../rates/rates.ts";
import { addRateHeaders, takeRates } from "../rates/request_rates.ts";
import { replyError } from "../reply.ts";
import { ProviderFormat, type RouteKey, type RouteProvider, type RouteVe } from "../route_types.ts";
import type { RouteTable } from "../route_table.ts";
import { announcedBytes } from "../spool/receive.ts";
import type { Exchange, ExchangeSink, OutboundRequest } from "../transport.ts";
import type { PassOperation } from "./routes.ts";

/** A file is looked at by the upstream before it answers. */
export const PASS_HEAD_MS = 300_000;
/** Parameters of the query that are passed on. */
const QUERY = ["after", "before", "filter", "limit", "order", "purpose"];
/** What a client needs to read an answer, besides its content-type. */
const KEEPS = ["content-disposition", "content-encoding", "content-length"];
/** What a header may hold to be passed on. */
const CONTENT_TYPE = /^[\x20-\x7e]{1,256}$/;
const FORM = /^multipart\/form-data\s*;/i;
const JSON_TYPE = /^application\/json\s*(?:;|$)/i;
const VECTOR_STORES = "/v1/vector_stores";
/** Which OpenAI's SDKs send with every request there. */
const BETA = ["openai-beta", "assistants=v2"];
const NO_HOLDS: readonly RateHold[] = [];
const NO_TOKENS = { all: 0, input: 0 };

/** What is wanted: a path that `passRouteOf` knows, and what is to be done there. */
export interface Wish {
  readonly path: string;
  readonly operation: PassOperation;
}

/** Where a VE's files are, or why they are nowhere. */
function providerOf(table: RouteTable, { passthroughProviderId: id }: RouteVe): RouteProvider | ErrorAnswer {
  if (id === "") return PASSTHROUGH_NOT_SET;
  const provider = table.provider(id);
  if (provider === undefined || provider.disabled) return PASSTHROUGH_UNAVAILABLE;
  const { OPENAI, AZURE_OPENAI } = ProviderFormat;
  return provider.format === OPENAI || provider.format === AZURE_OPENAI ? provider : PASSTHROUGH_NOT_SUPPORTED;
}

/** The client's body, or why it cannot be taken. Null: it sends none. */
function bodyOf(exchange: Exchange, { body, bodyBytesMax }: PassOperation): ClientBody | ErrorAnswer | null {
  const length = announcedBytes(exchange);
  if (body === "none" || length === 0) return null;
  if (length === null && exchange.header("transfer-encoding") === "") return null;
  const encoding = exchange.header("content-encoding");
  if (encoding !== "" && encoding.toLowerCase() !== "identity") return UNSUPPORTED_ENCODING;
  if (length !== null && length > bodyBytesMax) return bodyTooLarge(bodyBytesMax);
  const type = exchange.header("content-type");
  const expected = body === "form" ? FORM : JSON_TYPE;
  if (!CONTENT_TYPE.test(type) || !expected.test(type)) {
    const wanted = body === "form" ? "multipart/form-data" : "application/json";
    return badRequest(`The request must have the content-type ${wanted}.`, null, "unsupported_content_type");
  }
  return new ClientBody(exchange, length, bodyBytesMax);
}

function headersOf(provider: RouteProvider, wish: Wish, exchange: Exchange, hasBody: boolean): string[] {
  const headers = ["accept", wish.operation.binary ? "*/*" : "application/json", ...CALL_HEADERS];
  headers.push(...openAiKey(provider), ...provider.headers);
  if (hasBody) headers.push("content-type", exchange.header("content-type"));
  if (wish.path.startsWith(VECTOR_STORES) && !provider.headers.includes(BETA[0]!)) headers.push(...BETA);
  return headers;
}

/** A request from its head to its call. */
export class Passthrough implements ExchangeSink, Live {
  liveAt = -1;
  private readonly core: Core;
  private readonly exchange: Exchange;
  private readonly headers: string[];
  private readonly id: string;
  private readonly key: RouteKey;
  private readonly wish: Wish;
  private readonly shape: ClientShape;
  private body: ClientBody | null = null;
  private rates: readonly RateHold[] = NO_HOLDS;
  private over = false;

  constructor(
    core: Core,
    exchange: Exchange,
    headers: string[],
    id: string,
    key: RouteKey,
    wish: Wish,
    shape: ClientShape,
  ) {
    this.core = core;
    this.exchange = exchange;
    this.headers = headers;
    this.id = id;
    this.key = key;
    this.wish = wish;
    this.shape = shape;
  }

  begin(): void {
    this.core.opened(this);
    this.exchange.setSink(this);
    this.guard(() => {
      const provider = providerOf(this.core.deps.table, this.key.ve);
      if ("status" in provider) return this.refuse(provider);
      const { operation } = this.wish;
      if (operation.unpriced) return this.refuse(BATCHES_NOT_PRICED);
      const body = bodyOf(this.exchange, operation);
      if (body !== null && "status" in body) return this.refuse(body);
      this.body = body;
      if (!this.takeRates()) return;
      if (operation.spends) this.checkWallet();
      else this.call();
    });
  }

  onDrain(): void {}

  onProgressTick(): void {}

  onGone(): void {
    this.leave();
  }

  abort(): void {
    if (this.over) return;
    this.exchange.destroy();
    this.leave();
  }

  /** False: a rate limit of the key or the VE is reached, and the client was told. */
  private takeRates(): boolean {
    const { key, headers } = this;
    const { rates } = this.core.deps;
    if (rates === undefined || (key.rateLimits === null && key.ve.rateLimits === null)) return true;
    const taken = takeRates(rates, key, NO_TOKENS);
    addRateHeaders(headers, rates, key);
    if (!Array.isArray(taken)) {
      this.refuse(rateLimitReached(taken, 0));
      return false;
    }
    this.rates = taken;
    return true;
  }

  /** Nothing is held: there is no price. But an exhausted wallet may add nothing to what the merchant pays for. */
  private checkWallet(): void {
    const { budget } = this.core.deps;
    const { ve } = this.key;
    const left = budget.remaining(ve.id);
    if (left !== null && left > 0n) return this.call();
    // Not heard of yet, or topped up since.
    budget.readBalance(ve.id, (balance) =>
      this.guard(() => {
        if (balance === null) return this.refuse(BUDGET_UNAVAILABLE);
        if (balance.creditRemaining <= 0n)
          return this.refuse(exhausted(ve.exhaustedStatus, checkoutUrl(ve, this.core.wallNow())));
        this.call();
      }),
    );
  }

  private call(): void {
    const { exchange, wish, body, rates } = this;
    // It may have changed while the wallet was asked for.
    const provider = providerOf(this.core.deps.table, this.key.ve);
    if ("status" in provider) return this.refuse(provider);
    const path = accountPathOf(provider, wish.path.slice("/v1".length) + keptQuery(queryOf(exchange.target), QUERY));
    const headers = headersOf(provider, wish, exchange, body !== null);
    const method = exchange.method as OutboundRequest["method"];
    const plan: PlainPlan = {
      provider,
      request: { origin: provider.origin, path, method, headers, body },
      body,
      unavailable: PASSTHROUGH_UNAVAILABLE,
      headMs: body === null ? PLAIN_HEAD_MS : PASS_HEAD_MS,
      keeps: KEEPS,
      rates,
      change: null,
      error: provider.format === ProviderFormat.AZURE_OPENAI ? azureError : openAiError,
      endpoint: Endpoint.PASSTHROUGH,
    };
    const call = new PlainCall(this.core, exchange, this.headers, plan);
    // From here on the holds are the other's to settle, whatever happens.
    this.rates = NO_HOLDS;
    call.begin();
    this.leave();
  }

  private refuse(error: ErrorAnswer): void {
    if (this.over) return;
    this.core.deps.metrics.request(Endpoint.PASSTHROUGH, error.status, 0, 0);
    replyError(this.exchange, this.headers, shaped(error, this.shape, this.id));
    this.leave();
  }

  private leave(): void {
    this.over = true;
    for (const hold of this.rates) hold.release();
    this.rates = NO_HOLDS;
    this.core.closed(this);
  }

  private guard(run: () => void): void {
    if (this.over) return;
    try {
      run();
    } catch (error) {
      this.core.deps.log.error({ err: error, id: this.id }, "request failed");
      this.refuse(INTERNAL);
    }
  }
}
