import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  Code,
  ConnectError,
  createTokenBill,
  errorInfo,
  ErrorInfoSchema,
  ErrorReason,
  paginate,
  requestId,
} from "./index.ts";

/** Answers as the control plane would, and keeps what it was asked. */
function recordingFetch(status: number, body: object, seen: Request[]): typeof fetch {
  return async (input, init) => {
    seen.push(new Request(input, init));
    return Response.json(body, { status });
  };
}

test("the token goes with every call, asked for anew if it is a function", async () => {
  const seen: Request[] = [];
  const fetch = recordingFetch(200, { merchant: { id: "mer_x" } }, seen);
  let n = 0;
  const tb = createTokenBill({ baseUrl: "http://control.plane", apiToken: () => `tbt_${++n}`, fetch });
  await tb.merchants.getMerchant({});
  expect((await tb.merchants.getMerchant({})).merchant!.id).toBe("mer_x");
  expect(seen.map((request) => request.headers.get("authorization"))).toEqual(["Bearer tbt_1", "Bearer tbt_2"]);
  expect(seen[0]!.url).toBe("http://control.plane/tokenbill.v1.MerchantService/GetMerchant");
});

test("the secret of a session goes like a token, and every service has a client", async () => {
  const seen: Request[] = [];
  const fetch = recordingFetch(200, { checkoutSession: { id: "cs_x" } }, seen);
  const tb = createTokenBill({ baseUrl: "http://control.plane", apiToken: "tbc_secret", fetch });
  expect((await tb.checkout.checkPayment({ id: "cs_x" })).checkoutSession!.id).toBe("cs_x");
  expect(seen[0]!.headers.get("authorization")).toBe("Bearer tbc_secret");
  const calls = [
    tb.creditPacks.listCreditPacks({}),
    tb.paymentAccounts.listPaymentAccounts({}),
    tb.autoTopUps.getAutoTopUp({}),
    tb.webhooks.listWebhookEndpoints({}),
  ];
  await Promise.allSettled(calls);
  expect(seen.slice(1).map(({ url }) => url.split("/")[3])).toEqual(
    ["CreditPack", "PaymentAccount", "AutoTopUp", "Webhook"].map((name) => `tokenbill.v1.${name}Service`),
  );
});

test("errorInfo says why", () => {
  const info = create(ErrorInfoSchema, {
    reason: ErrorReason.INVALID_FIELD,
    domain: "tokenbill",
    metadata: { field: "name" },
  });
  const error = new ConnectError("name is too long", Code.InvalidArgument, undefined, [
    { desc: ErrorInfoSchema, value: info },
  ]);
  expect(errorInfo(error)).toEqual({
    reason: ErrorReason.INVALID_FIELD,
    code: Code.InvalidArgument,
    message: "name is too long",
    metadata: { field: "name" },
  });
  expect(errorInfo(new Error("socket"))).toMatchObject({ reason: ErrorReason.UNSPECIFIED, message: "socket" });
  expect(errorInfo("text").reason).toBe(ErrorReason.UNSPECIFIED);
});

test("paginate goes through empty pages to the end, and stops asking when its caller stops", async () => {
  const pages: Record<string, { items: number[]; nextPageToken: string }> = {
    "": { items: [1, 2], nextPageToken: "a" },
    a: { items: [], nextPageToken: "b" },
    b: { items: [3], nextPageToken: "" },
  };
  const asked: string[] = [];
  const list = () =>
    paginate(
      async (token) => {
        asked.push(token);
        return pages[token]!;
      },
      (page) => page.items,
    );
  const all: number[] = [];
  for await (const item of list()) all.push(item);
  expect(all).toEqual([1, 2, 3]);
  for await (const item of list()) if (item === 2) break;
  expect(asked).toEqual(["", "a", "b", ""]);
});

test("request ids differ and fit the schema", () => {
  expect(requestId()).not.toBe(requestId());
  expect(requestId().length).toBeLessThanOrEqual(128);
});
