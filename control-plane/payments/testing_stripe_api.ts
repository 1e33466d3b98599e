/** The imitation of Stripe: its calls, as strict about parameters as the real one. Every call is of one account. */

import {
  emit,
  expireSession,
  type Form,
  invalid,
  lookUp,
  makeIntent,
  makeMethod,
  makeRefund,
  makeSession,
  missing,
  refuse,
  type StripeBooks,
  StripeFault,
  type StripeObject,
  succeed,
} from "./testing_stripe_books.ts";

export interface ApiCall {
  readonly method: string;
  /** Below `/v1/`. */
  readonly path: readonly string[];
  readonly form: Form;
  /** Where the imitation itself is reached. */
  readonly url: string;
}

const LOCALES = new Set(["auto", "en", "zh"]);
/** Of docs.stripe.com/currencies; what is not here has none in this imitation. */
const MINIMUMS: Readonly<Record<string, number>> = { usd: 50, eur: 50, gbp: 30, jpy: 50, hkd: 400, kwd: 200 };
const THOUSANDTHS = new Set(["bhd", "jod", "kwd", "omr", "tnd"]);
const HALF_HOUR = 1800;
const DAY = 86_400;

/** `a[b][0]=c` becomes `{a: {b: {0: c}}}`. */
export function parseForm(text: string): Form {
  const form: Form = Object.create(null) as Form;
  for (const [name, value] of new URLSearchParams(text)) {
    const path = [...name.matchAll(/[^[\]]+/g)].map(([part]) => part);
    let at: Form = form;
    for (const part of path.slice(0, -1)) {
      const next = at[part] ?? (Object.create(null) as Form);
      if (typeof next === "string") throw invalid("Invalid form");
      at[part] = next;
      at = next;
    }
    at[path.at(-1)!] = value;
  }
  return form;
}

function only(form: Form, names: readonly string[], prefix = ""): void {
  for (const name of Object.keys(form)) {
    if (names.includes(name)) continue;
    const param = prefix === "" ? name : `${prefix}[${name}]`;
    throw invalid(`Received unknown parameter: ${param}`, { code: "parameter_unknown", param });
  }
}

function text(form: Form, name: string, required: boolean): string {
  const value = form[name];
  if (typeof value === "string" && value !== "") return value;
  if (!required && value === undefined) return "";
  throw invalid(`Missing required param: ${name}.`, { code: "parameter_missing", param: name });
}

function inner(form: Form, name: string): Form {
  const value = form[name];
  return typeof value === "object" ? value : (Object.create(null) as Form);
}

function integer(form: Form, name: string): number {
  const value = text(form, name, true);
  if (!/^\d{1,15}$/.test(value)) {
    throw invalid(`Invalid integer: ${value}`, { code: "parameter_invalid_integer", param: name });
  }
  return Number(value);
}

function checkAmount(currency: string, amount: number, param: string): void {
  if (!/^[a-z]{3}$/.test(currency)) throw invalid(`Invalid currency: ${currency}.`, { param: "currency" });
  if ((currency === "isk" || currency === "ugx") && amount % 100 !== 0) {
    throw invalid("Invalid amount.", { code: "invalid_charge_amount_no_decimal_compatible", param });
  }
  if (THOUSANDTHS.has(currency) && amount % 10 !== 0) throw invalid("Invalid amount.", { param });
  if (amount < (MINIMUMS[currency] ?? 1)) {
    throw invalid("The amount must convert to at least 50 cents.", { code: "amount_too_small", param });
  }
  if (amount > 99_999_999)
    throw invalid("Amount must be no more than $999,999.99", { code: "amount_too_large", param });
}

function metadata(form: Form): Form {
  const found = inner(form, "metadata");
  for (const [name, value] of Object.entries(found)) {
    if (typeof value !== "string" || name.length > 40 || value.length > 500) throw invalid("Invalid metadata");
  }
  return { ...found };
}

const SESSION_PARAMS =
  "mode line_items client_reference_id metadata payment_intent_data customer_creation success_url cancel_url expires_at locale adaptive_pricing expand";

