/** Environment -> Settings of the control plane. Pure: no file is read, nothing is opened. */

import { join, resolve } from "node:path";
import { type Address, formatAddress, isLoopbackHost, parseAddress } from "../core/listen_address.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Settings {
  /** Absolute path of TOKENBILL_HOME. */
  readonly home: string;
  readonly address: Address;
  /** Base of checkout links, without a slash at the end. Empty until the address is known: see `withAddress`. */
  readonly publicUrl: string;
  /** Null: the embedded store in the home. */
  readonly databaseUrl: string | null;
  readonly databasePoolMax: number;
  /** What several control planes share beside the database; null: there is one. */
  readonly redisUrl: string | null;
  /** 32 bytes, or null: the file in the home. */
  readonly masterKey: Uint8Array | null;
  /** A token that nodes may use besides the one in the home, or null. */
  readonly nodeToken: string | null;
  readonly logLevel: LogLevel;
  /** Whether upstreams may live at private and loopback addresses. */
  readonly allowPrivateUpstreams: boolean;
  /** Whether payers can use the sandbox, which moves no money. `auto`: while nothing real is set up, on this machine alone. */
  readonly sandboxPayments: "auto" | "always" | "never";
  /** How many proxies in front of the control plane add to `x-forwarded-for`; 0: the header is not believed. */
  readonly trustedProxyHops: number;
  /** Where payment processors are reached; without a slash at the end. */
  readonly processorUrls: { readonly stripe: string; readonly wechatPay: string; readonly wechat: string };
  /** What a silent node's leases are held beyond their time, so that its journal can come back first. */
  readonly leaseHoldMs: number;
}

/** Each problem is one line that names its variable. Values of secrets are never in it. */
export class SettingsError extends Error {
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.name = "SettingsError";
    this.problems = problems;
  }
}

export const ADDRESS_DEFAULT: Address = { host: "127.0.0.1", port: 8080 };
export const DATABASE_POOL_DEFAULT = 10;
const DATABASE_POOL_LIMIT = 1000;
const NODE_TOKEN_CHARS_MIN = 16;
/** The longest request, an hour, and time for its report. */
export const LEASE_HOLD_S_DEFAULT = 4500;
const LEASE_HOLD_S_MAX = 604_800;
const PROXY_HOPS_MAX = 8;
export const STRIPE_API_URL = "https://api.stripe.com";
export const WECHAT_PAY_API_URL = "https://api.mch.weixin.qq.com";
export const WECHAT_API_URL = "https://api.weixin.qq.com";

type Env = Readonly<Record<string, string | undefined>>;

const WILDCARD_HOSTS = new Set(["0.0.0.0", "::"]);

/** The settings once the real address is known: fills in a PUBLIC_URL that was not set. */
export function withAddress(settings: Settings, address: Address): Settings {
  if (settings.publicUrl !== "") return { ...settings, address };
  const host = WILDCARD_HOSTS.has(address.host) ? "localhost" : address.host;
  return { ...settings, address, publicUrl: `http://${formatAddress({ host, port: address.port })}` };
}

function parseUrl(text: string, protocols: readonly string[]): URL | null {
  const url = URL.parse(text);
  return url !== null && protocols.includes(url.protocol) && url.hostname !== "" ? url : null;
}

function readAddress(env: Env, problems: string[]): Address {
  const text = env["CONTROL_PLANE_ADDR"];
  if (text === undefined || text === "") return ADDRESS_DEFAULT;
  const address = parseAddress(text);
  if (address === null) problems.push(`CONTROL_PLANE_ADDR: "${text}" is not host:port, such as 127.0.0.1:8080`);
  return address ?? ADDRESS_DEFAULT;
}

function readPublicUrl(env: Env, problems: string[]): string {
  const text = env["PUBLIC_URL"];
  if (text === undefined || text === "") return "";
  const url = parseUrl(text, ["http:", "https:"]);
  if (url === null || url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    problems.push(
      `PUBLIC_URL: give an http or https URL without credentials, query or fragment, such as https://pay.example.com`,
    );
    return "";
  }
  return url.href.replace(/\/+$/, "");
}

function readDatabaseUrl(env: Env, problems: string[]): string | null {
  const text = env["DATABASE_URL"];
  if (text === undefined || text === "") return null;
  // The value may hold a password, so it is not repeated.
  if (URL.parse(text) === null || !/^postgres(ql)?:\/\//.test(text)) {
    problems.push("DATABASE_URL: give a URL such as postgres://user:password@host:5432/tokenbill");
  }
  return text;
}

function readRedisUrl(env: Env, problems: string[]): string | null {
  const text = env["REDIS_URL"];
  if (text === undefined || text === "") return null;
  const url = parseUrl(text, ["redis:", "rediss:"]);
  // The client would use the first database where the number is none. The value may hold a password, so it is not repeated.
  if (url === null || !/^\/?\d{0,5}$/.test(url.pathname)) {
    problems.push("REDIS_URL: give a URL such as redis://host:6379 or rediss://user:password@host:6379/0");
  }
  return text;
}

function readPoolMax(env: Env, problems: string[]): number {
  const text = env["DATABASE_POOL_MAX"];
  if (text === undefined || text === "") return DATABASE_POOL_DEFAULT;
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (count < 2 || count > DATABASE_POOL_LIMIT) {
    problems.push(`DATABASE_POOL_MAX: "${text}" is not a number from 2 to ${DATABASE_POOL_LIMIT}`);
  }
  return count;
}

