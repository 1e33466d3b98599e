/** For tests: a control plane with the sandbox, and somebody who presses its buttons. */

import type { Database } from "../db/database.ts";
import { PaymentMethod } from "../domain/checkout.ts";
import { startTestControlPlane, type TestControlPlane } from "../testing.ts";
import type {
  KnownPayment,
  OpenAccount,
  PaymentOrder,
  ProcessorAccount,
  RawNotification,
  RefundOrder,
} from "./payment.ts";
import { sandboxProcessor } from "./sandbox.ts";
import { sandboxTick } from "./sandbox_tick.ts";

export const RETURN_URL = "http://127.0.0.1/checkout/cs_x";

export interface Opened {
  readonly order: PaymentOrder;
  readonly known: KnownPayment;
  readonly url: string;
}

export interface Sandbox {
  readonly cp: TestControlPlane;
  readonly account: ProcessorAccount;
  readonly accountId: string;
  /** What was sent, and how often it is to be refused before it is heard. */
  readonly heard: RawNotification[];
  readonly refuse: { times: number };
  openAccount(id: string): ProcessorAccount;
  order(changes?: Partial<PaymentOrder>): PaymentOrder;
  start(changes?: Partial<PaymentOrder>): Promise<Opened>;
  /** Shows the page. */
  show(opened: Opened, headers?: Record<string, string>): Promise<Response>;
  /** Presses a button of the page, with what its forms had last; redirects are not followed. */
  press(
    opened: Opened,
    choice: string,
    fields?: Record<string, string>,
    headers?: Record<string, string>,
  ): Promise<Response>;
  refundOrder(opened: Opened, refundId: string, amountMinor: bigint): RefundOrder;
  tick(): Promise<number>;
}

export function knownOf(order: PaymentOrder, reference: string | null, now: number): KnownPayment {
  const { paymentId, method, currency, amountMinor, expiresAtMs } = order;
  return { paymentId, method, reference, details: {}, currency, amountMinor, createdAtMs: now, expiresAtMs };
}

/** The hidden fields of the page's form. */
export function fieldsOf(page: string): Record<string, string> {
  const inputs = [...page.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)];
  return Object.fromEntries(inputs.map((match) => [match[1]!, match[2]!]));
}

export async function startSandbox(db: Database, env: Record<string, string> = {}): Promise<Sandbox> {
  const cp = await startTestControlPlane(db, { env });
  const { deps } = cp;
  const processor = sandboxProcessor(deps);
  const openAccount = (id: string): ProcessorAccount =>
    processor.open({ id, merchantId: "m", credentials: new Uint8Array(0), test: true } satisfies OpenAccount);
  const accountId = deps.newId("pay_");
  const account = openAccount(accountId);
  const heard: RawNotification[] = [];
  const refuse = { times: 0 };
  const seen = new Map<string, Record<string, string>>();
  const order = (changes: Partial<PaymentOrder> = {}): PaymentOrder => ({
    paymentId: deps.newId("pmt_"),
    sessionId: "cs_x",
    veId: "ve_x",
    method: PaymentMethod.SANDBOX,
    currency: "USD",
    amountMinor: 1001n,
    description: "5,000,000 Credits",
    merchantName: "Acme <b>& Sons</b>",
    expiresAtMs: deps.now() + 3_600_000,
    returnUrl: RETURN_URL,
    notificationUrl: "",
    language: "en",
    saveMethod: false,
    wechatCode: "",
    clientAddress: "",
    ...changes,
  });
  const show: Sandbox["show"] = ({ url }, headers = {}) => fetch(url, { headers });
  return {
    cp,
    account,
    accountId,
    heard,
    refuse,
    openAccount,
    order,
    show,
    async start(changes) {
      const made = order(changes);
      const { reference, action } = await account.start(made);
      if (action.kind !== "redirect") throw new Error("no redirect");
      return { order: made, known: knownOf(made, reference, deps.now()), url: action.url };
    },
    async press(opened, choice, fields = {}, headers = {}) {
      const shown = { ...seen.get(opened.url), ...fieldsOf(await (await show(opened)).text()) };
      seen.set(opened.url, shown);
      const body = new URLSearchParams({ ...shown, choice, ...fields });
      return fetch(opened.url, { method: "POST", body, headers, redirect: "manual" });
    },
    refundOrder: ({ known }, refundId, amountMinor) => ({
      refundId,
      payment: known,
      settledReference: "",
      amountMinor,
      reason: "",
      notificationUrl: "",
      reference: null,
    }),
    tick: () =>
      sandboxTick(deps, async (_accountId, raw) => {
        heard.push(raw);
        refuse.times -= 1;
        return { status: refuse.times >= 0 ? 500 : 200, type: "", body: "" };
      }),
  };
}
