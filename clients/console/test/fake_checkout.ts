/** A CheckoutService with a memory, in the test's process: as the page sees one, with switches for everything that happens. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { AutoTopUpService } from "../../ts/src/gen/tokenbill/v1/auto_top_up_service_pb.ts";
import {
  type CheckoutOffer,
  CheckoutOfferSchema,
  type CheckoutSession,
  CheckoutSessionSchema,
  CheckoutState,
  MoneySchema,
  PaymentMethod,
  PaymentProcessor,
  PaymentSchema,
  PaymentState,
} from "../../ts/src/gen/tokenbill/v1/checkout_pb.ts";
import {
  CheckoutService,
  type StartPaymentRequest,
  type StartPaymentResponse,
  StartPaymentResponseSchema,
} from "../../ts/src/gen/tokenbill/v1/checkout_service_pb.ts";
import { ErrorInfoSchema, ErrorReason } from "../../ts/src/gen/tokenbill/v1/error_pb.ts";
import { addCredits } from "../src/shared/decimal.ts";

export const MERCHANT = "Lighthouse AI";
export const LINK = "lnk_good";
const HOUR_MS = 3_600_000;

export interface FakeSession {
  readonly id: string;
  readonly secret: string;
  readonly showWallet: boolean;
  session: CheckoutSession;
}

export function offerOf(): CheckoutOffer {
  return create(CheckoutOfferSchema, {
    merchantName: MERCHANT,
    creditPacks: [
      { id: "pack_1", label: "Starter", price: { currency: "USD", amount: "10.00" }, credits: "1000000" },
      {
        id: "pack_2",
        label: "Studio",
        price: { currency: "USD", amount: "50.00" },
        credits: "5000000",
        bonusCredits: "500000",
      },
      {
        id: "pack_3",
        label: "",
        price: { currency: "USD", amount: "100.00" },
        credits: "10000000",
        bonusCredits: "1500000",
      },
      {
        id: "pack_4",
        label: "",
        price: { currency: "USD", amount: "10.00" },
        credits: "1000000",
        bonusCredits: "0.5",
        customAmount: { minAmount: "5.00", maxAmount: "2500.00" },
      },
    ],
    paymentMethods: [
      {
        paymentAccountId: "pay_s",
        processor: PaymentProcessor.STRIPE,
        method: PaymentMethod.STRIPE_CHECKOUT,
        canSave: true,
      },
      { paymentAccountId: "pay_w", processor: PaymentProcessor.WECHAT_PAY, method: PaymentMethod.WECHAT_NATIVE },
      {
        paymentAccountId: "pay_w",
        processor: PaymentProcessor.WECHAT_PAY,
        method: PaymentMethod.WECHAT_JSAPI,
        authorizeUrl: "/wechat-authorize?back=",
      },
      { paymentAccountId: "pay_t", processor: PaymentProcessor.SANDBOX, method: PaymentMethod.SANDBOX, test: true },
    ],
    payerWallet: {
      veName: "Ada’s workspace",
      requests: 12_408n,
      creditsSpent: "4318662.5173",
      wallet: {
        creditBudget: "5000000",
        creditRemaining: "12345.678900000001",
        settled: "4987654.321099999999",
        debt: "0",
      },
    },
  });
}

function refuse(code: Code, reason: ErrorReason, metadata: Record<string, string> = {}): ConnectError {
  const detail = { desc: ErrorInfoSchema, value: { reason, domain: "tokenbill", metadata } };
  return new ConnectError("refused by the test", code, undefined, [detail]);
}

export class FakeCheckout {
  readonly sessions = new Map<string, FakeSession>();
  /** Names of the calls, in order. */
  calls: string[] = [];
  offer: CheckoutOffer = offerOf();
  /** Called instead of StartPayment's own answer. */
  refusal: ConnectError | null = null;
  throttled = false;
  /** Where a redirect leads instead of to the processor. */
  redirectTo = "";
  /** What the processor says when it is asked. */
  paidAtProcessor = new Set<string>();
  readonly starts: StartPaymentRequest[] = [];
  url = "";
  private count = 0;

  reset(): void {
    this.sessions.clear();
    this.calls = [];
    this.starts.length = 0;
    this.offer = offerOf();
    this.refusal = null;
    this.throttled = false;
    this.redirectTo = "";
    this.paidAtProcessor.clear();
  }

  countOf(name: string): number {
    return this.calls.filter((call) => call === name).length;
  }

  make(init: MessageInitShape<typeof CheckoutSessionSchema> = {}, showWallet = true): FakeSession {
    const id = `cs_${String(++this.count).padStart(26, "test")}`;
    const now = Date.now();
    const session = create(CheckoutSessionSchema, {
      id,
      veId: "ve_test",
      state: CheckoutState.OPEN,
      createTime: timestampFromMs(now),
      expireTime: timestampFromMs(now + HOUR_MS),
      ...init,
    });
    const made = { id, secret: `tbc_${id.slice(3)}`, showWallet, session };
    this.sessions.set(id, made);
    return made;
  }

  /** A session in which the second pack was chosen. */
  chosen(state: CheckoutState, method: PaymentMethod, more: MessageInitShape<typeof CheckoutSessionSchema> = {}) {
    const way = this.offer.paymentMethods.find((offered) => offered.method === method)!;
    const price = create(MoneySchema, { currency: "USD", amount: "50.00" });
    return this.make({
      state,
      creditPackId: "pack_2",
      label: "Studio",
      price,
      credits: "5000000",
      bonusCredits: "500000",
      payments: [
        {
          id: "pmt_test",
          paymentAccountId: way.paymentAccountId,
          processor: way.processor,
          method,
          state: PaymentState.PENDING,
          price,
        },
      ],
      ...more,
    });
  }

  fulfil(id: string): void {
    const { session } = this.sessions.get(id)!;
    if (session.state === CheckoutState.FULFILLED) return;
    session.state = CheckoutState.FULFILLED;
    session.creditsGranted = addCredits(session.credits, session.bonusCredits);
    const now: Timestamp = timestampFromMs(Date.now());
    session.payTime = now;
    session.fulfillTime = now;
    const wallet = this.offer.payerWallet!.wallet!;
    wallet.creditRemaining = addCredits(wallet.creditRemaining, session.creditsGranted);
    wallet.creditBudget = addCredits(wallet.creditBudget, session.creditsGranted);
  }

  private find(id: string, context: HandlerContext): FakeSession {
    const found = this.sessions.get(id);
    if (found === undefined || context.requestHeader.get("authorization") !== `Bearer ${found.secret}`) {
      throw refuse(Code.Unauthenticated, ErrorReason.UNAUTHENTICATED);
    }
    return found;
  }

  private offerFor(found: FakeSession): CheckoutOffer {
    const time = timestampFromMs(Date.now());
    const paymentMethods = this.offer.paymentMethods.map((way) =>
      way.authorizeUrl === "" ? way : { ...way, authorizeUrl: `${way.authorizeUrl}/checkout/${found.id}` },
    );
    const hidden = found.showWallet ? {} : { payerWallet: undefined, autoTopUp: undefined };
    return { ...this.offer, paymentMethods, ...hidden, time };
  }

  private start(request: StartPaymentRequest, found: FakeSession): StartPaymentResponse {
    const { session } = found;
    this.starts.push(request);
    if (this.refusal !== null) throw this.refusal;
    const payable: readonly CheckoutState[] = [CheckoutState.OPEN, CheckoutState.PENDING, CheckoutState.FAILED];
    if (!payable.includes(session.state)) {
      throw refuse(Code.FailedPrecondition, ErrorReason.WRONG_STATE);
    }
    const pack = this.offer.creditPacks.find(({ id }) => id === request.creditPackId)!;
    const way = this.offer.paymentMethods.find(({ method }) => method === request.method)!;
    const { currency, amount } = pack.price!;
    const price = create(MoneySchema, { currency, amount: request.amount === "" ? amount : request.amount });
    const newest = session.payments[session.payments.length - 1];
    const same =
      session.state === CheckoutState.PENDING &&
      newest?.method === request.method &&
      session.creditPackId === pack.id &&
      newest.price?.amount === price.amount;
    if (!same) {
      session.payments.push(
        create(PaymentSchema, {
          id: `pmt_${session.payments.length + 1}`,
          paymentAccountId: way.paymentAccountId,
          processor: way.processor,
          method: request.method,
          state: PaymentState.PENDING,
          price,
        }),
      );
    }
    Object.assign(session, {
      state: CheckoutState.PENDING,
      creditPackId: pack.id,
      label: pack.label,
      price,
      credits: pack.credits,
      bonusCredits: pack.bonusCredits,
      failure: "",
    });
    return create(StartPaymentResponseSchema, {
      checkoutSession: session,
      paymentId: session.payments[session.payments.length - 1]!.id,
      action: this.actionOf(request.method, session.id),
    });
  }

  private actionOf(method: PaymentMethod, id: string): MessageInitShape<typeof StartPaymentResponseSchema>["action"] {
    switch (method) {
      case PaymentMethod.WECHAT_NATIVE:
        return { case: "qrCode", value: "weixin://wxpay/bizpayurl?pr=kZ4Qm7Yzz" };
      case PaymentMethod.WECHAT_JSAPI: {
        const value = {
          appId: "wx1",
          timeStamp: "1",
          nonceStr: "n",
          packageValue: "prepay_id=1",
          signType: "RSA",
          paySign: "s",
        };
        return { case: "wechatPay", value };
      }
      default:
        return { case: "redirectUrl", value: this.redirectTo || `${this.url}/processor?id=${id}` };
    }
  }

  routes(router: ConnectRouter): void {
    const count = (name: string): void => void this.calls.push(name);
    router.service(CheckoutService, {
      createCheckoutSession: (request, context) => {
        count("create");
        if (this.throttled) {
          throw refuse(Code.ResourceExhausted, ErrorReason.LIMIT_REACHED, { limit: "checkout", retry_after_s: "120" });
        }
        if (context.requestHeader.has("authorization") || !request.veId.startsWith("ve_")) {
          throw refuse(Code.NotFound, ErrorReason.NOT_FOUND);
        }
        if (request.returnUrl !== "" && !request.returnUrl.startsWith(`${this.url}/`)) {
          throw refuse(Code.InvalidArgument, ErrorReason.INVALID_FIELD, { field: "return_url" });
        }
        const made = this.make({ veId: request.veId, returnUrl: request.returnUrl }, request.link === LINK);
        return { checkoutSession: made.session, secret: made.secret };
      },
      getCheckoutSession: ({ id }, context) => {
        count("get");
        const found = this.find(id, context);
        return { checkoutSession: found.session, offer: this.offerFor(found) };
      },
      checkPayment: ({ id }, context) => {
        count("check");
        const { session } = this.find(id, context);
        if (this.paidAtProcessor.has(id)) this.fulfil(id);
        return { checkoutSession: session };
      },
      startPayment: (request, context) => {
        count("start");
        return this.start(request, this.find(request.id, context));
      },
      cancelCheckoutSession: ({ id }, context) => {
        count("cancel");
        const { session } = this.find(id, context);
        session.state = CheckoutState.CANCELED;
        return { checkoutSession: session };
      },
    });
    router.service(AutoTopUpService, {
      deleteAutoTopUp: () => {
        count("autoTopUpOff");
        this.offer.autoTopUp!.enabled = false;
        return {};
      },
    });
  }
}

export function refusedPayment(failure: string): ConnectError {
  return refuse(Code.FailedPrecondition, ErrorReason.PAYMENT_REFUSED, { failure });
}