function readMasterKey(env: Env, problems: string[]): Uint8Array | null {
  const text = env["TOKENBILL_MASTER_KEY"];
  if (text === undefined || text === "") return null;
  const key = decodeMasterKey(text);
  if (key === null) problems.push("TOKENBILL_MASTER_KEY: give 32 bytes in base64, as made by: openssl rand -base64 32");
  return key;
}

/** 32 bytes from base64 (either alphabet, padded or not), or null. */
export function decodeMasterKey(text: string): Uint8Array | null {
  const trimmed = text.trim();
  if (!/^[A-Za-z0-9+/_-]{43}=?$/.test(trimmed)) return null;
  const key = Buffer.from(trimmed, "base64");
  return key.length === 32 ? new Uint8Array(key) : null;
}

function readNodeToken(env: Env, problems: string[]): string | null {
  const text = env["NODE_TOKEN"];
  if (text === undefined || text === "") return null;
  if (text.length < NODE_TOKEN_CHARS_MIN || !/^[\x21-\x7e]+$/.test(text)) {
    problems.push(`NODE_TOKEN: give at least ${NODE_TOKEN_CHARS_MIN} printable ASCII characters without spaces`);
  }
  return text;
}

function readLogLevel(env: Env, problems: string[]): LogLevel {
  const text = env["LOG_LEVEL"];
  if (text === undefined || text === "") return "info";
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined) problems.push(`LOG_LEVEL: "${text}" is not one of ${LOG_LEVELS.join(", ")}`);
  return level ?? "info";
}

function readAllowPrivate(env: Env, address: Address, problems: string[]): boolean {
  const text = env["ALLOW_PRIVATE_UPSTREAMS"];
  if (text === undefined || text === "") return isLoopbackHost(address.host);
  if (text !== "true" && text !== "false") problems.push(`ALLOW_PRIVATE_UPSTREAMS: "${text}" is not true or false`);
  return text === "true";
}

function readLeaseHold(env: Env, problems: string[]): number {
  const text = env["LEASE_HOLD_S"];
  if (text === undefined || text === "") return LEASE_HOLD_S_DEFAULT;
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (seconds < 0 || seconds > LEASE_HOLD_S_MAX) {
    problems.push(`LEASE_HOLD_S: "${text}" is not a number of seconds from 0 to ${LEASE_HOLD_S_MAX}`);
  }
  return seconds;
}

function readSandboxPayments(env: Env, problems: string[]): Settings["sandboxPayments"] {
  const text = env["SANDBOX_PAYMENTS"];
  if (text === undefined || text === "") return "auto";
  if (text !== "auto" && text !== "always" && text !== "never") {
    problems.push(`SANDBOX_PAYMENTS: "${text}" is not auto, always or never`);
    return "auto";
  }
  return text;
}

function readProxyHops(env: Env, problems: string[]): number {
  const text = env["TRUSTED_PROXY_HOPS"];
  if (text === undefined || text === "") return 0;
  const hops = /^\d{1,2}$/.test(text) ? Number(text) : -1;
  if (hops < 0 || hops > PROXY_HOPS_MAX)
    problems.push(`TRUSTED_PROXY_HOPS: "${text}" is not a number from 0 to ${PROXY_HOPS_MAX}`);
  return hops;
}

function processorUrl(name: string, text: string | undefined, fallback: string, problems: string[]): string {
  if (text === undefined || text === "") return fallback;
  const url = parseUrl(text, ["http:", "https:"]);
  if (url === null || url.username !== "" || url.pathname !== "/" || url.search !== "" || url.hash !== "") {
    problems.push(`${name}: give an http or https URL without a path, such as ${fallback}`);
    return fallback;
  }
  return url.origin;
}

function readProcessorUrls(env: Env, problems: string[]): Settings["processorUrls"] {
  return {
    stripe: processorUrl("STRIPE_API_URL", env["STRIPE_API_URL"], STRIPE_API_URL, problems),
    wechatPay: processorUrl("WECHAT_PAY_API_URL", env["WECHAT_PAY_API_URL"], WECHAT_PAY_API_URL, problems),
    wechat: processorUrl("WECHAT_API_URL", env["WECHAT_API_URL"], WECHAT_API_URL, problems),
  };
}

/** An empty variable counts as absent. @throws SettingsError with every problem at once */
export function parseSettings(env: Env): Settings {
  const problems: string[] = [];
  const address = readAddress(env, problems);
  const home = env["TOKENBILL_HOME"];
  const settings: Settings = {
    home: resolve(home === undefined || home === "" ? join(".", ".tokenbill") : home),
    address,
    publicUrl: readPublicUrl(env, problems),
    databaseUrl: readDatabaseUrl(env, problems),
    databasePoolMax: readPoolMax(env, problems),
    redisUrl: readRedisUrl(env, problems),
    masterKey: readMasterKey(env, problems),
    nodeToken: readNodeToken(env, problems),
    logLevel: readLogLevel(env, problems),
    allowPrivateUpstreams: readAllowPrivate(env, address, problems),
    sandboxPayments: readSandboxPayments(env, problems),
    trustedProxyHops: readProxyHops(env, problems),
    processorUrls: readProcessorUrls(env, problems),
    leaseHoldMs: readLeaseHold(env, problems) * 1000,
  };
  if (problems.length > 0) throw new SettingsError(problems);
  return settings;
}
