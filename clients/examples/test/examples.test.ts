/** The merchants' examples do what their READMEs say: real processes, the SDK, signed webhooks, and a stand-in for WeChat. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import vm from "node:vm";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  CheckoutService,
  type CheckoutSession,
  CheckoutSessionSchema,
  CheckoutState,
  PaymentMethod,
  type StartPaymentRequest,
  VirtualEndpointService,
} from "../../ts/src/index.ts";

const EXAMPLES = fileURLToPath(new URL("..", import.meta.url));
const ROOT = join(EXAMPLES, "../..");
const TOKEN = "tbt_merchant";
const SECRET = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
const SIGN_DATA = '{ "offerId": "o",  "buyQuantity": 6800 }';

const session: CheckoutSession = create(CheckoutSessionSchema, { id: "cs_test", veId: "ve_test" });
const started: StartPaymentRequest[] = [];
let reads = 0;
let methods: PaymentMethod[] = [];
let created: { requestId: string; veId: string; returnUrl: string; metadata: Record<string, string> };

const tokenBill = connectNodeAdapter({
  interceptors: [
    (next) => (request) => {
      if (request.header.get("authorization") !== `Bearer ${TOKEN}`) throw new ConnectError("no", Code.Unauthenticated);
      return next(request);
    },
  ],
  routes: (router) =>
    router
      .service(VirtualEndpointService, { getBalance: () => ({ wallet: { creditRemaining: "12.5" } }) })
      .service(CheckoutService, {
        createCheckoutSession: ({ requestId, veId, returnUrl, metadata }) => {
          created = { requestId, veId, returnUrl, metadata };
          return { checkoutSession: session, secret: "tbc_x", checkoutUrl: "https://pay.test/checkout/cs_test#tbc_x" };
        },
        getCheckoutSession: () => {
          reads++;
          const credit = { credits: "5", bonusCredits: "0" };
          return {
            checkoutSession: session,
            offer: {
              creditPacks: [
                { id: "pack_cny", label: "小", price: { currency: "CNY", amount: "68.00" }, ...credit },
                { id: "pack_usd", price: { currency: "USD", amount: "10.00" }, ...credit },
              ],
              paymentMethods: methods.map((method) => ({ paymentAccountId: "pay_w", method })),
              payerWallet: { wallet: { creditRemaining: "12.5" } },
            },
          };
        },
        startPayment: (request) => {
          started.push(request);
          session.state = CheckoutState.PENDING;
          return {
            checkoutSession: session,
            action:
              request.method === PaymentMethod.WECHAT_VIRTUAL
                ? {
                    case: "wechatVirtual",
                    value: { mode: "short_series_goods", signData: SIGN_DATA, paySig: "p", signature: "s" },
                  }
                : {
                    case: "wechatPay",
                    value: { timeStamp: "1", nonceStr: "n", packageValue: "prepay_id=1", signType: "RSA" },
                  },
          };
        },
        checkPayment: () => ({ checkoutSession: session }),
      }),
});

let server: Server;
const children: ChildProcess[] = [];
let shop: string;
let backend: string;

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Starts an example's server; its address, once it says that it is there. */
async function run(file: string, env: Record<string, string>): Promise<string> {
  const port = await freePort();
  const child = spawn(
    process.execPath,
    ["--import", join(EXAMPLES, "test/sdk_from_source.mjs"), join(EXAMPLES, file)],
    {
      env: { ...env, PATH: process.env["PATH"], PORT: String(port) },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  children.push(child);
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.once("exit", (code) => reject(new Error(`${file} ended with ${code}`)));
  });
  return `http://127.0.0.1:${port}`;
}

beforeAll(async () => {
  server = createServer(tokenBill);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const env = {
    TOKENBILL_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    TOKENBILL_TOKEN: TOKEN,
    VE_ID: "ve_test",
    WEBHOOK_SECRET: SECRET,
  };
  [shop, backend] = await Promise.all([run("web/server.mjs", env), run("mini-program/backend/server.mjs", env)]);
});

