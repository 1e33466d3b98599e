/**
 * PURE: order numbers. WeChat takes 6 to 32 of `[0-9A-Za-z_-|*]`, Virtual Payment 8 to 32 that do not begin with `_`, for
 * refunds without `|` and `*`: our ids fit all of them, so they are the numbers, and a number tells whose payment it is.
 */

const PAYMENT = /^pmt_[0-9A-Za-z_-]{4,28}$/;
const REFUND = /^rfd_[0-9A-Za-z_-]{4,28}$/;

/** `out_trade_no`. @throws RangeError for an id that no payment of ours has */
export function orderNumber(paymentId: string): string {
  if (!PAYMENT.test(paymentId)) throw new RangeError("not the id of a payment");
  return paymentId;
}

/** Null: an order that something else of the merchant made. */
export function paymentIdOf(orderNo: string): string | null {
  return PAYMENT.test(orderNo) ? orderNo : null;
}

/** `out_refund_no`. @throws RangeError for an id that no refund of ours has */
export function refundNumber(refundId: string): string {
  if (!REFUND.test(refundId)) throw new RangeError("not the id of a refund");
  return refundId;
}

/** Null: a refund that was made elsewhere. */
export function refundIdOf(refundNo: string): string | null {
  return REFUND.test(refundNo) ? refundNo : null;
}

const BEIJING_MS = 8 * 3_600_000;

/** RFC 3339 in Beijing's time, whole seconds: `2018-06-08T10:34:56+08:00`. The same instant is always written the same. */
export function beijingTime(ms: number): string {
  return `${new Date(ms + BEIJING_MS).toISOString().slice(0, 19)}+08:00`;
}

/** As many whole characters as fit into so many bytes of UTF-8; control characters become spaces. */
export function cutText(text: string, bytesMax: number): string {
  let out = "";
  let bytes = 0;
  for (const char of text.replaceAll(/\p{Cc}/gu, " ").trim()) {
    bytes += Buffer.byteLength(char);
    if (bytes > bytesMax) break;
    out += char;
  }
  return out;
}
