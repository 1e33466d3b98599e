/** A request from its body to its admission: what it asks for, whether that may be, and what is held for it. */

import { maxCredits } from "../core/credits.ts";
import { stickyHash } from "../core/routing.ts";
import type { Admitted } from "./admitted.ts";
import { type ScannedBody, scanBody, textField } from "./body.ts";
import { bodyRefusal } from "./body_errors.ts";
import type { Reservation, ReserveFailure } from "./budget/budget.ts";
import { checkoutUrl } from "./checkout_link.ts";
import {
  type Admission,
  admissionOf,
  AMPLE_TIMES,
  outputTokensAccepted,
  outputTokensCovered,
  type RequestSize,
  type TargetCost,
} from "./budget/estimate.ts";
import { namesStoredFile, storedImageField } from "./chat_files.ts";
import { shaped } from "./client_errors.ts";
import type { Core, Live } from "./core.ts";
import { IMAGES_EDITS } from "./endpoints.ts";
import {
  BODIES_UNAVAILABLE,
  bodyTooLarge,
  BUDGET_UNAVAILABLE,
  type ErrorAnswer,
  exhausted,
  INTERNAL,
  JOURNAL_UNAVAILABLE,
  modelNotFound,
  NO_FORM,
  noTarget,
  rateLimitReached,
  UNSUPPORTED_ENCODING,
  unsupportedEndpoint,
} from "./errors.ts";
import type { EndpointSpec } from "./formats/format.ts";
import { serves } from "./formats/index.ts";
import { parseObject } from "./formats/json.ts";
import { refuseStored } from "./formats/messages/stored.ts";
import { checkVersion, STRICT_VERSION } from "./formats/messages/version.ts";
import { isMagic } from "./magic.ts";
import { magicAnswer, type LocalAnswer, warmUpAnswer } from "./local_answers.ts";
import { isMultipart } from "./multipart_head.ts";
import type { RateHold } from "./rates/rates.ts";
import { type ExpectedTokens, expectedTokens } from "./rates/expected_tokens.ts";
import { addRateHeaders, takeRates } from "./rates/request_rates.ts";
import { replyError, replyJson } from "./reply.ts";
import { sizeOf } from "./request_size.ts";
import { routable, type RouteKey, type RouteLm, type RoutePm, type RouteSticky, StickySource } from "./route_types.ts";
import { Serving } from "./serving.ts";
import { filesPlace, type Place, placeOf } from "./stored_responses.ts";
import { strictView } from "./strict_requests.ts";
import { type Media, mediaOf } from "./tokenizer/media.ts";
import type { BodyFailure, BodySink, Exchange, ExchangeSink } from "./transport.ts";
import { type Upload, UploadReader, type UploadSink } from "./upload.ts";

const NOWHERE: Place = { group: { key: "", tiers: [], pms: [], refs: 0 }, previousId: null };
const NO_HOLDS: readonly RateHold[] = [];
/** More of a sticky key is not looked at. */
const STICKY_KEY_CHARS_MAX = 512;

/** The hash of the first key that the request has, 0 if it has none or does not stick. */
function stickyKey(sticky: RouteSticky | null, body: ScannedBody, exchange: Exchange): number {
  if (sticky === null) return 0;
  for (const source of sticky.sources) {
    const key =
      source === StickySource.HEADER
        ? exchange.header(sticky.header)
        : textField(body, source === StickySource.USER ? "user" : "prompt_cache_key");
    if (key !== "") return stickyHash(key.slice(0, STICKY_KEY_CHARS_MAX));
  }
  return 0;
}

/** The targets that can serve an endpoint: mostly all of them, so nothing is allocated then. */
function ableOf(endpoint: EndpointSpec, pms: readonly RoutePm[]): readonly TargetCost[] {
  let able = 0;
  for (let i = 0; i < pms.length; i++) if (routable(pms[i]!) && serves(endpoint, pms[i]!)) able++;
  const targets = able === pms.length ? pms : pms.filter((pm) => routable(pm) && serves(endpoint, pm));
  return targets as readonly TargetCost[];
}