afterAll(async () => {
  for (const child of children) child.kill();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

beforeEach(() => {
  session.state = CheckoutState.OPEN;
  session.creditsGranted = "0";
  started.length = 0;
  reads = 0;
  methods = [PaymentMethod.WECHAT_NATIVE, PaymentMethod.WECHAT_MINI_PROGRAM, PaymentMethod.WECHAT_VIRTUAL];
});

function fulfil(): void {
  session.state = CheckoutState.FULFILLED;
  session.creditsGranted = "5";
}

describe("the web page", () => {
  /** A webhook as TokenBill sends it, signed by the reference library. */
  function deliver(id: string, at = new Date(), secret = SECRET): Promise<Response> {
    const data = { checkout_session: { id: "cs_test", state: "FULFILLED" } };
    const body = JSON.stringify({ type: "checkout.fulfilled", timestamp: at.toISOString(), data });
    const headers = {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
      "webhook-signature": `v1,AAAA ${new Webhook(secret).sign(id, at, body)}`,
    };
    return fetch(`${shop}/webhooks/tokenbill`, { method: "POST", headers, body });
  }

  async function order(): Promise<string> {
    const { url } = (await (await fetch(`${shop}/api/top-up`, { method: "POST" })).json()) as { url: string };
    expect(url).toBe("https://pay.test/checkout/cs_test#tbc_x");
    return created.requestId;
  }
  const stateOf = async (id: string): Promise<unknown> => (await fetch(`${shop}/api/orders/${id}`)).json();

  test("tops up: session, webhook, result", async () => {
    expect(await (await fetch(`${shop}/api/wallet`)).json()).toEqual({ creditRemaining: "12.5" });
    const id = await order();
    expect(created).toEqual({
      requestId: id,
      veId: "ve_test",
      returnUrl: `${shop}/return?order=${id}`,
      metadata: { order: id },
    });
    expect(await stateOf(id)).toEqual({ state: "OPEN", creditsGranted: "0" });
    fulfil();
    expect((await deliver("evt_1")).status).toBe(204);
    const asked = reads;
    expect(await stateOf(id)).toEqual({ state: "FULFILLED", creditsGranted: "5" });
    expect((await deliver("evt_1")).status).toBe(204);
    expect(reads).toBe(asked);
    for (const path of ["/", "/return", "/shop.js", "/return.js", "/shop.css"]) {
      expect((await fetch(shop + path)).status, path).toBe(200);
    }
    expect((await fetch(`${shop}/api/orders/other`)).status).toBe(404);
  });

  test("finds out without a webhook", async () => {
    const id = await order();
    fulfil();
    expect(await stateOf(id)).toEqual({ state: "FULFILLED", creditsGranted: "5" });
  });

  test("believes no forgery and no recording", async () => {
    await order();
    reads = 0;
    const other = `whsec_${Buffer.alloc(32, 8).toString("base64")}`;
    expect((await deliver("evt_2", new Date(), other)).status).toBe(401);
    expect((await deliver("evt_3", new Date(Date.now() - 301_000))).status).toBe(401);
    expect((await deliver("evt_4", new Date(Date.now() + 360_000))).status).toBe(401);
    expect((await fetch(`${shop}/webhooks/tokenbill`, { method: "POST", body: "{}" })).status).toBe(401);
    expect(reads).toBe(0);
  });
});

interface MiniPage {
  data: Record<string, unknown>;
  onLoad(): void;
  open(): Promise<void>;
  pay(): Promise<void>;
}

describe("the Mini Program", () => {
  /** Runs the page's script as WeChat does; `windows` are the ends of WeChat's windows, in order. */
  async function openPage(windows: readonly string[]) {
    const ends = [...windows];
    const opened: { name: string; params: Record<string, unknown> }[] = [];
    const pay = (name: string) => (params: Record<string, unknown>) => {
      opened.push({
        name,
        params: Object.fromEntries(Object.entries(params).filter(([, v]) => typeof v === "string")),
      });
      const end = ends.shift() ?? "ok";
      if (end === "ok") return (params["success"] as () => void)();
      (params["fail"] as (failure: object) => void)({ errCode: end === "cancel" ? -2 : -1, errMsg: end });
    };
    let page!: MiniPage;
    const wx = {
      login: ({ success }: { success: (result: object) => void }) => success({ code: "login_code" }),
      request: async ({ url, data, success, fail }: Record<string, any>) => {
        try {
          const answer = await fetch(url, { method: "POST", body: JSON.stringify(data) });
          success({ statusCode: answer.status, data: await answer.json() });
        } catch (error) {
          fail({ errMsg: String(error) });
        }
      },
      requestVirtualPayment: pay("virtual"),
      requestPayment: pay("plain"),
    };
    const script = readFileSync(join(EXAMPLES, "mini-program/pages/topup/topup.js"), "utf8");
    vm.runInNewContext(script, {
      wx,
      setTimeout,
      getApp: () => ({ globalData: { backend } }),
      Page: (definition: MiniPage) => {
        page = { ...definition, data: { ...definition.data } };
        Object.assign(page, { setData: (change: object) => Object.assign(page.data, change) });
      },
    });
    await page.open();
    return { page, opened };
  }

  test("pays by Virtual Payment, with the very text that was signed", async () => {
    const { page, opened } = await openPage(["ok"]);
    expect(page.data).toMatchObject({ canPay: true, creditRemaining: "12.5", packId: "pack_cny" });
    expect(page.data["packs"]).toHaveLength(1);
    const paying = page.pay();
    await page.pay(); // A second press does nothing.
    fulfil();
    session.state = CheckoutState.OPEN;
    setTimeout(fulfil, 50);
    await paying;
    expect(page.data["message"]).toContain("+5 Credits");
    expect(opened).toEqual([
      { name: "virtual", params: { mode: "short_series_goods", signData: SIGN_DATA, paySig: "p", signature: "s" } },
    ]);
    expect(started).toMatchObject([
      { creditPackId: "pack_cny", method: PaymentMethod.WECHAT_VIRTUAL, wechatCode: "login_code", language: "zh" },
    ]);
  });

  test("pays plainly where that is what is offered, and takes a closed window for what it is", async () => {
    methods = [PaymentMethod.WECHAT_MINI_PROGRAM];
    const { page, opened } = await openPage(["requestPayment:fail cancel", "requestPayment:fail x"]);
    await page.pay();
    expect(page.data["message"]).toBe("已取消付款。");
    await page.pay();
    expect(page.data["message"]).toContain("付款未完成");
    expect(page.data["isBusy"]).toBe(false);
    expect(opened[0]).toEqual({
      name: "plain",
      params: { timeStamp: "1", nonceStr: "n", package: "prepay_id=1", signType: "RSA", paySign: "" },
    });
  });

  test("nobody pays for a session of somebody else", async () => {
    session.veId = "ve_other";
    const body = JSON.stringify({ sessionId: "cs_test", packId: "pack_cny", code: "c" });
    expect((await fetch(`${backend}/mini/pay`, { method: "POST", body })).status).toBe(502);
    expect(started).toEqual([]);
    session.veId = "ve_test";
  });
});

test("all of it is right by its types and its syntax", async () => {
  const files = readdirSync(EXAMPLES, { recursive: true, encoding: "utf8" });
  for (const file of files.filter((name) => name.endsWith(".json"))) {
    expect(() => JSON.parse(readFileSync(join(EXAMPLES, file), "utf8")), file).not.toThrow();
  }
  for (const file of files.filter((name) => name.endsWith(".js"))) {
    expect(() => new vm.Script(readFileSync(join(EXAMPLES, file), "utf8")), file).not.toThrow();
  }
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  await promisify(execFile)(tsc, ["--noEmit", "-p", join(EXAMPLES, "tsconfig.json")]);
});
