/** PURE: which address a call comes from, and which addresses count as one. */

import { isIP } from "node:net";

/** The eight groups of an IPv6 address, in hexadecimal without leading zeros. */
function groupsOf(address: string): string[] {
  // The parser of URLs writes every spelling in one way.
  const canonical = new URL(`http://[${address.replace(/%.*$/, "")}]`).hostname.slice(1, -1);
  const [head, tail] = canonical.split("::") as [string, string | undefined];
  const before = head === "" ? [] : head.split(":");
  if (tail === undefined) return before;
  const after = tail === "" ? [] : tail.split(":");
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => "0"), ...after];
}

/** IPv4 in the shape of IPv6 as IPv4; null: no address. */
function canonicalAddress(text: string): string | null {
  const version = isIP(text);
  if (version === 4) return text;
  if (version === 0) return null;
  const groups = groupsOf(text);
  if (groups.slice(0, 5).some((group) => group !== "0") || groups[5] !== "ffff") return text.replace(/%.*$/, "");
  const [high, low] = [Number.parseInt(groups[6]!, 16), Number.parseInt(groups[7]!, 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

/** One entry of `x-forwarded-for`: an address, which some proxies write with its port. */
function entryAddress(entry: string): string | null {
  const text = entry.trim();
  const bracketed = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text)?.[1];
  const dotted = /^(\d+\.\d+\.\d+\.\d+):\d{1,5}$/.exec(text)?.[1];
  return canonicalAddress(bracketed ?? dotted ?? text);
}

/**
 * The client's address. Each of `trustedHops` proxies added the address that it was called from at the end of
 * `forwardedFor`, so the one that the outermost of them saw is that many from the end; what is before it, the client can
 * have made up. With fewer entries, or where that entry is no address, it is `socketAddress`. Empty: not known.
 */
export function clientAddress(socketAddress: string, forwardedFor: string | null, trustedHops: number): string {
  const own = canonicalAddress(socketAddress) ?? "";
  if (trustedHops === 0 || forwardedFor === null) return own;
  const entry = forwardedFor.split(",").at(-trustedHops);
  return (entry === undefined ? null : entryAddress(entry)) ?? own;
}

/** What is counted together: an IPv4 address by itself, of IPv6 the /64, as one customer has all of it. */
export function addressGroup(address: string): string {
  return isIP(address) === 6 ? `${groupsOf(address).slice(0, 4).join(":")}::/64` : address;
}