/** A request from its body to its admission. */
export class Entry implements BodySink, UploadSink, ExchangeSink, Live {
  private readonly core: Core;
  private readonly exchange: Exchange;
  private readonly headers: string[];
  private readonly id: string;
  private readonly arriveMs: number;
  private readonly key: RouteKey;
  private readonly endpoint: EndpointSpec;
  liveAt = -1;
  private gone = false;
  /** While the budget is asked, its answer must be waited for: it may hold Credits. */
  private reserving = false;
  /** What is held of the rate limits of the key and the VE, until the request is admitted. */
  private rates: readonly RateHold[] = NO_HOLDS;
  private tokens: ExpectedTokens = { all: 0, input: 0 };
  private place: Place = NOWHERE;
  private reader: UploadReader | null = null;
  /** Of a form, until the request is admitted. */
  private upload: Upload | null = null;

  constructor(
    core: Core,
    exchange: Exchange,
    headers: string[],
    id: string,
    arriveMs: number,
    key: RouteKey,
    endpoint: EndpointSpec,
  ) {
    this.core = core;
    this.exchange = exchange;
    this.headers = headers;
    this.id = id;
    this.arriveMs = arriveMs;
    this.key = key;
    this.endpoint = endpoint;
  }

  begin(): void {
    const encoding = this.exchange.header("content-encoding");
    if (encoding !== "" && encoding.toLowerCase() !== "identity") {
      return this.tell(UNSUPPORTED_ENCODING);
    }
    this.core.opened(this);
    this.exchange.setSink(this);
    const { forms, formBytesMax, bodyBytesMax } = this.endpoint;
    const form = isMultipart(this.exchange.header("content-type"));
    if (form && forms !== "no") {
      this.reader = new UploadReader(this.core, this.exchange, formBytesMax, forms === "only", this);
      return this.reader.begin();
    }
    if (forms === "only") return this.refuse(NO_FORM);
    this.exchange.readBody(bodyBytesMax, this);
  }

  onUpload(upload: Upload): void {
    this.upload = upload;
    try {
      this.resolve(upload.body);
    } catch (error) {
      this.crash(error);
    }
  }

  onUploadFailure(error: ErrorAnswer): void {
    this.refuse(error);
  }

  onBody(bytes: Buffer): void {
    try {
      const { shape, chat } = this.endpoint;
      const body = scanBody(bytes, shape === "messages" ? 0 : 1);
      if (shape === "messages") this.checkMessages(body);
      if (chat && isMagic(body, shape)) return this.answerMagic(body);
      this.resolve(body);
    } catch (error) {
      const refusal = bodyRefusal(error);
      if (refusal === null) this.crash(error);
      else this.refuse(refusal);
    }
  }

  onBodyFailure(failure: BodyFailure): void {
    this.refuse(failure === "too_large" ? bodyTooLarge(this.endpoint.bodyBytesMax) : BODIES_UNAVAILABLE);
  }

  onGone(): void {
    this.gone = true;
    if (!this.reserving) this.leave();
  }

  onDrain(): void {}

  onProgressTick(): void {}

  abort(): void {
    if (!this.gone) this.exchange.destroy();
    this.onGone();
  }

  /** What is refused whatever the upstream, also by the client's version of the API. */
  private checkMessages(body: ScannedBody): void {
    refuseStored(body);
    const version = this.exchange.header("anthropic-version");
    if (version === STRICT_VERSION) checkVersion(parseObject(body.bytes) ?? {}, version);
  }

  private resolve(body: ScannedBody): void {
    const { table, journal } = this.core.deps;
    const lm = table.logicalModel(this.key.ve, body.model);
    if (lm === undefined) return this.refuse(modelNotFound(body.model));
    if (body.noOutput) return this.answer(warmUpAnswer(this.id, body));
    if (!journal.accepting) return this.refuse(JOURNAL_UNAVAILABLE);
    this.place = { group: lm.spec.group, previousId: null };
    const place = this.pinnedPlace(body, lm);
    if (place !== null && "status" in place) return this.refuse(place);
    if (place !== null) this.place = place;
    this.admit(body, lm);
  }

