/** PURE: whose request it is, when proxies stand in front. */

import { isIP } from "node:net";

const MAPPED_V4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;
/** With the port that some proxies add. */
const V4_AND_PORT = /^(\d+\.\d+\.\d+\.\d+):\d{1,5}$/;
const V6_IN_BRACKETS = /^\[([0-9a-fA-F:.]+)\](?::\d{1,5})?$/;

/** The address alone, IPv4 as such; empty: it is none. */
function addressOf(text: string): string {
  const trimmed = text.trim();
  const bare = V4_AND_PORT.exec(trimmed)?.[1] ?? V6_IN_BRACKETS.exec(trimmed)?.[1] ?? trimmed;
  const v4 = MAPPED_V4.exec(bare)?.[1] ?? bare;
  return isIP(v4) === 0 ? "" : v4.toLowerCase();
}

/**
 * `peer` is who is connected; `forwardedFor` the `x-forwarded-for` header, empty if there is none. Each trusted proxy has
 * added whom it serves at the end of the header, so that what is further left was made up by anybody. With fewer entries
 * than proxies the leftmost is taken; one that is no address ends the trust.
 */
export function clientAddress(peer: string, forwardedFor: string, trustedProxyHops: number): string {
  let address = addressOf(peer);
  if (forwardedFor === "") return address;
  const entries = forwardedFor.split(",").reverse().slice(0, trustedProxyHops);
  for (const entry of entries) {
    const next = addressOf(entry);
    if (next === "") break;
    address = next;
  }
  return address;
}

/** Whom a throttle counts: one IPv4 address, or the network of 64 bits that one IPv6 customer has at least. */
export function throttleKey(address: string): string {
  if (isIP(address) !== 6) return address;
  const [left, right] = address.split("::") as [string, string | undefined];
  const head = left === "" ? [] : left.split(":");
  const tail = right === undefined || right === "" ? [] : right.split(":");
  // An embedded IPv4 address stands for two groups; it is far to the right of what is taken.
  const tailGroups = tail.length + (tail.at(-1)?.includes(".") === true ? 1 : 0);
  const zeros = right === undefined ? 0 : 8 - head.length - tailGroups;
  const groups = [...head, ...Array<string>(Math.max(0, zeros)).fill("0"), ...tail];
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}
