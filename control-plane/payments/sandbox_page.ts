/** PURE: the sandbox's page. It needs no script, says TEST in large letters, and its forms come back to itself. */

import { type Html, html } from "../http/html.ts";
import { currencyDigits, formatAmount } from "../domain/money.ts";
import type { SandboxPaymentRow } from "../store/sandbox.ts";
import {
  half,
  isPayable,
  paidChoices,
  PAYING_CHOICES,
  refundable,
  type SandboxChoice,
  versionOf,
} from "./sandbox_state.ts";
import type { SandboxTexts } from "./sandbox_texts.ts";

/** Relative to the page, so that it is found wherever a proxy has put the whole. */
const STYLE = "../style.css";

/** As people of the language write it, to the last digit. */
export function amountText(lang: string, currency: string, minor: bigint): string {
  const digits = currencyDigits(currency);
  const options = {
    style: "currency",
    currency,
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  } as const;
  return new Intl.NumberFormat(lang, options).format(formatAmount({ currency, minor }) as `${number}`);
}

function frame(texts: SandboxTexts, title: string, body: Html): string {
  return html`<!doctype html>
    <html lang="${texts.lang}">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="robots" content="noindex" />
        <title>${texts.test} · ${title}</title>
        <link rel="icon" href="data:," />
        <link rel="stylesheet" href="${STYLE}" />
      </head>
      <body>
        <header class="test">
          <p><strong>${texts.test}</strong> ${texts.noMoney}</p>
        </header>
        <main>${body}</main>
      </body>
    </html> `.html;
}

function button(texts: SandboxTexts, choice: SandboxChoice, amount: string, isFirst: boolean): Html {
  const { name, what } = texts.choices[choice];
  const title = amount === "" ? name : `${name} · ${amount}`;
  return html`<li>
    <button name="choice" value="${choice}" ${isFirst ? html` class="first"` : ""}>
      <strong>${title}</strong><span>${what}</span>
    </button>
  </li> `;
}

function form(title: string, token: string, version: string, fields: Html, buttons: readonly Html[]): Html {
  return html`<form method="post">
    <input type="hidden" name="token" value="${token}" />
    <input type="hidden" name="version" value="${version}" />
    ${fields}
    <h2>${title}</h2>
    <ul class="choices">
      ${buttons}
    </ul>
  </form> `;
}

function cards(texts: SandboxTexts): Html {
  return html`<fieldset>
    <legend>${texts.card}</legend>
    <label><input type="radio" name="card" value="works" checked /> ${texts.cardWorks}</label>
    <label><input type="radio" name="card" value="declines" /> ${texts.cardDeclines}</label>
  </fieldset> `;
}

/** What the payer can do while it is open. */
function payingForm(payment: SandboxPaymentRow, texts: SandboxTexts, token: string): Html {
  const buttons = PAYING_CHOICES.map((choice) => button(texts, choice, "", choice === "approve"));
  return form(texts.decide, token, versionOf(payment), payment.save_method ? cards(texts) : html``, buttons);
}

function stateName(payment: SandboxPaymentRow): keyof SandboxTexts["state"] {
  if (payment.state !== "pending") return payment.state;
  return payment.pay_at === null ? "expired" : "approved";
}

/** How it stands, and what can be done about it once it is paid. */
function outcome(payment: SandboxPaymentRow, texts: SandboxTexts, token: string): Html {
  const money = (minor: bigint): string => amountText(texts.lang, payment.currency, minor);
  const lines = [texts.state[stateName(payment)]];
  if (payment.refunded_minor > 0n) lines.push(`${texts.refunded}: ${money(payment.refunded_minor)}`);
  if (payment.dispute_state !== null) lines.push(texts.disputed[payment.dispute_state]);
  const buttons = paidChoices(payment).map((choice) => {
    const amount = choice === "refund" ? refundable(payment) : choice === "refund_half" ? half(payment) : 0n;
    return button(texts, choice, amount === 0n ? "" : money(amount), false);
  });
  return html`${lines.map((line) => html`<p class="state">${line}</p> `)}<a
      class="back"
      href="${payment.return_url}"
      rel="noreferrer"
      >${texts.back.replace("{merchant}", () => payment.merchant_name)}</a
    >
    ${buttons.length === 0 ? "" : form(texts.later, token, versionOf(payment), html``, buttons)}`;
}

/** The page of a payment, as it stands at `now`. `token` goes into its forms. */
export function paymentPage(payment: SandboxPaymentRow, texts: SandboxTexts, token: string, now: Date): string {
  const amount = amountText(texts.lang, payment.currency, payment.amount_minor);
  const title = texts.payTo.replace("{merchant}", () => payment.merchant_name);
  const rest = isPayable(payment, now) ? payingForm(payment, texts, token) : outcome(payment, texts, token);
  return frame(
    texts,
    `${amount} · ${payment.merchant_name}`,
    html`<h1>${title}</h1>
      <p class="amount">${amount}</p>
      <p class="quiet">${payment.description}</p>
      ${rest}`,
  );
}

/** The page that says that something is not there, or was not done. */
export function refusalPage(
  texts: SandboxTexts,
  { title, text }: { readonly title: string; readonly text: string },
): string {
  return frame(
    texts,
    title,
    html`<h1>${title}</h1>
      <p>${text}</p> `,
  );
}