  /** Where a request must go that may name what is stored; null: wherever its model leads. */
  private pinnedPlace(body: ScannedBody, lm: RouteLm): Place | ErrorAnswer | null {
    const { ve } = this.key;
    const { shape } = this.endpoint;
    if (shape === "responses") return placeOf(this.core.deps.table, ve, lm, body.bytes);
    if (shape === "chat") return namesStoredFile(body) ? filesPlace(ve, lm, "messages") : null;
    const field = this.endpoint === IMAGES_EDITS && this.upload === null ? storedImageField(body) : null;
    return field === null ? null : filesPlace(ve, lm, field);
  }

  private admit(body: ScannedBody, lm: RouteLm): void {
    const { budget } = this.core.deps;
    const { ve } = this.key;
    const { pms } = this.place.group;
    const { endpoint } = this;
    const targets = ableOf(endpoint, pms);
    if (targets.length === 0) return this.refuse(this.noTarget(body.model, pms));
    const media = mediaOf(body.bytes);
    const view = ve.strict && endpoint.chat ? strictView(endpoint.shape, parseObject(body.bytes) ?? {}) : null;
    if (view !== null && view.refusal !== null) return this.refuse(view.refusal);
    const size = sizeOf(endpoint, body, media, this.upload, view?.imageTokens ?? 0);
    if (!this.takeRates(body, media, size)) return;
    const wish = admissionOf(size, targets, ve.strict);
    const reservation = budget.reserve(ve.id, wish.amount);
    if (reservation !== null) return this.admitted(body, lm, size, targets, wish, reservation);
    this.reserving = true;
    // Physical Models change in place: what was asked for is what the answer is measured by.
    const asked = targets.map(({ rates, maxOutputTokens }): TargetCost => ({ rates, maxOutputTokens }));
    budget.reserveSlow(ve.id, wish.amount, wish.minimum, (result) => {
      this.reserving = false;
      try {
        this.reserved(body, lm, size, asked, wish, result);
      } catch (error) {
        this.crash(error);
      }
    });
  }

  /** A target that is there but does no such thing is the client's to know; one that is not there is not. */
  private noTarget(model: string, pms: readonly RoutePm[]): ErrorAnswer {
    return pms.some(routable) ? unsupportedEndpoint(model, `/v1${this.endpoint.path}`) : noTarget(model);
  }

  /** False: a rate limit of the key or the VE is reached, and the client was told. */
  private takeRates(body: ScannedBody, media: Media, size: RequestSize): boolean {
    const { key, headers } = this;
    const { rates } = this.core.deps;
    this.tokens = expectedTokens(body.bytes, media, size);
    if (rates === undefined || (key.rateLimits === null && key.ve.rateLimits === null)) return true;
    const taken = takeRates(rates, key, this.tokens);
    addRateHeaders(headers, rates, key);
    if (!Array.isArray(taken)) {
      this.refuse(rateLimitReached(taken, this.tokens.all));
      return false;
    }
    this.rates = taken;
    return true;
  }

  private reserved(
    body: ScannedBody,
    lm: RouteLm,
    size: RequestSize,
    targets: readonly TargetCost[],
    wish: Admission,
    result: Reservation | ReserveFailure,
  ): void {
    if (typeof result !== "string") {
      if (!this.gone) return this.admitted(body, lm, size, targets, wish, result);
      this.core.deps.budget.settle(result, 0n);
      return this.leave();
    }
    if (this.gone) return this.leave();
    const { ve } = this.key;
    this.refuse(
      result === "exhausted" ? exhausted(ve.exhaustedStatus, checkoutUrl(ve, this.core.wallNow())) : BUDGET_UNAVAILABLE,
    );
  }

