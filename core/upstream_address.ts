/**
 * Where upstreams may live. Both planes check the address that a connection really goes to, after the name was resolved,
 * so that a name cannot lead to a place that its URL does not show.
 */

import { BlockList, isIP } from "node:net";

/**
 * `refused`: never, whatever the settings: link-local (where clouds keep their metadata), multicast, reserved and
 * documentation networks, and everything that is no address.
 */
export type AddressClass = "public" | "private" | "loopback" | "refused";

type Network = readonly [network: string, prefix: number];

function listOf(v4: readonly Network[], v6: readonly Network[]): BlockList {
  const list = new BlockList();
  for (const [network, prefix] of v4) list.addSubnet(network, prefix, "ipv4");
  for (const [network, prefix] of v6) list.addSubnet(network, prefix, "ipv6");
  return list;
}

const LOOPBACK = listOf([["127.0.0.0", 8]], [["::1", 128]]);

/** RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193 (unique local). */
const PRIVATE = listOf(
  [
    ["10.0.0.0", 8],
    ["172.16.0.0", 12],
    ["192.168.0.0", 16],
    ["100.64.0.0", 10],
  ],
  [["fc00::", 7]],
);

/** The rest of the IANA special-purpose registries, and metadata services that live in otherwise allowed networks. */
const REFUSED = listOf(
  [
    ["0.0.0.0", 8],
    ["169.254.0.0", 16],
    ["192.0.0.0", 24],
    ["192.0.2.0", 24],
    ["192.88.99.0", 24],
    ["198.18.0.0", 15],
    ["198.51.100.0", 24],
    ["203.0.113.0", 24],
    ["224.0.0.0", 4],
    ["240.0.0.0", 4],
    ["100.100.100.200", 32],
    ["168.63.129.16", 32],
  ],
  [
    ["::", 128],
    ["fe80::", 10],
    ["fec0::", 10],
    ["ff00::", 8],
    ["64:ff9b:1::", 48],
    ["100::", 64],
    ["2001::", 23],
    ["2001:db8::", 32],
    ["3fff::", 20],
    ["5f00::", 16],
    ["fd00:ec2::254", 128],
    ["fd20:ce::254", 128],
  ],
);

/** Networks whose addresses hold an IPv4 address, and where in the eight groups it begins. What counts is that address. */
const EMBEDDED_V4: readonly { list: BlockList; firstGroup: number }[] = [
  { list: listOf([], [["::ffff:0:0", 96]]), firstGroup: 6 },
  { list: listOf([], [["::ffff:0:0:0", 96]]), firstGroup: 6 },
  { list: listOf([], [["::", 96]]), firstGroup: 6 },
  { list: listOf([], [["64:ff9b::", 96]]), firstGroup: 6 },
  { list: listOf([], [["2002::", 16]]), firstGroup: 1 },
];

/** The eight 16-bit groups of an IPv6 address, which is well-formed. */
function groupsOf(ip: string): number[] {
  let text = ip;
  const dotted = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  if (dotted !== null) {
    const [, a, b, c, d] = dotted.map(Number) as [number, number, number, number, number];
    text = `${text.slice(0, dotted.index)}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  }
  const [head = "", tail] = text.split("::");
  const parse = (part: string): number[] =>
    part === "" ? [] : part.split(":").map((group) => Number.parseInt(group, 16));
  if (tail === undefined) return parse(head);
  const [before, after] = [parse(head), parse(tail)];
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}

function classifyV4(ip: string): AddressClass {
  if (REFUSED.check(ip, "ipv4")) return "refused";
  if (LOOPBACK.check(ip, "ipv4")) return "loopback";
  return PRIVATE.check(ip, "ipv4") ? "private" : "public";
}

function classifyV6(ip: string): AddressClass {
  const groups = groupsOf(ip);
  const plain = groups.map((group) => group.toString(16)).join(":");
  if (LOOPBACK.check(plain, "ipv6")) return "loopback";
  if (plain === "0:0:0:0:0:0:0:0") return "refused";
  for (const { list, firstGroup } of EMBEDDED_V4) {
    if (!list.check(plain, "ipv6")) continue;
    const [high, low] = [groups[firstGroup]!, groups[firstGroup + 1]!];
    return classifyV4(`${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`);
  }
  if (REFUSED.check(plain, "ipv6")) return "refused";
  if (PRIVATE.check(plain, "ipv6")) return "private";
  // Global unicast is 2000::/3; nothing else is assigned.
  return (groups[0]! & 0xe000) === 0x2000 ? "public" : "refused";
}

/** `ip` as resolvers and sockets write it; a zone (`%eth0`) is ignored. What is no address is `refused`. */
export function classifyAddress(ip: string): AddressClass {
  const bare = ip.split("%", 1)[0]!;
  const version = isIP(bare);
  if (version === 4) return classifyV4(bare);
  return version === 6 ? classifyV6(bare) : "refused";
}

/** Whether an upstream may be called at `ip`. `allowPrivate` is the deployment's setting ALLOW_PRIVATE_UPSTREAMS. */
export function addressAllowed(ip: string, allowPrivate: boolean): boolean {
  const kind = classifyAddress(ip);
  return kind === "public" || (allowPrivate && (kind === "private" || kind === "loopback"));
}
