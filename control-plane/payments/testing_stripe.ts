/**
 * An imitation of Stripe for tests, over HTTP: hosted sessions with a page, charges without the payer, refunds, disputes and
 * signed webhooks. It keeps state, and tests do with it what payers, banks and merchants do at the real one.
 */

import { createHmac } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { attachMethod } from "./testing_stripe_api.ts";
import {
  emit,
  endDispute,
  endRefund,
  expireSession,
  intentOfSession,
  lookUp,
  makeRefund,
  openDispute,
  orderOf,
  refuse,
  type StripeBooks,
  type StripeEvent,
  StripeFault,
  type StripeObject,
  succeed,
} from "./testing_stripe_books.ts";
import {
  answerApi,
  bodyOf,
  type StripeImitationFault,
  type StripeRequest,
  type StripeSide,
} from "./testing_stripe_http.ts";

export type { StripeEvent } from "./testing_stripe_books.ts";
export type { StripeImitationFault, StripeRequest } from "./testing_stripe_http.ts";

export interface SignedWebhook {
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

export interface SigningOptions {
  /** Another than the account's: a forgery. */
  readonly secret?: string;
  /** Milliseconds since 1970 that are signed; the imitation's time if absent. */
  readonly atMs?: number;
  /** Sent instead of what was signed. */
  readonly body?: string;
}

export interface StripeImitationAccount {
  readonly secretKey: string;
  readonly webhookSecret: string;
  /** Everything that happened, oldest first. */
  readonly events: readonly StripeEvent[];
  /** Where events are sent as they happen; null: nowhere. */
  webhookUrl: string | null;
  object(id: string): StripeObject;
  /** The payer pays on the hosted page. `async`: their bank takes its time, `settle` says how it ends. */
  pay(session: string, how?: "card" | "async"): void;
  settle(session: string, ok: boolean): void;
  /** The payer's card is declined on the hosted page, which stays open. */
  decline(session: string, code?: string): void;
  expire(session: string): void;
  /** What the next charges without the payer end with: a decline code, `processing`, `requires_action`. */
  declineCharges(...codes: readonly string[]): void;
  /** The merchant refunds by hand; the id of the refund. */
  refundAtDashboard(intent: string, amount: number, status?: "succeeded" | "pending"): string;
  endRefund(refund: string, ok: boolean): void;
  openDispute(intent: string, reason?: string): string;
  /** `won`, `lost`, `warning_closed`. */
  endDispute(dispute: string, status: string): void;
  /** Any other event. */
  emit(type: string, object: StripeObject): StripeEvent;
  sign(event: StripeEvent, options?: SigningOptions): SignedWebhook;
  /** Sends it once; the status of the answer. */
  deliver(event: StripeEvent, url: string, options?: SigningOptions): Promise<number>;
}

export interface StripeImitation extends StripeImitationAccount {
  readonly url: string;
  readonly requests: readonly StripeRequest[];
  /** Added to the real time. */
  readonly clock: { offsetMs: number };
  addAccount(options?: { live?: boolean }): StripeImitationAccount;
  /** What happens to the next calls instead. */
  fail(...faults: readonly StripeImitationFault[]): void;
  /** Keys may not use paths that begin so. */
  forbid(path: string): void;
  close(): Promise<void>;
}

export function signStripe(body: string, secret: string, atMs: number): string {
  const seconds = Math.floor(atMs / 1000);
  return `t=${seconds},v1=${createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex")}`;
}

function pay(books: StripeBooks, session: StripeObject, how: "card" | "async"): void {
  if (session.status !== "open") throw new Error(`the session is ${String(session.status)}`);
  const intent = intentOfSession(books, session);
  attachMethod(books, session, intent, how === "card" ? "card" : "sepa_debit");
  session.status = "complete";
  session.url = null;
  if (how === "async") {
    intent.status = "processing";
    emit(books, "payment_intent.processing", intent);
  } else {
    succeed(books, intent);
    session.payment_status = "paid";
  }
  emit(books, "checkout.session.completed", session);
}

function settle(books: StripeBooks, session: StripeObject, ok: boolean): void {
  const intent = intentOfSession(books, session);
  if (ok) {
    succeed(books, intent);
    session.payment_status = "paid";
  } else {
    refuse(books, intent, "payment_intent_payment_attempt_failed", "generic_decline");
  }
  emit(books, `checkout.session.async_payment_${ok ? "succeeded" : "failed"}`, session);
}

function control(books: StripeBooks): StripeImitationAccount {
  const session = (id: string): StripeObject => lookUp(books, "checkout.session", id);
  const sign = (event: StripeEvent, options: SigningOptions = {}): SignedWebhook => {
    const header = signStripe(
      event.body,
      options.secret ?? books.webhookSecret,
      options.atMs ?? books.seconds() * 1000,
    );
    return {
      headers: { "content-type": "application/json; charset=utf-8", "stripe-signature": header },
      body: new TextEncoder().encode(options.body ?? event.body),
    };
  };
  return {
    secretKey: books.secretKey,
    webhookSecret: books.webhookSecret,
    events: books.events,
    webhookUrl: null,
    object: (id) => books.objects.get(id)!,
    pay: (id, how = "card") => pay(books, session(id), how),
    settle: (id, ok) => settle(books, session(id), ok),
    decline: (id, code = "card_declined") => refuse(books, intentOfSession(books, session(id)), code),
    expire: (id) => expireSession(books, session(id)),
    declineCharges: (...codes) => void books.declines.push(...codes),
    refundAtDashboard: (id, amount, status = "succeeded") => {
      const intent = lookUp(books, "payment_intent", id);
      return makeRefund(books, { intent, amount, reason: null, metadata: {}, status }).id;
    },
    endRefund: (id, ok) => endRefund(books, lookUp(books, "refund", id), ok),
    openDispute: (id, reason = "fraudulent") => openDispute(books, lookUp(books, "payment_intent", id), reason).id,
    endDispute: (id, status) => endDispute(books, lookUp(books, "dispute", id), status),
    emit: (type, object) => emit(books, type, object),
    sign,
    deliver: async (event, url, options) => {
      const { headers, body } = sign(event, options);
      const response = await fetch(url, { method: "POST", headers, body });
      await response.arrayBuffer();
      return response.status;
    },
  };
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function page(session: StripeObject): string {
  const order = orderOf(session);
  const button = (name: string, label: string): string =>
    `<form method="post" action="/c/pay/${session.id}/${name}"><button id="${name}">${label}</button></form>`;
  return `<!doctype html><html lang="${order.locale}"><title>Imitated Stripe</title><h1>Imitated Stripe</h1><p>${escaped(order.name)}: ${order.amount} ${order.currency}</p>${button("pay", "Pay")}${button("decline", "Decline")}<a id="back" href="${escaped(order.cancelUrl)}">Back</a></html>`;
}

interface Known {
  readonly books: StripeBooks;
  readonly account: StripeImitationAccount;
}

/** Sends what happened since, in order; a receiver that fails is the test's business. */
async function sendSince({ account }: Known, from: number): Promise<void> {
  if (account.webhookUrl === null) return;
  for (const event of account.events.slice(from)) await account.deliver(event, account.webhookUrl);
}

/** The hosted page, which browsers visit. */
async function answerPage(known: readonly Known[], request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [, , , id, verb] = new URL(request.url!, "http://imitation").pathname.split("/");
  const owner = known.find(({ books }) => books.objects.get(id ?? "")?.object === "checkout.session");
  const session = owner?.books.objects.get(id!);
  if (owner === undefined || session === undefined) {
    response.writeHead(404).end();
    return;
  }
  if (request.method === "POST") {
    await bodyOf(request);
    const from = owner.account.events.length;
    if (verb === "pay" && session.status === "open") owner.account.pay(session.id);
    if (verb === "decline" && session.status === "open") owner.account.decline(session.id);
    await sendSince(owner, from);
    const to = verb === "pay" ? orderOf(session).successUrl : `/c/pay/${session.id}`;
    response.writeHead(303, { location: to }).end();
    return;
  }
  response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page(session));
}

function makeAccount(side: StripeSide, count: number, live: boolean): StripeBooks {
  const mode = live ? "live" : "test";
  let made = 0;
  return {
    account: `acct_imitation${count}`,
    secretKey: `sk_${mode}_imitation${count}Secret${String(count).padStart(4, "0")}`,
    webhookSecret: `whsec_imitation${count}Secret`,
    live,
    objects: new Map(),
    events: [],
    declines: [],
    newId: (prefix) => `${prefix}${count}x${String(++made).padStart(6, "0")}`,
    seconds: side.seconds,
  };
}

/** On a port of its own; to be closed. The first account is one of test mode. */
export async function startStripeImitation(): Promise<StripeImitation> {
  const clock = { offsetMs: 0 };
  const seconds = (): number => Math.floor((Date.now() + clock.offsetMs) / 1000);
  const known: Known[] = [];
  const state = {
    accounts: new Map(),
    faults: [],
    forbidden: new Set<string>(),
    requests: [],
    kept: new Map(),
    seconds,
  };
  const side: StripeSide = { ...state, url: "" };
  const server = createServer((request, response) => {
    const answering = request.url!.startsWith("/c/pay/")
      ? answerPage(known, request, response)
      : answerApi(side, request, response);
    answering.catch((error: unknown) => {
      const status = error instanceof StripeFault ? error.status : 500;
      response.writeHead(status, { "content-type": "text/plain" }).end(String(error));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  Object.assign(side, { url });
  const addAccount = (options: { live?: boolean } = {}): StripeImitationAccount => {
    const books = makeAccount(side, known.length + 1, options.live === true);
    const account = control(books);
    side.accounts.set(books.secretKey, books);
    known.push({ books, account });
    return account;
  };
  const first = addAccount();
  return Object.assign(first, {
    url,
    requests: side.requests,
    clock,
    addAccount,
    fail: (...faults: readonly StripeImitationFault[]) => void side.faults.push(...faults),
    forbid: (path: string) => void side.forbidden.add(path),
    close: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
}
