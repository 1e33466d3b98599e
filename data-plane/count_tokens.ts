/** `/v1/messages/count_tokens`: counted here, without any upstream and without Credits. */

import { scanBody } from "./body.ts";
import { bodyRefusal } from "./body_errors.ts";
import { shaped } from "./client_errors.ts";
import type { Core, Live } from "./core.ts";
import { MESSAGES } from "./endpoints.ts";
import { BODIES_UNAVAILABLE, bodyTooLarge, type ErrorAnswer, INTERNAL, modelNotFound } from "./errors.ts";
import { parseObject } from "./formats/json.ts";
import { checkCountTokens, countTokensAnswer, countTokensJob, tokenFactor } from "./formats/messages/count_tokens.ts";
import { replyError, replyJson } from "./reply.ts";
import type { RouteKey } from "./route_types.ts";
import type { TokenCounts } from "./tokenizer/tokens.ts";
import type { BodyFailure, BodySink, Exchange, ExchangeSink } from "./transport.ts";

export class CountTokens implements BodySink, ExchangeSink, Live {
  liveAt = -1;
  private readonly core: Core;
  private readonly exchange: Exchange;
  private readonly headers: string[];
  private readonly id: string;
  private readonly key: RouteKey;
  private over = false;

  constructor(core: Core, exchange: Exchange, headers: string[], id: string, key: RouteKey) {
    this.core = core;
    this.exchange = exchange;
    this.headers = headers;
    this.id = id;
    this.key = key;
  }

  begin(): void {
    this.core.opened(this);
    this.exchange.setSink(this);
    this.exchange.readBody(MESSAGES.bodyBytesMax, this);
  }

  onBody(bytes: Buffer): void {
    try {
      this.count(bytes);
    } catch (error) {
      const refusal = bodyRefusal(error);
      if (refusal === null) this.crash(error);
      else this.refuse(refusal);
    }
  }

  onBodyFailure(failure: BodyFailure): void {
    this.refuse(failure === "too_large" ? bodyTooLarge(MESSAGES.bodyBytesMax) : BODIES_UNAVAILABLE);
  }

  onGone(): void {
    this.leave();
  }

  onDrain(): void {}

  onProgressTick(): void {}

  abort(): void {
    if (!this.over) this.exchange.destroy();
    this.leave();
  }

  /** As the first target of the model counts: which one will serve is not known before it does. */
  private count(bytes: Buffer): void {
    const { table, tokens } = this.core.deps;
    const { model } = scanBody(bytes, 0);
    checkCountTokens(parseObject(bytes) ?? {});
    const lm = table.logicalModel(this.key.ve, model);
    if (lm === undefined) return this.refuse(modelNotFound(model));
    const pm = lm.spec.group.pms[0];
    const job = countTokensJob(bytes, pm?.upstreamName ?? "");
    const factor = tokenFactor(pm?.upstreamName ?? "", pm?.family ?? "");
    const answer = (counts: TokenCounts | null): void => {
      if (this.over) return;
      try {
        this.core.deps.metrics.request(0, 200, 0, 0);
        const body = Buffer.from(JSON.stringify(countTokensAnswer(job, counts, factor)));
        this.leave();
        replyJson(this.exchange, 200, this.headers, body);
      } catch (error) {
        this.crash(error);
      }
    };
    if (tokens === undefined) answer(null);
    else tokens.count(job, answer);
  }

  private refuse(error: ErrorAnswer): void {
    if (this.over) return;
    this.leave();
    this.core.deps.metrics.request(0, error.status, 0, 0);
    replyError(this.exchange, this.headers, shaped(error, "messages", this.id));
  }

  private crash(error: unknown): void {
    this.core.deps.log.error({ err: error, id: this.id }, "request failed");
    this.refuse(INTERNAL);
  }

  private leave(): void {
    this.over = true;
    this.core.closed(this);
  }
}