function createSession(books: StripeBooks, { form, url }: ApiCall): StripeObject {
  only(form, SESSION_PARAMS.split(" "));
  if (text(form, "mode", true) !== "payment") throw invalid("Invalid mode", { param: "mode" });
  const items = Object.values(inner(form, "line_items"));
  const item = items[0];
  if (items.length !== 1 || typeof item !== "object") throw invalid("Missing required param: line_items.");
  only(item, ["quantity", "price_data"], "line_items[0]");
  const price = inner(item, "price_data");
  only(price, ["currency", "unit_amount", "product_data"], "line_items[0][price_data]");
  const currency = text(price, "currency", true);
  const amount = integer(price, "unit_amount") * integer(item, "quantity");
  checkAmount(currency, amount, "line_items[0][price_data][unit_amount]");
  const expiresAt = form.expires_at === undefined ? books.seconds() + DAY : integer(form, "expires_at");
  const life = expiresAt - books.seconds();
  if (life < HALF_HOUR || life > DAY) {
    throw invalid(
      "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
      {
        param: "expires_at",
      },
    );
  }
  const intent = inner(form, "payment_intent_data");
  only(intent, ["metadata", "description", "setup_future_usage"], "payment_intent_data");
  const locale = text(form, "locale", false) || "auto";
  if (!LOCALES.has(locale)) throw invalid(`Invalid locale: ${locale}`, { param: "locale" });
  const addresses = [text(form, "success_url", true), text(form, "cancel_url", true)] as const;
  if (!addresses.every((address) => URL.canParse(address))) throw invalid("Not a valid URL", { code: "url_invalid" });
  return makeSession(books, url, {
    amount,
    currency,
    name: text(inner(price, "product_data"), "name", true),
    reference: text(form, "client_reference_id", false) || null,
    metadata: metadata(form),
    intentMetadata: metadata(intent),
    intentDescription: text(intent, "description", false) || null,
    save: text(intent, "setup_future_usage", false) === "off_session",
    expiresAt,
    successUrl: addresses[0],
    cancelUrl: addresses[1],
    locale,
  });
}

const INTENT_PARAMS = "amount currency customer payment_method off_session confirm description metadata expand";

/** Charges a saved method; the test says with `declines` what the bank answers. */
function createIntent(books: StripeBooks, { form }: ApiCall): StripeObject {
  only(form, INTENT_PARAMS.split(" "));
  const currency = text(form, "currency", true);
  const amount = integer(form, "amount");
  checkAmount(currency, amount, "amount");
  const customer = lookUp(books, "customer", text(form, "customer", true), "customer");
  const method = lookUp(books, "payment_method", text(form, "payment_method", true), "payment_method");
  if (method.customer !== customer.id) throw invalid("The payment method is not attached to this customer.");
  if (form.off_session !== "true" || form.confirm !== "true") throw invalid("Invalid confirmation");
  const intent = makeIntent(books, {
    amount,
    currency,
    customer: customer.id,
    metadata: metadata(form),
    description: text(form, "description", false) || null,
    save: false,
  });
  intent.payment_method = method.id;
  const decline = books.declines.shift();
  if (decline === undefined) {
    succeed(books, intent);
  } else if (decline === "processing" || decline === "requires_action") {
    intent.status = decline;
  } else {
    const code = decline === "insufficient_funds" ? "card_declined" : decline;
    refuse(books, intent, code, decline);
    const error = intent.last_payment_error as Record<string, unknown>;
    throw new StripeFault(402, { ...error, payment_intent: { ...intent } });
  }
  return intent;
}

function cancelIntent(books: StripeBooks, intent: StripeObject): StripeObject {
  if (["succeeded", "canceled", "processing"].includes(String(intent.status))) {
    throw invalid(`You cannot cancel this PaymentIntent because it has a status of ${String(intent.status)}.`, {
      code: "payment_intent_unexpected_state",
    });
  }
  intent.status = "canceled";
  emit(books, "payment_intent.canceled", intent);
  return intent;
}

function createRefund(books: StripeBooks, { form }: ApiCall): StripeObject {
  only(form, ["payment_intent", "amount", "reason", "metadata", "expand"]);
  const intent = lookUp(books, "payment_intent", text(form, "payment_intent", true), "payment_intent");
  const reason = text(form, "reason", false);
  if (!["", "duplicate", "fraudulent", "requested_by_customer"].includes(reason)) throw invalid("Invalid reason");
  const request = { intent, amount: integer(form, "amount"), reason: reason || null, metadata: metadata(form) };
  return makeRefund(books, { ...request, status: "succeeded" });
}

