import { expect, test } from "vitest";
import { addressGroup, clientAddress } from "./client_address.ts";

const SOCKET = "10.0.0.9";

test.each<[string, string | null, number, string]>([
  ["no proxy is trusted, so the header is not believed", "1.2.3.4", 0, SOCKET],
  ["one proxy", "1.2.3.4", 1, "1.2.3.4"],
  ["what the client made up stays out", "6.6.6.6, 1.2.3.4", 1, "1.2.3.4"],
  ["two proxies", "6.6.6.6, 1.2.3.4, 10.0.0.8", 2, "1.2.3.4"],
  ["fewer entries than proxies", "1.2.3.4", 2, SOCKET],
  ["no header", null, 1, SOCKET],
  ["an empty header", "", 1, SOCKET],
  ["an empty entry", "1.2.3.4,", 1, SOCKET],
  ["a name", "1.2.3.4, localhost", 1, SOCKET],
  ["words", "unknown", 1, SOCKET],
  ["a number too large", "1.2.3.256", 1, SOCKET],
  ["a list in one entry", "1.2.3.4 5.6.7.8", 1, SOCKET],
  ["a script", "<script>", 1, SOCKET],
  ["with a port", "1.2.3.4:5678", 1, "1.2.3.4"],
  ["IPv6", "2001:db8::1", 1, "2001:db8::1"],
  ["IPv6 with a port", "[2001:db8::1]:443", 1, "2001:db8::1"],
  ["IPv6 in brackets alone", "[2001:db8::1]", 1, "2001:db8::1"],
  ["IPv6 with a zone", "fe80::1%eth0", 1, "fe80::1"],
  ["IPv4 in the shape of IPv6", "::ffff:1.2.3.4", 1, "1.2.3.4"],
  ["brackets around nonsense", "[nonsense]", 1, SOCKET],
  ["no blanks", "6.6.6.6,1.2.3.4", 1, "1.2.3.4"],
])("%s", (_name, header, hops, expected) => {
  expect(clientAddress(SOCKET, header, hops)).toBe(expected);
});

test("a socket may be IPv6, or of no network at all", () => {
  expect(clientAddress("::ffff:127.0.0.1", null, 0)).toBe("127.0.0.1");
  expect(clientAddress("::1", null, 0)).toBe("::1");
  expect(clientAddress("", null, 0)).toBe("");
  expect(clientAddress("", "1.2.3.4", 1)).toBe("1.2.3.4");
});

test.each([
  ["1.2.3.4", "1.2.3.4"],
  ["", ""],
  ["::1", "0:0:0:0::/64"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:0DB8:0001:0002::", "2001:db8:1:2::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["2001:db8:1:2:ffff::", "2001:db8:1:2::/64"],
])("%s counts as %s", (address, group) => {
  expect(addressGroup(address)).toBe(group);
});
