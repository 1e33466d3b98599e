import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import { formatAddress } from "../core/listen_address.ts";
import { parseSettings, type Settings, SettingsError } from "./settings.ts";

const DEFAULTS: Settings = {
  home: resolve(".tokenbill"),
  address: { host: "127.0.0.1", port: 8081 },
  workers: null,
  controlPlaneUrl: "http://127.0.0.1:8080",
  nodeToken: null,
  nodeId: null,
  veDomain: "",
  allowPrivateUpstreams: true,
  awsNodeIdentity: false,
  corsOrigins: [],
  drainMs: 30_000,
  logLevel: "info",
};

describe("parseSettings", () => {
  test("nothing set, and everything empty, gives the defaults", () => {
    expect(parseSettings({})).toEqual(DEFAULTS);
    const names = [
      "TOKENBILL_HOME",
      "DATA_PLANE_ADDR",
      "DATA_PLANE_WORKERS",
      "CONTROL_PLANE_URL",
      "NODE_TOKEN",
      "NODE_ID",
    ];
    const more = ["VE_DOMAIN", "ALLOW_PRIVATE_UPSTREAMS", "CORS_ORIGINS", "DRAIN_MS", "LOG_LEVEL"];
    expect(parseSettings(Object.fromEntries([...names, ...more].map((name) => [name, ""])))).toEqual(DEFAULTS);
  });

  test.each<[Record<string, string>, Partial<Settings>]>([
    [{ TOKENBILL_HOME: "x" }, { home: join(process.cwd(), "x") }],
    [{ DATA_PLANE_ADDR: "127.0.0.1:0" }, { address: { host: "127.0.0.1", port: 0 } }],
    [{ DATA_PLANE_ADDR: ":80" }, { address: { host: "0.0.0.0", port: 80 }, allowPrivateUpstreams: false }],
    [{ DATA_PLANE_ADDR: "[::]:80" }, { address: { host: "::", port: 80 }, allowPrivateUpstreams: false }],
    [{ DATA_PLANE_ADDR: "[::1]:80" }, { address: { host: "::1", port: 80 }, allowPrivateUpstreams: true }],
    [{ DATA_PLANE_ADDR: ":80", ALLOW_PRIVATE_UPSTREAMS: "true" }, { address: { host: "0.0.0.0", port: 80 } }],
    [{ ALLOW_PRIVATE_UPSTREAMS: "false" }, { allowPrivateUpstreams: false }],
    [{ DATA_PLANE_WORKERS: "4" }, { workers: 4 }],
    [{ CONTROL_PLANE_URL: "https://cp.example.com/base/" }, { controlPlaneUrl: "https://cp.example.com/base" }],
    [{ NODE_TOKEN: "tbn_0123456789abcdef" }, { nodeToken: "tbn_0123456789abcdef" }],
    [{ NODE_ID: "node-1" }, { nodeId: "node-1" }],
    [{ VE_DOMAIN: ".API.example.com" }, { veDomain: "api.example.com" }],
    [{ CORS_ORIGINS: "*" }, { corsOrigins: ["*"] }],
    [
      { CORS_ORIGINS: "https://a.example, http://localhost:3000/" },
      { corsOrigins: ["https://a.example", "http://localhost:3000"] },
    ],
    [{ DRAIN_MS: "0" }, { drainMs: 0 }],
    [{ LOG_LEVEL: "silent" }, { logLevel: "silent" }],
  ])("%j", (env, expected) => {
    expect(parseSettings(env)).toEqual({ ...DEFAULTS, ...expected });
  });

  test.each<[Record<string, string>]>([
    [{ DATA_PLANE_ADDR: "8081" }],
    [{ DATA_PLANE_ADDR: "host:70000" }],
    [{ DATA_PLANE_ADDR: "[zz]:1" }],
    [{ DATA_PLANE_WORKERS: "0" }],
    [{ DATA_PLANE_WORKERS: "two" }],
    [{ DATA_PLANE_WORKERS: "1.5" }],
    [{ CONTROL_PLANE_URL: "cp:8080" }],
    [{ CONTROL_PLANE_URL: "http://user:pw@cp" }],
    [{ NODE_TOKEN: "short" }],
    [{ NODE_TOKEN: "with a space in the middle" }],
    [{ NODE_ID: "a/b" }],
    [{ VE_DOMAIN: "not a domain" }],
    [{ ALLOW_PRIVATE_UPSTREAMS: "yes" }],
    [{ CORS_ORIGINS: "app.example.com" }],
    [{ CORS_ORIGINS: "*,https://a.example" }],
    [{ CORS_ORIGINS: "https://a.example/path" }],
    [{ DRAIN_MS: "-1" }],
    [{ LOG_LEVEL: "loud" }],
  ])("%j is refused with one line that names the variable", (env) => {
    const [name] = Object.keys(env);
    let problems: readonly string[] = [];
    try {
      parseSettings(env);
    } catch (error) {
      if (error instanceof SettingsError) problems = error.problems;
    }
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatch(new RegExp(`^${name}: [^\n]+$`));
    if (name === "NODE_TOKEN") expect(problems[0]).not.toContain(env["NODE_TOKEN"]);
  });

  test("every problem is told at once", () => {
    expect(() => parseSettings({ LOG_LEVEL: "x", DRAIN_MS: "x" })).toThrow(/DRAIN_MS.*\n.*LOG_LEVEL/);
  });
});

test("addresses are written so that they can be read again", () => {
  expect(formatAddress({ host: "::1", port: 5 })).toBe("[::1]:5");
  expect(formatAddress({ host: "localhost", port: 5 })).toBe("localhost:5");
});
