/** Environment -> Settings of a data-plane node. Pure: no file is read, nothing is opened. */

import { join, resolve } from "node:path";
import { type Address, isLoopbackHost, parseAddress } from "../core/listen_address.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface Settings {
  /** Absolute path of TOKENBILL_HOME. */
  readonly home: string;
  readonly address: Address;
  /** Worker processes on the one port, under a primary; null: one process that does everything. */
  readonly workers: number | null;
  /** Without a slash at the end. */
  readonly controlPlaneUrl: string;
  /** Null: the file `node.token` of the home. */
  readonly nodeToken: string | null;
  /** Null: the file `node/node.id` of the home, made on the first start. */
  readonly nodeId: string | null;
  /** `<ve>.<domain>` addresses a VE; empty: off. */
  readonly veDomain: string;
  /** Whether upstreams may live at private and loopback addresses. */
  readonly allowPrivateUpstreams: boolean;
  /** AWS_NODE_IDENTITY: Providers of AWS may use the identity of the container or instance that this node runs in. */
  readonly awsNodeIdentity: boolean;
  /** Empty: CORS is off; `["*"]`: any origin. */
  readonly corsOrigins: readonly string[];
  /** How long live requests may go on after SIGTERM. */
  readonly drainMs: number;
  readonly logLevel: LogLevel;
}

/** Each problem is one line that names its variable. Values of secrets are never in it. */
export class SettingsError extends Error {
  readonly code = "settings";
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.name = "SettingsError";
    this.problems = problems;
  }
}

export const ADDRESS_DEFAULT: Address = { host: "127.0.0.1", port: 8081 };
export const CONTROL_PLANE_URL_DEFAULT = "http://127.0.0.1:8080";
export const WORKERS_MAX = 256;
export const DRAIN_MS_DEFAULT = 30_000;
export const DRAIN_MS_MAX = 3_600_000;
const NODE_TOKEN_CHARS_MIN = 16;
/** The schema allows 128; a worker adds `/w256` at most. */
const NODE_ID_CHARS_MAX = 100;

type Env = Readonly<Record<string, string | undefined>>;

/** Undefined for a variable that is absent or empty. */
function read(env: Env, name: string): string | undefined {
  const text = env[name]?.trim();
  return text === "" ? undefined : text;
}

function readAddress(env: Env, problems: string[]): Address {
  const text = read(env, "DATA_PLANE_ADDR");
  if (text === undefined) return ADDRESS_DEFAULT;
  const address = parseAddress(text);
  if (address === null) problems.push(`DATA_PLANE_ADDR: "${text}" is not host:port, such as 127.0.0.1:8081`);
  return address ?? ADDRESS_DEFAULT;
}

function readNumber<A>(env: Env, name: string, absent: A, min: number, max: number, problems: string[]): number | A {
  const text = read(env, name);
  if (text === undefined) return absent;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value >= min && value <= max) return value;
  problems.push(`${name}: "${text}" is not a whole number from ${min} to ${max}`);
  return absent;
}

function readControlPlaneUrl(env: Env, problems: string[]): string {
  const text = read(env, "CONTROL_PLANE_URL");
  if (text === undefined) return CONTROL_PLANE_URL_DEFAULT;
  const url = URL.parse(text);
  const good =
    url !== null && /^https?:$/.test(url.protocol) && url.username + url.password + url.search + url.hash === "";
  if (!good) {
    problems.push(
      "CONTROL_PLANE_URL: give an http or https URL without credentials, query or fragment, such as http://127.0.0.1:8080",
    );
    return CONTROL_PLANE_URL_DEFAULT;
  }
  return url.href.replace(/\/+$/, "");
}

function readNodeToken(env: Env, problems: string[]): string | null {
  const text = read(env, "NODE_TOKEN");
  if (text === undefined) return null;
  if (text.length < NODE_TOKEN_CHARS_MIN || !/^[\x21-\x7e]+$/.test(text)) {
    problems.push(`NODE_TOKEN: give at least ${NODE_TOKEN_CHARS_MIN} printable ASCII characters without spaces`);
  }
  return text;
}