  private admitted(
    body: ScannedBody,
    lm: RouteLm,
    size: RequestSize,
    targets: readonly TargetCost[],
    wish: Admission,
    reservation: Reservation,
  ): void {
    const { id, arriveMs, key, endpoint, headers } = this;
    const { stream } = size;
    let serving: Serving;
    try {
      const clampTo = this.clampOf(size, targets, wish, reservation);
      if (clampTo !== null) headers.push("x-tokenbill-clamped-max-tokens", String(clampTo));
      const { tokens, rates, place, upload } = this;
      const sticky = stickyKey(lm.spec.routing.sticky, body, this.exchange);
      const admitted: Admitted = {
        id,
        arriveMs,
        key,
        endpoint,
        lm,
        group: place.group,
        previousId: place.previousId,
        form: upload,
        mediaSeconds: upload?.heard ?? null,
        pinSecret: key.ve.pinSecret,
        body,
        stream,
        headers,
        size,
        reservation,
        clampTo,
        tokens,
        rates,
        sticky,
      };
      serving = new Serving(this.core, this.exchange, admitted);
    } catch (error) {
      this.core.deps.budget.settle(reservation, 0n);
      throw error;
    }
    // From here on the reservation and the holds are the other's to settle, whatever happens.
    this.rates = NO_HOLDS;
    this.upload = null;
    serving.begin();
    this.core.closed(this);
  }

  /**
   * STRICT: an answer is never longer than what is held. BALANCED: an answer that is not streamed cannot be ended on the
   * way, so it is limited when less than expected could be held; streams grow, or end, as they run. What they hide, such
   * as reasoning, shows too late for that: no answer may be longer than the whole wallet covers.
   */
  private clampOf(
    size: RequestSize,
    targets: readonly TargetCost[],
    wish: Admission,
    reservation: Reservation,
  ): number | null {
    const { ve } = this.key;
    if (!size.hasOutput) return null;
    const byHeld = ve.strict || (!size.stream && reservation.held < wish.amount);
    const credits = byHeld ? reservation.held : this.core.deps.budget.remaining(ve.id);
    if (credits === null || (!byHeld && credits >= AMPLE_TIMES * wish.amount)) return null;
    const covered = outputTokensCovered(size, targets, ve.strict, maxCredits(credits, reservation.held));
    if (covered === null) return null;
    const most = byHeld && size.outputTokensMax === 0 ? covered + 1 : outputTokensAccepted(size, targets);
    return covered < most ? covered : null;
  }

  private answerMagic(body: ScannedBody): void {
    const { budget } = this.core.deps;
    const { ve } = this.key;
    budget.readBalance(ve.id, (balance) => {
      if (this.gone) return this.leave();
      const { core, endpoint, id, arriveMs } = this;
      this.answer(magicAnswer(core.deps, ve, balance, endpoint.shape, id, arriveMs, body, core.wallNow()));
    });
  }

  /** An answer that no upstream made, and that costs nothing. */
  private answer({ stream, body }: LocalAnswer): void {
    const { headers, exchange } = this;
    if (stream) {
      headers.push("content-type", "text/event-stream; charset=utf-8", "cache-control", "no-cache");
      exchange.writeHead(200, headers);
      exchange.end(body);
    } else {
      replyJson(exchange, 200, headers, body);
    }
    this.core.deps.metrics.request(this.endpoint.number, 200, 0, 0);
    this.leave();
  }

  private tell(error: ErrorAnswer): void {
    this.core.deps.metrics.request(0, error.status, 0, 0);
    replyError(this.exchange, this.headers, shaped(error, this.endpoint.shape, this.id));
  }

  private refuse(error: ErrorAnswer): void {
    if (!this.gone) this.tell(error);
    this.leave();
  }

  private crash(error: unknown): void {
    this.core.deps.log.error({ err: error, id: this.id }, "request failed");
    this.refuse(INTERNAL);
  }

  private leave(): void {
    this.gone = true;
    this.reader?.stop();
    this.upload?.close();
    this.upload = null;
    for (const hold of this.rates) hold.release();
    this.rates = NO_HOLDS;
    this.core.closed(this);
  }
}
