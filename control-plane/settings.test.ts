import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { formatAddress, parseAddress } from "../core/listen_address.ts";
import { parseSettings, SettingsError, withAddress } from "./settings.ts";

const KEY = Buffer.alloc(32, 7);

describe("parseSettings", () => {
  test("defaults; empty counts as absent", () => {
    const expected = {
      home: resolve(".tokenbill"),
      address: { host: "127.0.0.1", port: 8080 },
      publicUrl: "",
      databaseUrl: null,
      databasePoolMax: 10,
      redisUrl: null,
      masterKey: null,
      nodeToken: null,
      logLevel: "info",
      allowPrivateUpstreams: true,
      sandboxPayments: "auto",
      trustedProxyHops: 0,
      processorUrls: {
        stripe: "https://api.stripe.com",
        wechatPay: "https://api.mch.weixin.qq.com",
        wechat: "https://api.weixin.qq.com",
      },
      leaseHoldMs: 4_500_000,
    };
    expect(parseSettings({})).toStrictEqual(expected);
    const names = [
      "TOKENBILL_HOME",
      "CONTROL_PLANE_ADDR",
      "PUBLIC_URL",
      "DATABASE_URL",
      "DATABASE_POOL_MAX",
      "REDIS_URL",
      "TOKENBILL_MASTER_KEY",
      "NODE_TOKEN",
      "LOG_LEVEL",
      "ALLOW_PRIVATE_UPSTREAMS",
      "LEASE_HOLD_S",
    ];
    expect(parseSettings(Object.fromEntries(names.map((name) => [name, ""])))).toStrictEqual(expected);
  });

  test.each([
    [{ TOKENBILL_HOME: "/var/lib/x" }, { home: "/var/lib/x" }],
    [{ CONTROL_PLANE_ADDR: "0.0.0.0:0" }, { address: { host: "0.0.0.0", port: 0 }, allowPrivateUpstreams: false }],
    [{ CONTROL_PLANE_ADDR: "[::1]:9000" }, { address: { host: "::1", port: 9000 }, allowPrivateUpstreams: true }],
    [{ CONTROL_PLANE_ADDR: "localhost:1" }, { address: { host: "localhost", port: 1 }, allowPrivateUpstreams: true }],
    [{ CONTROL_PLANE_ADDR: "10.0.0.1:1", ALLOW_PRIVATE_UPSTREAMS: "true" }, { allowPrivateUpstreams: true }],
    [{ ALLOW_PRIVATE_UPSTREAMS: "false" }, { allowPrivateUpstreams: false }],
    [{ PUBLIC_URL: "https://pay.example.com/" }, { publicUrl: "https://pay.example.com" }],
    [{ PUBLIC_URL: "http://pay.example.com:8080/base//" }, { publicUrl: "http://pay.example.com:8080/base" }],
    [{ DATABASE_URL: "postgres://u:p@h:5432/d" }, { databaseUrl: "postgres://u:p@h:5432/d" }],
    [{ REDIS_URL: "redis://h:6379" }, { redisUrl: "redis://h:6379" }],
    [{ REDIS_URL: "rediss://u:p@h:6379/0" }, { redisUrl: "rediss://u:p@h:6379/0" }],
    [{ DATABASE_POOL_MAX: "40" }, { databasePoolMax: 40 }],
    [{ TOKENBILL_MASTER_KEY: KEY.toString("base64") }, { masterKey: new Uint8Array(KEY) }],
    [{ TOKENBILL_MASTER_KEY: KEY.toString("base64url") }, { masterKey: new Uint8Array(KEY) }],
    [{ NODE_TOKEN: "tbn_0123456789abcdef" }, { nodeToken: "tbn_0123456789abcdef" }],
    [{ LOG_LEVEL: "warn" }, { logLevel: "warn" }],
    [{ LEASE_HOLD_S: "0" }, { leaseHoldMs: 0 }],
    [{ LEASE_HOLD_S: "604800" }, { leaseHoldMs: 604_800_000 }],
  ])("%j", (env, expected) => {
    expect(parseSettings(env as Record<string, string>)).toMatchObject(expected);
  });

  test.each([
    ["CONTROL_PLANE_ADDR", "8080"],
    ["CONTROL_PLANE_ADDR", "host:99999"],
    ["CONTROL_PLANE_ADDR", "http://host:1"],
    ["CONTROL_PLANE_ADDR", "::1:8080"],
    ["PUBLIC_URL", "pay.example.com"],
    ["PUBLIC_URL", "ftp://pay.example.com"],
    ["PUBLIC_URL", "https://u:p@pay.example.com"],
    ["PUBLIC_URL", "https://pay.example.com/?a=1"],
    ["DATABASE_URL", "mysql://u:hunter2@h/d"],
    ["DATABASE_URL", "hunter2"],
    ["REDIS_URL", "hunter2:6379"],
    ["REDIS_URL", "http://hunter2:6379"],
    ["REDIS_URL", "redis://"],
    ["REDIS_URL", "redis://:hunter2@host:6379/tokenbill"],
    ["DATABASE_POOL_MAX", "0"],
    ["DATABASE_POOL_MAX", "many"],
    ["LEASE_HOLD_S", "604801"],
    ["LEASE_HOLD_S", "-1"],
    ["TOKENBILL_MASTER_KEY", "hunter2"],
    ["TOKENBILL_MASTER_KEY", Buffer.alloc(31).toString("base64")],
    ["NODE_TOKEN", "hunter2"],
    ["NODE_TOKEN", "has a space in the middle"],
    ["LOG_LEVEL", "loud"],
    ["ALLOW_PRIVATE_UPSTREAMS", "yes"],
  ])("refuses %s=%s in one line that names it and no secret", (name, value) => {
    let problems: readonly string[] = [];
    try {
      parseSettings({ [name]: value });
    } catch (error) {
      expect(error).toBeInstanceOf(SettingsError);
      problems = (error as SettingsError).problems;
    }
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(new RegExp(`^${name}: [^\\n]+$`));
    expect(problems[0]).not.toContain("hunter2");
  });

  test("tells every problem at once", () => {
    expect(() => parseSettings({ LOG_LEVEL: "x", DATABASE_POOL_MAX: "x" })).toThrow(
      /DATABASE_POOL_MAX.*\n.*LOG_LEVEL|LOG_LEVEL.*\n.*DATABASE_POOL_MAX/,
    );
  });
});

describe("addresses", () => {
  test.each(["127.0.0.1:0", "[::1]:80", "localhost:8080", "my-host.example:1"])("%s is read and written", (text) => {
    expect(formatAddress(parseAddress(text)!)).toBe(text);
  });

  test.each([
    ["127.0.0.1", "", "http://127.0.0.1:81"],
    ["0.0.0.0", "", "http://localhost:81"],
    ["::", "", "http://localhost:81"],
    ["::1", "", "http://[::1]:81"],
    ["127.0.0.1", "https://pay.example.com", "https://pay.example.com"],
  ])("the public URL at %s, set to '%s', is %s", (host, publicUrl, expected) => {
    const settings = parseSettings({ PUBLIC_URL: publicUrl });
    expect(withAddress(settings, { host, port: 81 })).toMatchObject({
      publicUrl: expected,
      address: { host, port: 81 },
    });
  });
});