function list(books: StripeBooks, object: string, form: Form, filters: readonly string[]): Record<string, unknown> {
  only(form, ["limit", "starting_after", "created", "expand", ...filters]);
  const created = inner(form, "created");
  const limit = form.limit === undefined ? 10 : integer(form, "limit");
  if (limit < 1 || limit > 100) throw invalid("Invalid limit");
  const all = [...books.objects.values()].filter(
    (item) =>
      item.object === object &&
      filters.every((name) => form[name] === undefined || item[name] === form[name]) &&
      (created.gte === undefined || Number(item.created) >= Number(created.gte)) &&
      (created.lte === undefined || Number(item.created) <= Number(created.lte)),
  );
  all.reverse();
  const after = form.starting_after;
  const from = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && from === 0) throw missing(object, String(after), "starting_after");
  const data = all.slice(from, from + limit);
  return { object: "list", url: `/v1/${object}`, has_more: from + limit < all.length, data };
}

/** `payment_intent.latest_charge`: names become the objects they name. */
function expand(books: StripeBooks, value: unknown, path: readonly string[]): unknown {
  if (typeof value !== "object" || value === null || path.length === 0) return value;
  const [name, ...rest] = path;
  const copy = { ...(value as Record<string, unknown>) };
  if (!(name! in copy)) throw invalid(`This property cannot be expanded (${name}).`, { param: "expand" });
  const named = copy[name!];
  const found = typeof named === "string" ? (books.objects.get(named) ?? named) : named;
  copy[name!] = expand(books, found, rest);
  return copy;
}

function answer(books: StripeBooks, call: ApiCall): unknown {
  const [kind, id, verb] = call.path[0] === "checkout" ? call.path.slice(1) : call.path;
  const route = `${call.method} ${kind}${id === undefined ? "" : "/:id"}${verb === undefined ? "" : `/${verb}`}`;
  switch (route) {
    case "POST sessions":
      return createSession(books, call);
    case "GET sessions":
      return list(books, "checkout.session", call.form, ["customer", "payment_intent", "status"]);
    case "GET sessions/:id":
      return lookUp(books, "checkout.session", id!, "session");
    case "POST sessions/:id/expire":
      expireSession(books, lookUp(books, "checkout.session", id!, "session"));
      return lookUp(books, "checkout.session", id!);
    case "POST payment_intents":
      return createIntent(books, call);
    case "GET payment_intents":
      return list(books, "payment_intent", call.form, ["customer"]);
    case "GET payment_intents/:id":
      return lookUp(books, "payment_intent", id!, "intent");
    case "POST payment_intents/:id/cancel":
      return cancelIntent(books, lookUp(books, "payment_intent", id!, "intent"));
    case "POST refunds":
      return createRefund(books, call);
    case "GET refunds":
      return list(books, "refund", call.form, ["payment_intent", "charge"]);
    case "GET refunds/:id":
      return lookUp(books, "refund", id!);
    case "GET disputes/:id":
      return lookUp(books, "dispute", id!);
    case "GET payment_methods/:id":
      return lookUp(books, "payment_method", id!, "payment_method");
    case "POST payment_methods/:id/detach":
      return detach(lookUp(books, "payment_method", id!, "payment_method"));
    default:
      throw new StripeFault(404, {
        type: "invalid_request_error",
        message: `Unrecognized request URL (${call.method}: /v1/${call.path.join("/")}).`,
      });
  }
}

function detach(method: StripeObject): StripeObject {
  if (method.customer === null) {
    throw invalid("The payment method you provided is not attached to a customer so detachment is impossible.");
  }
  method.customer = null;
  return method;
}

/** The payer's card, and the customer it is saved with if that was asked for. */
export function attachMethod(books: StripeBooks, session: StripeObject, intent: StripeObject, type: string): void {
  let customer: string | null = null;
  if (intent.setup_future_usage === "off_session") {
    customer = books.newId("cus_");
    books.objects.set(customer, { id: customer, object: "customer", created: books.seconds(), livemode: books.live });
    session.customer = customer;
    intent.customer = customer;
  }
  intent.payment_method = makeMethod(books, customer, type).id;
}

/** @throws StripeFault */
export function answerCall(books: StripeBooks, call: ApiCall): unknown {
  return Object.values(inner(call.form, "expand")).reduce<unknown>(
    (value, path) => expand(books, value, String(path).split(".")),
    answer(books, call),
  );
}
