import { expect, test } from "vitest";
import { sandboxAvailable } from "./sandbox_available.ts";

const HERE = "http://127.0.0.1:8080";

test.each([
  ["auto", HERE, false, true],
  ["auto", "http://localhost:8080/pay", false, true],
  ["auto", "http://[::1]:8080", false, true],
  ["auto", HERE, true, false],
  ["auto", "https://pay.example.com", false, false],
  ["auto", "http://192.168.1.2:8080", false, false],
  ["auto", "http://localhost.example.com", false, false],
  ["auto", "http://127.0.0.1.example.com", false, false],
  ["auto", "", false, false],
  ["always", "https://pay.example.com", true, true],
  ["always", HERE, false, true],
  ["never", HERE, false, false],
  ["never", "https://pay.example.com", true, false],
] as const)("%s at %s, a real account: %s -> %s", (sandboxPayments, publicUrl, anyReal, available) => {
  expect(sandboxAvailable({ sandboxPayments, publicUrl }, anyReal)).toBe(available);
});
