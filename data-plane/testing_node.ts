/** For tests: a node as a process of its own, in a home of its own, against the control plane of the tests. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create } from "@bufbuild/protobuf";
import { WatchConfigResponseSchema } from "../proto/gen/tokenbill/node/v1/config_feed_service_pb.ts";
import { FakeControlPlane, NODE_TOKEN } from "./testing_control_plane.ts";

export interface RunningProcess {
  readonly child: ChildProcess;
  /** The address, when it is ready. */
  readonly ready: Promise<string>;
  readonly exit: Promise<{ code: number | null; stderr: string }>;
  /** What it has written to stderr so far. */
  readonly stderr: () => string;
}

export class NodeHome {
  readonly home = mkdtempSync(join(tmpdir(), "tokenbill-main-"));
  readonly server = new FakeControlPlane();
  readonly #children: ChildProcess[] = [];

  /** A home, and a control plane whose configuration is empty, at revision 1. */
  static async open(): Promise<NodeHome> {
    const opened = new NodeHome();
    opened.server.first = [
      create(WatchConfigResponseSchema, { event: { case: "snapshotBegin", value: { epoch: "e", revision: 1n } } }),
      create(WatchConfigResponseSchema, { event: { case: "snapshotEnd", value: { revision: 1n } } }),
    ];
    await opened.server.start();
    return opened;
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await this.server.stop();
    rmSync(this.home, { recursive: true, force: true });
  }

  /** Starts `script`, a file of this folder. */
  start(env: Record<string, string> = {}, script = "main.ts"): RunningProcess {
    const base = {
      PATH: process.env["PATH"] ?? "",
      TOKENBILL_HOME: this.home,
      DATA_PLANE_ADDR: "127.0.0.1:0",
      LOG_LEVEL: "silent",
    };
    const node = { CONTROL_PLANE_URL: this.server.url, NODE_TOKEN };
    const child = spawn(process.execPath, [fileURLToPath(new URL(script, import.meta.url))], {
      env: { ...base, ...node, ...env },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#children.push(child);
    let stderr = "";
    child.stderr!.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const ready = new Promise<string>((done) =>
      child.once("message", (message: { address: string }) => done(message.address)),
    );
    const ended = new Promise<number | null>((done) => child.once("exit", done));
    const drained = new Promise((done) => child.stderr!.once("close", done));
    const exit = Promise.all([ended, drained]).then(([code]) => ({ code, stderr }));
    return { child, ready, exit, stderr: () => stderr };
  }

  /** Boots that have a journal here. */
  boots(): string[] {
    return readdirSync(join(this.home, "node", "journal"));
  }

  /** The process that a boot is. */
  ownerPid(bootId: string): number {
    const claim = join(this.home, "node", "journal", bootId, "owner.0.json");
    return (JSON.parse(readFileSync(claim, "utf8")) as { pid: number }).pid;
  }
}

/** One request on a connection of its own. */
export async function get(address: string, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${address}${path}`, { headers: { connection: "close" } });
  return { status: response.status, text: await response.text() };
}
