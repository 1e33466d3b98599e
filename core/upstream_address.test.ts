import { describe, expect, test } from "vitest";
import { addressAllowed, type AddressClass, classifyAddress } from "./upstream_address.ts";

const CASES: [string, AddressClass][] = [
  ["8.8.8.8", "public"],
  ["1.1.1.1", "public"],
  ["172.15.255.255", "public"],
  ["172.32.0.0", "public"],
  ["100.63.255.255", "public"],
  ["100.128.0.0", "public"],
  ["2606:4700:4700::1111", "public"],
  ["2a00:1450:4001:81b::200e", "public"],
  ["127.0.0.1", "loopback"],
  ["127.255.255.254", "loopback"],
  ["::1", "loopback"],
  ["0:0:0:0:0:0:0:1", "loopback"],
  ["10.0.0.1", "private"],
  ["172.16.0.1", "private"],
  ["172.31.255.255", "private"],
  ["192.168.1.1", "private"],
  ["100.64.0.1", "private"],
  ["fd12:3456:789a::1", "private"],
  ["fc00::1", "private"],
  ["169.254.169.254", "refused"],
  ["169.254.0.1", "refused"],
  ["100.100.100.200", "refused"],
  ["168.63.129.16", "refused"],
  ["0.0.0.0", "refused"],
  ["0.1.2.3", "refused"],
  ["192.0.0.192", "refused"],
  ["198.18.0.1", "refused"],
  ["224.0.0.1", "refused"],
  ["255.255.255.255", "refused"],
  ["fe80::1", "refused"],
  ["fe80::1%eth0", "refused"],
  ["fd00:ec2::254", "refused"],
  ["ff02::1", "refused"],
  ["::", "refused"],
  ["2001:db8::1", "refused"],
  ["4000::1", "refused"],
  ["::ffff:127.0.0.1", "loopback"],
  ["::ffff:7f00:1", "loopback"],
  ["0:0:0:0:0:ffff:7f00:0001", "loopback"],
  ["::ffff:10.1.2.3", "private"],
  ["::ffff:169.254.169.254", "refused"],
  ["::ffff:a9fe:a9fe", "refused"],
  ["::ffff:8.8.8.8", "public"],
  ["::127.0.0.1", "loopback"],
  ["64:ff9b::169.254.169.254", "refused"],
  ["64:ff9b::808:808", "public"],
  ["64:ff9b::7f00:1", "loopback"],
  ["64:ff9b:1::808:808", "refused"],
  ["2002:7f00:0001::", "loopback"],
  ["2002:a9fe:a9fe::1", "refused"],
  ["2002:0808:0808::1", "public"],
  ["", "refused"],
  ["localhost", "refused"],
  ["127.1", "refused"],
  ["0x7f000001", "refused"],
  ["1.2.3.4.5", "refused"],
];

describe("classifyAddress", () => {
  test.each(CASES)("%s is %s", (ip, expected) => {
    expect(classifyAddress(ip)).toBe(expected);
  });
});

describe("addressAllowed", () => {
  test.each(CASES)("%s (%s) follows the setting", (ip, kind) => {
    expect(addressAllowed(ip, true)).toBe(kind !== "refused");
    expect(addressAllowed(ip, false)).toBe(kind === "public");
  });
});