function readNodeId(env: Env, problems: string[]): string | null {
  const text = read(env, "NODE_ID");
  if (text === undefined) return null;
  if (text.length > NODE_ID_CHARS_MAX || !/^[A-Za-z0-9._:-]+$/.test(text)) {
    problems.push(`NODE_ID: give at most ${NODE_ID_CHARS_MAX} letters, digits, dots, colons, hyphens and underscores`);
  }
  return text;
}

function readVeDomain(env: Env, problems: string[]): string {
  const text = read(env, "VE_DOMAIN")?.toLowerCase().replace(/^\./, "");
  if (text === undefined) return "";
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
  if (text.length > 200 || !text.split(".").every((part) => label.test(part))) {
    problems.push(`VE_DOMAIN: "${text}" is not a host name, such as api.example.com`);
  }
  return text;
}

function readAllowPrivate(env: Env, address: Address, problems: string[]): boolean {
  const text = read(env, "ALLOW_PRIVATE_UPSTREAMS");
  if (text === undefined) return isLoopbackHost(address.host);
  if (text !== "true" && text !== "false") problems.push(`ALLOW_PRIVATE_UPSTREAMS: "${text}" is not true or false`);
  return text === "true";
}

function readFlag(env: Env, name: string, problems: string[]): boolean {
  const text = read(env, name);
  if (text !== undefined && text !== "true" && text !== "false")
    problems.push(`${name}: "${text}" is not true or false`);
  return text === "true";
}

function readCorsOrigins(env: Env, problems: string[]): readonly string[] {
  const origins = (read(env, "CORS_ORIGINS") ?? "").split(",").map((part) => part.trim());
  const given = origins.filter((origin) => origin !== "");
  if (given.includes("*")) {
    if (given.length > 1) problems.push("CORS_ORIGINS: * stands alone");
    return ["*"];
  }
  const result: string[] = [];
  for (const text of given) {
    const url = URL.parse(text);
    if (url === null || url.origin === "null" || url.origin !== text.toLowerCase().replace(/\/$/, "")) {
      problems.push(`CORS_ORIGINS: "${text}" is not an origin, such as https://app.example.com`);
    } else {
      result.push(url.origin);
    }
  }
  return result;
}

function readLogLevel(env: Env, problems: string[]): LogLevel {
  const text = read(env, "LOG_LEVEL");
  if (text === undefined) return "info";
  const level = LOG_LEVELS.find((known) => known === text);
  if (level === undefined) problems.push(`LOG_LEVEL: "${text}" is not one of ${LOG_LEVELS.join(", ")}`);
  return level ?? "info";
}

/** An empty variable counts as absent. @throws SettingsError with every problem at once */
export function parseSettings(env: Env): Settings {
  const problems: string[] = [];
  const address = readAddress(env, problems);
  const settings: Settings = {
    home: resolve(read(env, "TOKENBILL_HOME") ?? join(".", ".tokenbill")),
    address,
    workers: readNumber(env, "DATA_PLANE_WORKERS", null, 1, WORKERS_MAX, problems),
    controlPlaneUrl: readControlPlaneUrl(env, problems),
    nodeToken: readNodeToken(env, problems),
    nodeId: readNodeId(env, problems),
    veDomain: readVeDomain(env, problems),
    allowPrivateUpstreams: readAllowPrivate(env, address, problems),
    awsNodeIdentity: readFlag(env, "AWS_NODE_IDENTITY", problems),
    corsOrigins: readCorsOrigins(env, problems),
    drainMs: readNumber(env, "DRAIN_MS", DRAIN_MS_DEFAULT, 0, DRAIN_MS_MAX, problems),
    logLevel: readLogLevel(env, problems),
  };
  if (problems.length > 0) throw new SettingsError(problems);
  return settings;
}
