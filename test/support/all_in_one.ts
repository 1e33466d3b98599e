/** `npm start`, as a process of its own on ephemeral ports. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createTokenBill, type TokenBill } from "../../clients/ts/src/index.ts";
import { Part } from "./part.ts";
import { DataPlaneNode } from "./system.ts";

const READY = /^TokenBill is ready: control plane (http:\/\/\S+), data plane (http:\/\/\S+)\/v1, /m;

export interface AllInOneOptions {
  readonly home: string;
  readonly databaseUrl?: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
}

export function makeHome(): Promise<string> {
  return mkdtemp(join(tmpdir(), "tokenbill-home-"));
}

export async function removeHome(home: string): Promise<void> {
  await rm(home, { recursive: true, force: true });
}

/** The process that `npm start` runs, whether or not it gets ready. */
export function spawnAllInOne(options: AllInOneOptions): Part {
  const env = {
    PATH: process.env["PATH"],
    TOKENBILL_HOME: options.home,
    CONTROL_PLANE_ADDR: "127.0.0.1:0",
    DATA_PLANE_ADDR: "127.0.0.1:0",
    ...(options.databaseUrl === undefined ? {} : { DATABASE_URL: options.databaseUrl }),
    ...options.env,
  };
  return new Part("npm start", "start.ts", env, {
    readyIn: (log) => READY.exec(log)?.slice(1).join(" "),
  });
}

export class AllInOne {
  readonly part: Part;
  readonly home: string;
  readonly controlPlaneUrl: string;
  readonly dataPlaneUrl: string;
  readonly node: DataPlaneNode;

  constructor(part: Part, home: string) {
    this.part = part;
    this.home = home;
    [this.controlPlaneUrl, this.dataPlaneUrl] = part.address.split(" ") as [string, string];
    const { host } = new URL(this.dataPlaneUrl);
    this.node = new DataPlaneNode(host, part, home);
  }

  static async start(options: AllInOneOptions): Promise<AllInOne> {
    return new AllInOne(await spawnAllInOne(options).ready(), options.home);
  }

  async api(): Promise<TokenBill> {
    const apiToken = (await readFile(join(this.home, "merchant.token"), "utf8")).trim();
    return createTokenBill({ baseUrl: this.controlPlaneUrl, apiToken });
  }

  stop(): Promise<void> {
    return this.part.stop();
  }
}
